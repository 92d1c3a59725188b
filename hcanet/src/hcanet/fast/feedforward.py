"""MSFN in groups of hidden channels: every step but the two products works channel by channel.

A group's maps stay in the cache, nothing as large as the three hidden maps is ever allocated in inference, and
training keeps the three convolved maps of the gate instead of its five intermediate results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.linear import linear
from hcanet.fast.layout import depthwise, image, pixels

if TYPE_CHECKING:
    from hcanet.feedforward import MSFN

GROUP = 64
"""Hidden channels at a time, at least."""
VALUES = 1 << 20
"""Values of a group's map; small images go in one group."""


def msfn(module: MSFN, x: Tensor) -> Tensor:
    """What `MSFN` computes: `(B, n, H, W)` → the same, channels last in memory."""
    tokens = pixels(x)
    into = module.project_in.weight.flatten(1).unflatten(0, (3, -1))
    into_bias = None if module.project_in.bias is None else module.project_in.bias.unflatten(0, (3, -1))
    convolutions = (module.dwconv1, module.dwconv2, module.dwconv3)
    back = module.project_out.weight.flatten(1)
    out: Tensor | None = None
    size = max(GROUP, VALUES * module.dim // max(tokens.numel(), 1))
    for start in range(0, module.hidden, size):
        group = slice(start, min(start + size, module.hidden))
        maps = [
            _scale(tokens, into[i, group], None if into_bias is None else into_bias[i, group], convolution, group)
            for i, convolution in enumerate(convolutions)
        ]
        part = linear(gate(*maps), back[:, group])
        out = part if out is None else out + part
    assert out is not None
    return image(out if module.project_out.bias is None else out + module.project_out.bias)


def _scale(tokens: Tensor, weight: Tensor, bias: Tensor | None, convolution: nn.Conv2d, group: slice) -> Tensor:
    """One of the three maps, of a group of channels."""
    x = linear(tokens, weight, bias)
    dilation = int(convolution.dilation[0])
    return depthwise(
        x, convolution.weight[group], None if convolution.bias is None else convolution.bias[group], dilation
    )


def gate(x1: Tensor, x2: Tensor, x3: Tensor) -> Tensor:
    """GELU(x₁) · x₂ · x₃."""
    if torch.is_grad_enabled() and x1.requires_grad:
        return _Gate.apply(x1, x2, x3)
    return F.gelu(x1).mul_(x2).mul_(x3)


class _Gate(torch.autograd.Function):
    """Keeps its inputs only."""

    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, x3: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x1, x2, x3)
        return F.gelu(x1).mul_(x2).mul_(x3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x1, x2, x3 = ctx.saved_tensors
        of_x2 = F.gelu(x1) * grad
        of_x1 = torch.ops.aten.gelu_backward(grad * x2 * x3, x1)
        return of_x1, of_x2 * x3, of_x2 * x2
