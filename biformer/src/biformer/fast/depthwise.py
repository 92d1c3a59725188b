"""Depth-wise convolution with a fast gradient on a CPU.

BiFormer's local terms are 5×5 depth-wise convolutions. oneDNN needs about 50 times longer for the gradient of such a
kernel than for that of a 5×3 kernel (one thread of an AMD EPYC, 56×56×64 and 28×28×128). Here the gradient is composed
of gradients of kernels with three columns, on shifted inputs. The forward pass is `F.conv2d`; the gradients equal those
of `F.conv2d` up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_COLUMNS = 3


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a depth-wise convolution of stride 1 that keeps the size of the map.

    Args:
        conv: `groups` equal to the number of channels, odd square kernel, padding of half a kernel, with a bias.
        x: `(B, C, H, W)`; fastest in channels-last memory format.

    Returns:
        `(B, C, H, W)`.
    """
    slow = conv.kernel_size[1] > _COLUMNS and x.device.type == "cpu" and x.dtype == conv.weight.dtype == torch.float32
    trained = torch.is_grad_enabled() and conv.weight.requires_grad
    if slow and trained and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
        return DepthwiseConv.apply(x, conv.weight, conv.bias)
    return conv(x)


class DepthwiseConv(torch.autograd.Function):
    """`F.conv2d(x, weight, bias, padding=K // 2, groups=C)` with a faster gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`(B, C, H, W)`, `(C, 1, K, K)`, `(C,)` → `(B, C, H, W)`."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        (grad,) = grads
        half = weight.shape[-1] // 2
        dx = _gradients(grad, x, weight, (half, half), (True, False))[0] if ctx.needs_input_grad[0] else None
        dw = torch.empty_like(weight)
        last = weight.shape[-1] - _COLUMNS
        for first in (*range(0, last, _COLUMNS), last):
            part = slice(first, first + _COLUMNS)
            shifted = F.pad(x, (half - first, first + _COLUMNS - 1 - half))
            dw[..., part] = _gradients(grad, shifted, weight[..., part], (half, 0), (False, True))[1]
        return dx, dw, grad.sum((0, 2, 3))


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of the input and the weight of a depth-wise convolution; `needed` tells which are computed."""
    dx, dw, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), [*needed, False]
    )
    return dx, dw
