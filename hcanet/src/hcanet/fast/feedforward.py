"""MSFN in groups of hidden channels: every step but the two products works channel by channel.

A group's maps stay in the cache, and nothing as large as the three hidden maps is ever allocated. Training keeps
only the module's input: the backward pass computes a group's maps again, one group at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.linear import linear
from hcanet.fast.layout import depthwise, image, pixels
from hcanet.fast.recomputed import recomputed

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
    back = module.project_out.weight.flatten(1)
    convolutions = (module.dwconv1, module.dwconv2, module.dwconv3)
    out: Tensor | None = None
    size = max(GROUP, VALUES * module.dim // max(tokens.numel(), 1))
    for start in range(0, module.hidden, size):
        group = slice(start, min(start + size, module.hidden))
        weights = [each.weight[group] for each in convolutions]
        biases = [None if each.bias is None else each.bias[group] for each in convolutions]
        bias = None if into_bias is None else into_bias[:, group]
        part = recomputed(_part, tokens, into[:, group], bias, back[:, group], *weights, *biases)
        out = part if out is None else out + part
    assert out is not None
    return image(out if module.project_out.bias is None else out + module.project_out.bias)


def _part(tokens: Tensor, into: Tensor, into_bias: Tensor | None, back: Tensor, *convolutions: Any) -> Tensor:
    """What a group of hidden channels adds to the result; `convolutions`: three weights, three biases or None."""
    maps = [
        depthwise(
            linear(tokens, into[i], None if into_bias is None else into_bias[i]),
            convolutions[i],
            convolutions[3 + i],
            dilation=i + 1,
        )
        for i in range(3)
    ]
    return linear(gate(*maps), back)


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
