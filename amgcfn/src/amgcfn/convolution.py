"""The multiscale convolution branch of AMGCFN (IEEE TGRS 2023, section III-C).

`ConvolutionBlock.forward` is the published block. `ConvolutionLevel` computes three of them on
the same map exactly, in one function with its own backward pass, because a whole scene is one
sample and every needless full-size map costs as much as a convolution:

- The three batch norms see the same map, so its statistics are computed once, and the affine
  parts are folded into the 1×1 convolutions. No normalised map is stored.
- Of each activation only the signs are kept for the backward pass (1 byte instead of 4).
- The 3×3 average with counted zeros is its own adjoint, so its backward pass needs no map.
- Libraries compute the gradient of depth-wise kernels wider than 3 slowly on CPU; here it is put
  together from windows 3 wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

KERNELS = (7, 5, 3)
SLOPE = 0.01
_ROWS = 32  # rows handled at a time where a temporary would otherwise be as large as a map


class ConvolutionBlock(nn.Module):
    """BatchNorm, 1×1 convolution, LeakyReLU, 3×3 average, depth-wise k×k convolution, LeakyReLU.

    The average counts the zeros beyond the border, as released.

    Args:
        in_channels, channels: before and after.
        kernel: k, odd.

    Shape:
        `(B, in_channels, H, W)` → `(B, channels, H, W)`.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.pointwise(self.norm(x)), SLOPE)
        return F.leaky_relu(self.depthwise(F.avg_pool2d(x, 3, stride=1, padding=1)), SLOPE)


class ConvolutionLevel(nn.Module):
    """Three parallel blocks of kernel 7, 5 and 3 on the same map, summed or concatenated.

    Args:
        in_channels, channels: before, and of each block.
        concatenate: give `3 * channels` channels in the order of the kernels instead of the sum.

    Shape:
        `(H, W, in_channels)` → `(H, W, channels)` or `(H, W, 3 * channels)`; channels come last
        because that is how cubes and 1×1 convolutions (matrix products) lie in memory.
    """

    def __init__(self, in_channels: int, channels: int, *, concatenate: bool = False) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.blocks = nn.ModuleList(ConvolutionBlock(in_channels, channels, kernel) for kernel in KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        parameters = []
        for block in self.blocks:
            norm, weight = block.norm, block.pointwise.weight.flatten(1)
            scale, shift = norm.weight, norm.bias
            if not self.training:
                scale = scale * (norm.running_var + norm.eps).rsqrt()
                shift = shift - norm.running_mean * scale
            parameters += [weight * scale, block.pointwise.bias + weight @ shift]
            parameters += [block.depthwise.weight, block.depthwise.bias]
        eps = self.blocks[0].norm.eps if self.training else None
        out, mean, variance = _Level.apply(x, eps, self.concatenate, *parameters)
        if self.training:
            self._update_running_statistics(mean, variance, x.shape[0] * x.shape[1])
        return out

    def literal(self, x: Tensor) -> Tensor:
        """The same output, block by block."""
        maps = [block(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0) for block in self.blocks]
        return torch.cat(maps, dim=2) if self.concatenate else maps[0] + maps[1] + maps[2]

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        for block in self.blocks:
            norm = block.norm
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)


