"""MSFN in groups of hidden channels: every step but the two products works channel by channel.

A group's maps stay in the cache, and nothing as large as the three hidden maps is ever allocated. Training keeps
only the module's input: the backward pass computes a group's maps again, one group at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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
    out: Tensor | None = None
    size = max(GROUP, VALUES * module.dim // max(tokens.numel(), 1))
    for start in range(0, module.hidden, size):
        group = slice(start, min(start + size, module.hidden))
        if torch.is_grad_enabled():
            part = checkpoint(_part, module, tokens, group, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _part(module, tokens, group)
        out = part if out is None else out + part
    assert out is not None
    return image(out if module.project_out.bias is None else out + module.project_out.bias)


def _part(module: MSFN, tokens: Tensor, group: slice) -> Tensor:
    """What a group of hidden channels adds to the result."""
    into = module.project_in.weight.flatten(1).unflatten(0, (3, -1))[:, group]
    into_bias = None if module.project_in.bias is None else module.project_in.bias.unflatten(0, (3, -1))[:, group]
    convolutions = (module.dwconv1, module.dwconv2, module.dwconv3)
    maps = [
        _scale(tokens, into[i], None if into_bias is None else into_bias[i], convolution, group)
        for i, convolution in enumerate(convolutions)
    ]
    return linear(gate(*maps), module.project_out.weight.flatten(1)[:, group])


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
