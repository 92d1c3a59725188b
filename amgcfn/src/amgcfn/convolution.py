"""The multiscale convolution branch of AMGCFN (IEEE TGRS 2023, section III-C).

`fast/convolution.py` computes the three blocks of a level at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amgcfn import fast
from amgcfn.fast.convolution import convolution_level

KERNELS = (7, 5, 3)
SLOPE = 0.01


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics stay in float32, because variances of raw cubes exceed float16's range."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = self.running_mean, self.running_var
        super()._apply(fn, recurse)
        for name, wide in zip(("running_mean", "running_var"), before, strict=True):
            found = getattr(self, name)
            if wide is not None and found.dtype in (torch.float16, torch.bfloat16):
                # From the value before the conversion, which can overflow to infinity.
                setattr(self, name, found.float() if wide.is_meta or found.is_meta else wide.to(found.device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a `(B, C, H, W)` map."""
        if x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        weight, bias = self.weight.float(), self.bias.float()
        assert self.momentum is not None
        return F.batch_norm(
            x.float(), self.running_mean, self.running_var, weight, bias, self.training, self.momentum, self.eps
        ).to(x.dtype)


class ConvolutionBlock(nn.Module):
    """BatchNorm, 1×1 convolution, LeakyReLU, 3×3 average, depth-wise k×k convolution, LeakyReLU.

    The average includes the zeros beyond the border, as released.

    Args:
        in_channels, channels: channels of input and output.
        kernel: size k, odd.

    Shape:
        `(B, in_channels, H, W)` → `(B, channels, H, W)`.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filter a `(B, C, H, W)` map."""
        x = F.leaky_relu(self.pointwise(self.norm(x)), SLOPE)
        return F.leaky_relu(self.depthwise(F.avg_pool2d(x, 3, stride=1, padding=1)), SLOPE)


class ConvolutionLevel(nn.Module):
    """Three parallel blocks with kernels of 7, 5 and 3 pixels on the same map, summed or concatenated.

    Args:
        in_channels, channels: channels of the input and of each block.
        concatenate: return `3 * channels` channels in the order of the kernels instead of the sum.

    Shape:
        `(H, W, in_channels)` → `(H, W, channels)` or `(H, W, 3 * channels)`; channels are the
        last axis, as in cubes and matrix products (1×1 convolutions).
    """

    def __init__(self, in_channels: int, channels: int, *, concatenate: bool = False) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.blocks = nn.ModuleList(ConvolutionBlock(in_channels, channels, kernel) for kernel in KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Filter an `(H, W, C)` map."""
        if fast.usable(x):
            blocks = cast(Sequence[ConvolutionBlock], self.blocks)
            return convolution_level(blocks, x, training=self.training, concatenate=self.concatenate)
        image = x.permute(2, 0, 1)[None]
        maps = [block(image)[0].permute(1, 2, 0) for block in self.blocks]
        return torch.cat(maps, dim=2) if self.concatenate else maps[0] + maps[1] + maps[2]
