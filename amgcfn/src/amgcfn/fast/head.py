"""The steps after the convolution branch (pixel attention, CAFM and classifiers) without copies of the map.

The network weights its 192-channel map by `PixelAttention`, computes averages and maxima over pixels, re-mixes the
channels to find a maximum per pixel, and classifies (equations in `attention.py` and `cafm.py`). A direct
implementation stores five copies of the network's largest map. Here one function processes the map in blocks that fit
into the processor's cache, and stores only the map itself:

    f = x · weight                  attended map, never stored
    mean and maximum of f           over pixels, for CAFM's mixing matrices P
    f M, and max over channels of P f       M has few columns: classifiers and the channel mean

The small parts in between (a convolution of six channels, CAFM's MLPs) use standard PyTorch operations and are
recomputed in the backward pass, as by `torch.utils.checkpoint`. The graph branch is constant on superpixels, so it is
computed on nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from amgcfn.attention import PixelAttention
    from amgcfn.model import AMGCFN

_BLOCK = 4096  # pixels at a time: 3 MiB of 192 float32 channels
_GROUP = 64  # pixels whose maximum is computed first; divides _BLOCK


def scene_logits(model: AMGCFN, x: Tensor, nodes: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute pixel attention, CAFM and the three classifiers.

    Args:
        x: `(H, W, 192)`, the convolution branch before its attention.
        nodes: `(N, 192)`, the graph branch.
        segments: `(H, W)`.

    Returns:
        logits `(H·W, K)`: fused, convolution, graph.
    """

    def attend(means: Tensor) -> Tensor:
        return pixel_weight(model.pixel_attention, means, *segments.shape)

    def mix(average: Tensor, maximum: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        conv_mixing, node_mixing = channel_mixing(model, average, maximum, nodes, segments)
        return thin_matrix(model, conv_mixing), conv_mixing, node_mixing

    fusion = model.fusion
    mlps = (fusion.average1, fusion.average2, fusion.maximum1, fusion.maximum2)
    parameters: list[Tensor] = [p for part in (model.pixel_attention, *mlps) for p in part.parameters()]
    parameters += [model.fused_classifier.weight, model.conv_classifier.weight]
    heads = model.pixel_attention.heads
    products, peak, node_mixing = _Head.apply(x.flatten(0, 1), nodes, _Small(heads, attend, mix), *parameters)
    return classify(model, products, peak, mixed_nodes=nodes @ node_mixing.T, nodes=nodes, segments=segments)


def pixel_weight(attention: PixelAttention, means: Tensor, height: int, width: int) -> Tensor:
    """Return the weights of `PixelAttention` alone, `(H·W, heads)`, from its heads' means `(H·W, heads)`."""
    maps = means.T.reshape(1, attention.heads, height, width)
    return torch.sigmoid(attention.conv(maps)).flatten(2)[0].T.contiguous()


def channel_mixing(
    model: AMGCFN, average: Tensor, maximum: Tensor, nodes: Tensor, segments: Tensor
) -> tuple[Tensor, Tensor]:
    """Return CAFM's mixing matrices `(192, 192)` of both branches.

    Averages and maxima over the pixels of the graph branch equal those over its nodes, weighted by the nodes' sizes.

    Args:
        average, maximum: `(192,)`, over the pixels of the attended convolution map.
        nodes: `(N, 192)`.
        segments: `(H, W)`.
    """
    size = torch.bincount(segments.reshape(-1), minlength=len(nodes)).to(nodes.dtype)
    node_average, node_maximum = size @ nodes / segments.numel(), nodes.max(dim=0).values
    mixing = model.fusion.channel_mixing(average[None], maximum[None], node_average[None], node_maximum[None])
    return mixing[0][0], mixing[1][0]


def thin_matrix(model: AMGCFN, conv_mixing: Tensor) -> Tensor:
    """Return the matrix by which the attended convolution map is multiplied: two classifiers, and the channel mean."""
    conv_half = model.fused_classifier.weight.chunk(2, dim=1)[1]
    return torch.cat([conv_half, model.conv_classifier.weight, conv_mixing.mean(dim=0, keepdim=True)]).T


def classify(
    model: AMGCFN, products: Tensor, peak: Tensor, *, mixed_nodes: Tensor, nodes: Tensor, segments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight both branches in space and classify.

    out_i = f_i (1 + w_i), so a classifier gives (1 + w_i) · (f_i Wᵀ) + b: only products with
    thin matrices are needed, on N nodes for the graph branch.

    Args:
        products: `(H·W, 2 K + 1)`, attended convolution map times `thin_matrix`.
        peak: `(H·W,)`, its maximum over mixed channels.
        mixed_nodes: `(N, 192)`, re-mixed nodes.
        nodes: `(N, 192)`.
        segments: `(H, W)`.
    """
    labels, classes = segments.reshape(-1), model.num_classes
    fused_conv, conv, mean = products.split([classes, classes, 1], dim=1)
    conv_weight = _spatial_weight(model, mean[:, 0], peak, segments)
    node_mean, node_peak = mixed_nodes.mean(dim=1), mixed_nodes.max(dim=1).values
    node_weight = _spatial_weight(model, node_mean[labels], node_peak[labels], segments)
    graph_half = model.fused_classifier.weight.chunk(2, dim=1)[0]
    node_logits = nodes @ torch.cat([graph_half, model.graph_classifier.weight]).T
    fused_graph, graph = (node_logits.index_select(0, labels) * node_weight).chunk(2, dim=1)
    fused = fused_graph + fused_conv * conv_weight + model.fused_classifier.bias
    return fused, conv * conv_weight + model.conv_classifier.bias, graph + model.graph_classifier.bias


def _spatial_weight(model: AMGCFN, mean: Tensor, maximum: Tensor, segments: Tensor) -> Tensor:
    """CAFM's 1 + w, `(H·W, 1)`, from the mean and maximum over channels of a re-mixed map, `(H·W,)`."""
    maps = torch.stack([mean, maximum]).view(1, 2, *segments.shape)
    return 1 + model.fusion.spatial_weight(maps).view(-1, 1)


class _Small(NamedTuple):
    """The small parts between the passes over the map, in standard PyTorch operations.

    Attributes:
        heads: number of heads of the pixel attention.
        attend: means `(n, heads)` → weights `(n, heads)` of the pixel attention.
        mix: mean and maximum `(C,)` of the attended map, and nodes → M, P and the nodes' mixing matrix.
    """

    heads: int
    attend: Callable[[Tensor], Tensor]
    mix: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class _Head(torch.autograd.Function):
    """From the map x `(n, C)` to `f M`, `(n, K)`, the maximum of `P f`, `(n,)`, and the nodes' mixing matrix.

    `parameters` are the parameters that the small parts use.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, nodes: Tensor, small: _Small, *parameters: Tensor) -> Any:
        means = x @ _mean_by_head(x, small.heads)
        weight = small.attend(means)
        average, maximum, peak = _describe(x, weight)
        thin, mixing, node_mixing = small.mix(average, maximum, nodes)
        products, best, winner = _summarise(x, weight, thin, mixing)
        ctx.small = small
        ctx.save_for_backward(x, nodes, means, average, maximum, peak, winner, *parameters)
        return products, best, node_mixing

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_products: Tensor, grad_best: Tensor, grad_node_mixing: Tensor) -> Any:
        x, nodes, means, average, maximum, peak, winner, *parameters = ctx.saved_tensors
        learned = [p for p in parameters if p.requires_grad]
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            means, nodes, average, maximum = (t.detach().requires_grad_() for t in (means, nodes, average, maximum))
            weight = ctx.small.attend(means)
            mixed = ctx.small.mix(average, maximum, nodes)
        # The sums below are added to buffers that were created here.
        grad_x, grad_weight, grad_thin, grad_mixing = _summarise_backward(
            x, weight.detach(), mixed[0].detach(), mixed[1].detach(), winner, gradients=(grad_products, grad_best)
        )
        grads = _gradients(mixed, (average, maximum, nodes, *learned), (grad_thin, grad_mixing, grad_node_mixing))
        grad_average, grad_maximum, grad_nodes, *of_mix = grads
        _describe_backward(x, weight.detach(), peak, (grad_average, grad_maximum), onto=(grad_x, grad_weight))
        grad_means, *of_attend = _gradients((weight,), (means, *learned), (grad_weight,))
        grad_x.addmm_(grad_means, _mean_by_head(x, weight.shape[1]).T)
        summed = iter(one + other for one, other in zip(of_mix, of_attend, strict=True))
        return (grad_x, grad_nodes, None, *(next(summed) if p.requires_grad else None for p in parameters))


def _gradients(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> Any:
    return torch.autograd.grad(outputs, inputs, gradients, allow_unused=True, materialize_grads=True)


def _describe(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and maximum of the attended map over pixels, `(C,)`, and the first pixel that reaches the maximum."""
    count, channels = x.shape
    total = x.new_zeros(channels)
    tops = []
    for block in _blocks(x):
        f = _attended(x[block], weight[block])
        total += f.sum(dim=0)
        whole = len(f) // _GROUP * _GROUP
        tops.append(f[:whole].view(-1, _GROUP, channels).amax(dim=1))
        tops += [f[whole:].amax(dim=0, keepdim=True)] if whole < len(f) else []
    maximum, group = torch.cat(tops).max(dim=0)
    # The same pixel as in max pooling, searched only in its group.
    rows = (group * _GROUP + torch.arange(_GROUP, device=x.device)[:, None]).clamp(max=count - 1)
    columns = torch.arange(channels, device=x.device)
    head = columns // (channels // weight.shape[1])
    return total / count, maximum, rows[(x[rows, columns] * weight[rows, head]).argmax(dim=0), columns]


def _describe_backward(
    x: Tensor,
    weight: Tensor,
    peak: Tensor,
    gradients: tuple[Tensor, Tensor],
    *,
    onto: tuple[Tensor, Tensor],
) -> None:
    """Add to the gradients of x and weight, from those of the mean and the maximum."""
    (grad_mean, grad_maximum), (grad_x, grad_weight) = gradients, onto
    count, channels = x.shape
    heads = weight.shape[1]
    share = _by_head(grad_mean / count, heads)
    grad_weight.addmm_(x, share)
    grad_x.addmm_(weight, share.T)
    columns = torch.arange(channels, device=x.device)
    head = columns // (channels // heads)
    grad_x.index_put_((peak, columns), grad_maximum * weight[peak, head], accumulate=True)
    grad_weight.index_put_((peak, head), grad_maximum * x[peak, columns], accumulate=True)


def _summarise(x: Tensor, weight: Tensor, thin: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin products, the maximum over re-mixed channels and the channel that reaches it."""
    product = x.new_empty(len(x), thin.shape[1])
    maximum = x.new_empty(len(x))
    winner = torch.empty(len(x), dtype=torch.long, device=x.device)
    for block in _blocks(x):
        f = _attended(x[block], weight[block])
        torch.mm(f, thin, out=product[block])
        torch.max(f @ mixing.T, dim=1, out=(maximum[block], winner[block]))
    return product, maximum, winner


def _summarise_backward(
    x: Tensor,
    weight: Tensor,
    thin: Tensor,
    mixing: Tensor,
    winner: Tensor,
    *,
    gradients: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, thin and mixing, from those of the product and the maximum."""
    grad_product, grad_maximum = gradients
    heads = weight.shape[1]
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    grad_thin, grad_mixing = torch.zeros_like(thin), torch.zeros_like(mixing)
    for block in _blocks(x):
        f = _attended(x[block], weight[block])
        grad_thin.addmm_(f.T, grad_product[block])
        peak = grad_maximum[block].unsqueeze(1)
        # Only one channel per pixel has the maximum, so indexing replaces products of (n, C) and (C, C).
        grad_mixing.index_add_(0, winner[block], f.mul_(peak))
        grad_f = torch.addmm(mixing[winner[block]].mul_(peak), grad_product[block], thin.T)
        grouped = grad_f.unflatten(1, (heads, -1))
        grad_weight[block] = (grouped * x[block].unflatten(1, (heads, -1))).sum(dim=2)
        torch.mul(grouped, weight[block].unsqueeze(2), out=grad_x[block].unflatten(1, (heads, -1)))
    return grad_x, grad_weight, grad_thin, grad_mixing


def _block_size(x: Tensor) -> int:
    return len(x) if x.is_cuda else min(_BLOCK, len(x))


def _blocks(x: Tensor) -> list[slice]:
    size = _block_size(x)
    return [slice(first, first + size) for first in range(0, len(x), size)]


def _mean_by_head(x: Tensor, heads: int) -> Tensor:
    """The `(C, heads)` matrix that averages over each head's channels."""
    return _by_head(x.new_full((x.shape[1],), heads / x.shape[1]), heads)


def _by_head(values: Tensor, heads: int) -> Tensor:
    """Spread `(C,)` values over a `(C, heads)` matrix, each in its head's column."""
    return torch.block_diag(*values.view(heads, -1, 1))


def _attended(x: Tensor, weight: Tensor) -> Tensor:
    """`(n, C)` map times `(n, heads)` weights, each on C / heads channels."""
    return (x.unflatten(1, (weight.shape[1], -1)) * weight.unsqueeze(2)).flatten(1)