class _Level(torch.autograd.Function):
    """Three blocks on one map; see the module's docstring.

    With y_j = W_j x̂ + b_j, where x̂ is x normalised over its pixels (`eps` given) or x itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float | None, concatenate: bool, *parameters: Tensor) -> Any:
        height, width, channels = x.shape
        pixels = x.reshape(-1, channels)
        if eps is None:
            mean, variance = pixels.new_zeros(channels), pixels.new_ones(channels)
            rate = variance
        else:
            mean, variance = _moments(pixels)
            rate = (variance + eps).rsqrt()
        saved: list[Tensor] = []
        outputs = []
        for j in range(0, len(parameters), 4):
            weight, bias, kernel, kernel_bias = parameters[j : j + 4]
            weight = weight * rate
            y = torch.addmm(bias - weight @ mean, pixels, weight.T)
            positive_in = y > 0
            y = _as_map(F.leaky_relu_(y, SLOPE), height, width)
            average = _padded(F.avg_pool2d(y, 3, stride=1, padding=1), kernel.shape[3] // 2)
            del y
            z = F.conv2d(_map_of(average, height), kernel, kernel_bias, padding=(kernel.shape[2] // 2, 0), groups=len(kernel))
            saved += [positive_in, average, z > 0]
            outputs.append(F.leaky_relu_(z, SLOPE)[0].permute(1, 2, 0))
        if concatenate:
            out = torch.cat(outputs, dim=2)
        else:
            out = outputs[0].add_(outputs[1]).add_(outputs[2])
        ctx.normalised, ctx.concatenate = eps is not None, concatenate
        ctx.save_for_backward(x, mean, rate, *parameters, *saved)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        x, mean, rate, *rest = ctx.saved_tensors
        height, width, channels = x.shape
        blocks = len(KERNELS)
        parameters, saved = rest[: 4 * blocks], rest[4 * blocks :]
        pixels = x.reshape(-1, channels)
        needs_x = ctx.needs_input_grad[0]
        grad_x = None
        grads: list[Tensor] = []
        mean_product = torch.zeros_like(mean)  # mean over pixels of x̂ · ∂x̂
        for j in range(blocks):
            weight, _, kernel, _ = parameters[4 * j : 4 * j + 4]
            positive_in, average, positive_out = saved[3 * j : 3 * j + 3]
            part = gradient
            if ctx.concatenate:
                part = gradient[..., j * len(kernel) : (j + 1) * len(kernel)]
            half = kernel.shape[2] // 2
            part = _activation_gradient(part, positive_out, extra_columns=max(0, 2 * half - 2))
            grad_kernel = _kernel_gradient(part, average, height, kernel)
            inner = part[:, :, :, :width]
            grad_average = F.conv2d(inner, kernel.flip(2, 3), padding=half, groups=len(kernel))
            grads_bias = part.sum(dim=(0, 2, 3))
            del part, inner
            grad_y = F.avg_pool2d(grad_average, 3, stride=1, padding=1)[0].permute(1, 2, 0)
            del grad_average
            grad_y = grad_y.reshape(-1, len(kernel))
            grad_y = torch.where(positive_in, grad_y, grad_y * SLOPE)
            total = grad_y.sum(dim=0)
            grad_weight = (grad_y.T @ pixels - torch.outer(total, mean)) * rate
            grads += [grad_weight, total, grad_kernel, grads_bias]
            if needs_x:
                mean_product += (weight * grad_weight).sum(dim=0) / len(pixels)
                scaled = weight * rate
                grad_x = grad_y @ scaled if grad_x is None else grad_x.addmm_(grad_y, scaled)
        if needs_x and ctx.normalised:
            # ∂x = rate · (∂x̂ − mean(∂x̂) − x̂ · mean(x̂ ∂x̂)), the backward pass of batch norm
            mean_gradient = sum(parameters[4 * j].T @ grads[4 * j + 1] for j in range(blocks)) / len(pixels)
            slope = rate * rate * mean_product
            grad_x.addcmul_(pixels, slope, value=-1).add_(slope * mean - rate * mean_gradient)
        return (None if grad_x is None else grad_x.view(x.shape), None, None, *grads)


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of `(n, C)` over n, in two passes and without a full-size temporary."""
    mean = pixels.mean(dim=0)
    parts = [(part - mean).square_().sum(dim=0) for part in pixels.split(4096)]
    return mean, torch.stack(parts).sum(dim=0) / len(pixels)


def _as_map(pixels: Tensor, height: int, width: int) -> Tensor:
    """View `(H·W, C)` as a `(1, C, H, W)` map in channels-last memory."""
    return pixels.view(1, height, width, -1).permute(0, 3, 1, 2)


def _padded(x: Tensor, columns: int) -> Tensor:
    """Copy a map into flat channels-last memory with `columns` zero columns on both sides and a spare row of zeros."""
    _, channels, height, width = x.shape
    memory = x.new_zeros(height + 1, width + 2 * columns, channels)
    memory[:height, columns : columns + width] = x[0].permute(1, 2, 0)
    return memory


def _map_of(memory: Tensor, height: int, shift: int = 0) -> Tensor:
    """View padded memory as a map whose columns are moved to the left by `shift`, without a copy."""
    _, width, channels = memory.shape
    flat = memory.view(-1)[shift * channels : (shift + height * width) * channels]
    return flat.view(1, height, width, channels).permute(0, 3, 1, 2)


def _activation_gradient(gradient: Tensor, positive: Tensor, extra_columns: int) -> Tensor:
    """Backward of LeakyReLU for an `(H, W, C)` gradient, with zero columns appended on the right."""
    height, width, channels = gradient.shape
    out = gradient.new_empty(height, width + extra_columns, channels)
    out[:, width:] = 0
    positive = positive[0].permute(1, 2, 0)
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        torch.where(positive[rows], gradient[rows], gradient[rows] * SLOPE, out=out[rows, :width])
    return out.permute(2, 0, 1)[None]


def _kernel_gradient(gradient: Tensor, memory: Tensor, height: int, kernel: Tensor) -> Tensor:
    """Gradient of a depth-wise k×k kernel, from windows that are k high and 3 wide.

    Args:
        gradient: `(1, C, H, W + k - 3)`, zero in the appended columns (so whatever a shifted row
            takes from the next one counts nothing).
        memory: the convolved map, padded by k // 2 columns.
    """
    size = kernel.shape[3]
    result = torch.empty_like(kernel)
    for shift in sorted({*range(0, size - 2, 3), size - 3}):
        window = kernel[:, :, :, shift : shift + 3]
        _, result[:, :, :, shift : shift + 3], _ = torch.ops.aten.convolution_backward(
            gradient, _map_of(memory, height, shift), window, None, [1, 1], [size // 2, 0], [1, 1],
            False, [0, 0], len(kernel), [False, True, False],
        )  # fmt: skip
    return result
