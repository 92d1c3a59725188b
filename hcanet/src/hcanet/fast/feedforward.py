"""MSFN in groups of hidden channels, because every step except the two matrix products works channel by channel.

A group's maps stay in the cache, and the three whole hidden maps are never allocated. Training stores only the module's
input; the backward pass recomputes the maps of one group at a time.
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
"""Smallest number of hidden channels in a group."""
VALUES = 1 << 20
"""Largest number of values in a group's map, unless GROUP needs more; small images have one group."""


def msfn(module: MSFN, x: Tensor) -> Tensor:
    """Compute `MSFN`: `(B, n, H, W)` → the same, channels last in memory."""
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
    """The contribution of a group of hidden channels; `convolutions`: three weights, then three biases or None."""
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
    """Return GELU(x₁) · x₂ · x₃."""
    if torch.is_grad_enabled() and x1.requires_grad:
        return _Gate.apply(x1, x2, x3)
    return F.gelu(x1).mul_(x2).mul_(x3)


class _Gate(torch.autograd.Function):
    """`gate` with a backward pass that stores only the inputs."""

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
