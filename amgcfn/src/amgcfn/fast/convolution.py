"""The three blocks of a convolution level computed together, exactly, with their own backward pass.

A whole scene is one sample, and every unnecessary full-size map costs as much as a convolution:

- The three BatchNorms have the same input, so its statistics are computed once, and their affine parts are folded into
  the 1×1 convolutions. No normalised map is stored.
- Only the signs of each activation are stored for the backward pass (1 byte instead of 4).
- The 3×3 average that includes the zeros of the padding is its own adjoint, so its backward pass needs no map.
- Libraries compute the gradient of depth-wise kernels wider than 3 slowly on a CPU; here it is composed of windows of
  width 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from amgcfn.convolution import ConvolutionBlock

SLOPE = 0.01  # of LeakyReLU, as in `amgcfn.convolution`
_BAND_VALUES = 1 << 20  # values of a band of rows: 4 MiB in float32


def convolution_level(blocks: Sequence[ConvolutionBlock], x: Tensor, *, training: bool, concatenate: bool) -> Tensor:
    """Apply the blocks to an `(H, W, C)` map; the output is `ConvolutionLevel`'s."""
    parameters: list[Tensor] = []
    for block in blocks:
        norm, weight = block.norm, block.pointwise.weight.flatten(1)
        scale: Tensor = norm.weight
        shift: Tensor = norm.bias
        if not training:
            assert norm.running_mean is not None and norm.running_var is not None
            scale = scale * (norm.running_var + norm.eps).rsqrt()
            shift = shift - norm.running_mean * scale
        assert block.pointwise.bias is not None and block.depthwise.bias is not None
        parameters += [weight * scale, block.pointwise.bias + weight @ shift]
        parameters += [block.depthwise.weight, block.depthwise.bias]
        eps = norm.eps
    out, mean, variance = _Level.apply(x, eps if training else None, concatenate, *parameters)
    if training:
        _update_running_statistics(blocks, mean, variance, x.shape[0] * x.shape[1])
    return out


@torch.no_grad()
def _update_running_statistics(blocks: Sequence[ConvolutionBlock], mean: Tensor, variance: Tensor, pixels: int) -> None:
    for block in blocks:
        norm = block.norm
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.num_batches_tracked is not None and norm.momentum is not None
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)


class _Level(torch.autograd.Function):
    """Three blocks on one map; see the module's docstring.

    y_j = W_j x̂ + b_j, where x̂ is x normalised over its pixels (`eps` given) or x itself, then
    the rest of block j. Everything before a depth-wise convolution is computed in bands of rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float | None, concatenate: bool, *parameters: Tensor) -> Any:
        height, width, channels = x.shape
        x = x.contiguous()
        if eps is None:
            mean, variance = x.new_zeros(channels), x.new_ones(channels)
            rate = variance
        else:
            mean, variance = _moments(x.view(-1, channels))
            rate = (variance + eps).rsqrt()
        saved: list[Tensor] = []
        outputs = []
        for j in range(0, len(parameters), 4):
            weight, bias, kernel, kernel_bias = parameters[j : j + 4]
            weight = weight * rate
            bias = bias - weight @ mean
            half = kernel.shape[2] // 2
            # Zero columns on both sides and a spare row: see `_map_of`.
            average = x.new_empty(height + 1, width + 2 * half, len(kernel))
            for margin in (average[height:], average[:, :half], average[:, half + width :]):
                margin.zero_()
            positive = torch.empty(height, width, len(kernel), dtype=torch.bool, device=x.device)
            for rows, above, below in _bands(x):
                y = torch.addmm(bias, x[above:below].view(-1, channels), weight.T).view(-1, width, len(kernel))
                torch.gt(y[rows.start - above : rows.stop - above], 0, out=positive[rows])
                _average(F.leaky_relu_(y, SLOPE), rows.start - above, average[rows, half : half + width])
            z = F.conv2d(_map_of(average, height), kernel, kernel_bias, padding=(half, 0), groups=len(kernel))
            z = z[0].permute(1, 2, 0)
            saved += [positive, average, z > 0]
            outputs.append(F.leaky_relu_(z, SLOPE))
        out = torch.cat(outputs, dim=2) if concatenate else _sum(outputs)
        ctx.normalised, ctx.concatenate, ctx.blocks = eps is not None, concatenate, len(outputs)
        ctx.save_for_backward(x, mean, rate, *parameters, *saved)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *statistics: Any) -> Any:
        x, mean, rate, *rest = ctx.saved_tensors
        parameters, saved = rest[: 4 * ctx.blocks], rest[4 * ctx.blocks :]
        height, width, channels = x.shape
        needs_x = ctx.needs_input_grad[0]
        grad_x = torch.empty_like(x) if needs_x else None
        grads: list[Tensor] = []
        constant, slope = torch.zeros_like(mean), torch.zeros_like(mean)
        for j in range(ctx.blocks):
            weight, _, kernel, _ = parameters[4 * j : 4 * j + 4]
            positive, average, positive_out = saved[3 * j : 3 * j + 3]
            size, count = kernel.shape[2], len(kernel)
            part = gradient[..., j * count : (j + 1) * count] if ctx.concatenate else gradient
            grad_z = part.new_empty(height, width + size - 3, count)
            grad_z[:, width:].zero_()
            for rows, _, _ in _bands(x):
                _leaky_backward(part[rows], positive_out[rows], grad_z[rows, :width])
            grad_map = grad_z[None].permute(0, 3, 1, 2)  # its strides are those of channels-last maps
            grad_kernel = _kernel_gradient(grad_map, average, kernel)
            grad_average = F.conv2d(grad_map, kernel.flip(2, 3), padding=size // 2, groups=count)
            grad_average = grad_average[0].permute(1, 2, 0)[:, :width]
            grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(count)
            scaled = weight * rate
            for rows, above, below in _bands(x):
                grad_y = x.new_empty(rows.stop - rows.start, width, count)
                _average(grad_average[above:below], rows.start - above, grad_y)
                _leaky_backward(grad_y, positive[rows], grad_y)
                grad_y = grad_y.view(-1, count)
                grad_weight.addmm_(grad_y.T, x[rows].view(-1, channels))
                grad_bias += grad_y.sum(dim=0)
                if grad_x is not None:
                    grad_x[rows].view(-1, channels).addmm_(grad_y, scaled, beta=min(j, 1))
            grad_weight = (grad_weight - torch.outer(grad_bias, mean)) * rate
            grads += [grad_weight, grad_bias, grad_kernel, grad_z.sum(dim=(0, 1))]
            constant += grad_bias @ weight
            slope += (weight * grad_weight).sum(dim=0)
        if grad_x is not None and ctx.normalised:
            # Batch norm: ∂x = rate · (∂x̂ − mean(∂x̂) − x̂ · mean(x̂ ∂x̂)), with x̂ = rate · (x − mean)
            constant, slope = rate * constant / (height * width), rate**2 * slope / (height * width)
            grad_x.addcmul_(x, slope, value=-1).add_(slope * mean - constant)
        return (grad_x, None, None, *grads)


def _sum(maps: list[Tensor]) -> Tensor:
    """Sum into the first map."""
    total = maps[0]
    for other in maps[1:]:
        total.add_(other)
    return total


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of `(n, C)` over n, in two passes and without a full-size temporary."""
    mean = pixels.mean(dim=0)
    parts = [(part - mean).square_().sum(dim=0) for part in pixels.split(4096)]
    return mean, torch.stack(parts).sum(dim=0) / len(pixels)


