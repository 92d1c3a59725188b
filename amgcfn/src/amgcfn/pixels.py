"""What AMGCFN needs of its convolution map, without copies of the map.

The network weights its 192-channel map by `PixelAttention`, takes averages and maxima over
pixels, re-mixes the channels to find a maximum per pixel, and classifies (equations in
`attention.py` and `cafm.py`). Written plainly, that holds five copies of the largest map of the
network. The two functions here visit the map in blocks that stay in the processor's cache and
keep only the map itself:

    f = x · weight                      attended map, never stored
    describe    → mean and maximum of f over pixels
    summarise   → f M for a thin matrix M (classifiers, channel mean), and max over channels of P f

`describe` hands x and weight through, so that the gradient of x is one buffer that each
function's backward pass adds to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 4096  # pixels at a time: 3 MiB of 192 float32 channels
_GROUP = 64  # pixels of which the maximum is taken first; divides _BLOCK


@torch.compiler.disable  # has its own backward pass, and is a loop over blocks already
def head_means(x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return x, handed through, and the mean over each head's channels: `(n, C)` → `(n, heads)`."""
    return _HeadMeans.apply(x, heads)


@torch.compiler.disable  # has its own backward pass, and is a loop over blocks already
def describe(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x and weight, handed through, and mean and maximum over pixels of the attended map.

    Args:
        x: `(n, C)` map.
        weight: `(n, heads)`, each for C / heads consecutive channels.

    Returns:
        x, weight, `(C,)` mean, `(C,)` maximum.
    """
    return _Describe.apply(x, weight)


@torch.compiler.disable  # has its own backward pass, and is a loop over blocks already
def summarise(x: Tensor, weight: Tensor, thin: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """Return `f thin`, `(n, K)`, and the maximum over the channels of `f mixingᵀ`, `(n,)`.

    Args:
        x, weight: as in `describe`; f is the attended map.
        thin: `(C, K)`, K much smaller than C.
        mixing: `(C, C)`.
    """
    return _Summarise.apply(x, weight, thin, mixing)


class _HeadMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int) -> Any:
        ctx.heads = heads
        return x.view_as(x), x @ _by_head(x.new_full((x.shape[1],), heads / x.shape[1]), heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_means: Tensor) -> Any:
        share = grad_x.new_full((grad_x.shape[1],), ctx.heads / grad_x.shape[1])
        # In place: only `_Describe` takes x from here, and its gradient is a buffer of its own.
        return grad_x.addmm_(grad_means, _by_head(share, ctx.heads).T), None


class _Describe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Any:
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
        # The first pixel that reaches the maximum, as pooling chooses it; looked for in its group only.
        rows = (group * _GROUP + torch.arange(_GROUP, device=x.device)[:, None]).clamp(max=count - 1)
        columns = torch.arange(channels, device=x.device)
        head = columns // (channels // weight.shape[1])
        peak = rows[(x[rows, columns] * weight[rows, head]).argmax(dim=0), columns]
        ctx.save_for_backward(x, weight, peak)
        return x.view_as(x), weight.view_as(weight), total / count, maximum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor, grad_weight: Tensor, grad_mean: Tensor, grad_maximum: Tensor) -> Any:
        x, weight, peak = ctx.saved_tensors
        count, channels = x.shape
        heads = weight.shape[1]
        share = _by_head(grad_mean / count, heads)
        grad_weight = torch.addmm(grad_weight, x, share)
        # In place: only `_Summarise` takes x from here, and its gradient is a buffer of its own.
        grad_x.addmm_(weight, share.T)
        columns = torch.arange(channels, device=x.device)
        head = columns // (channels // heads)
        grad_x.index_put_((peak, columns), grad_maximum * weight[peak, head], accumulate=True)
        grad_weight.index_put_((peak, head), grad_maximum * x[peak, columns], accumulate=True)
        return grad_x, grad_weight


class _Summarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, thin: Tensor, mixing: Tensor) -> Any:
        product = x.new_empty(len(x), thin.shape[1])
        maximum = x.new_empty(len(x))
        winner = torch.empty(len(x), dtype=torch.long, device=x.device)
        for block in _blocks(x):
            f = _attended(x[block], weight[block])
            torch.mm(f, thin, out=product[block])
            torch.max(f @ mixing.T, dim=1, out=(maximum[block], winner[block]))
        ctx.save_for_backward(x, weight, thin, mixing, winner)
        return product, maximum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_product: Tensor, grad_maximum: Tensor) -> Any:
        x, weight, thin, mixing, winner = ctx.saved_tensors
        heads = weight.shape[1]
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        grad_thin, grad_mixing = torch.zeros_like(thin), torch.zeros_like(mixing)
        for block in _blocks(x):
            f = _attended(x[block], weight[block])
            grad_thin.addmm_(f.T, grad_product[block])
            peak = grad_maximum[block].unsqueeze(1)
            # One channel per pixel wins, so these are gathers instead of (n, C) by (C, C) products.
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


def _by_head(values: Tensor, heads: int) -> Tensor:
    """Spread `(C,)` values over a `(C, heads)` matrix, each in its head's column."""
    return torch.block_diag(*values.view(heads, -1, 1))


def _attended(x: Tensor, weight: Tensor) -> Tensor:
    """`(n, C)` map times `(n, heads)` weights, each on C / heads channels."""
    return (x.unflatten(1, (weight.shape[1], -1)) * weight.unsqueeze(2)).flatten(1)