def _bands(x: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Yield bands of rows that fit into a processor's cache: the rows, and start and stop including one row around.

    On a GPU the whole map is one band.
    """
    height, width, channels = x.shape
    size = height if x.is_cuda else max(1, _BAND_VALUES // (width * channels))
    for top in range(0, height, size):
        bottom = min(top + size, height)
        yield slice(top, bottom), max(top - 1, 0), min(bottom + 1, height)


def _average(x: Tensor, first: int, out: Tensor) -> None:
    """Write the 3×3 average of `len(out)` rows of x from row `first`, including zeros beyond the border.

    The neighbouring rows of x are used if they exist.
    """
    last = first + len(out)
    total = x[first:last] * (1 / 9)
    top, bottom = int(first == 0), int(last == len(x))
    total[top:].add_(x[first + top - 1 : last - 1], alpha=1 / 9)
    total[: len(out) - bottom].add_(x[first + 1 : last + 1 - bottom], alpha=1 / 9)
    out.copy_(total)
    out[:, 1:] += total[:, :-1]
    out[:, :-1] += total[:, 1:]


def _leaky_backward(gradient: Tensor, positive: Tensor, out: Tensor) -> None:
    """Write the gradient of LeakyReLU; arithmetic on bytes is ten times as fast as `torch.where` on booleans."""
    factor = positive.view(torch.uint8).to(gradient.dtype).mul_(1 - SLOPE).add_(SLOPE)
    torch.mul(gradient, factor, out=out)


def _map_of(memory: Tensor, height: int, shift: int = 0) -> Tensor:
    """View `(height + 1, W, C)` memory as a `(1, C, height, W)` map moved `shift` columns to the left.

    Nothing is copied, because neighbouring columns are C values apart. A shifted row ends with columns of the next row,
    so the memory needs a spare row.
    """
    _, width, channels = memory.shape
    flat = memory.view(-1)[shift * channels : (shift + height * width) * channels]
    return flat.view(1, height, width, channels).permute(0, 3, 1, 2)


def _kernel_gradient(gradient: Tensor, memory: Tensor, kernel: Tensor) -> Tensor:
    """Gradient of a depth-wise k×k kernel, composed of windows of height k and width 3.

    Args:
        gradient: `(1, C, H, W + k - 3)`, zero in the appended columns, so that the columns that a shifted row
            takes from the next row have no effect.
        memory: `(H + 1, W + k - 1, C)`, the convolved map with its zero columns and spare row.
    """
    size, height = kernel.shape[3], gradient.shape[2]
    result = torch.empty_like(kernel)
    for shift in sorted({*range(0, size - 2, 3), size - 3}):
        window = kernel[:, :, :, shift : shift + 3]
        gradients = torch.ops.aten.convolution_backward(
            gradient, _map_of(memory, height, shift), window, None, [1, 1], [size // 2, 0], [1, 1],
            False, [0, 0], len(kernel), [False, True, False],
        )  # fmt: skip
        result[:, :, :, shift : shift + 3] = gradients[1]
    return result
