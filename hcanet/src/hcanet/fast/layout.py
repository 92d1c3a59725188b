"""Feature maps `(B, C, H, W)` that are stored channels last, as lists of pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def pixels(x: Tensor) -> Tensor:
    """Convert `(B, C, H, W)` to contiguous `(B, H, W, C)`; a view if the map is stored channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def image(x: Tensor) -> Tensor:
    """Return the map `(B, C, H, W)`, a view of `(B, H, W, C)`, stored channels last."""
    return x.permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Return the depth-wise 3×3 convolution of `(B, H, W, C)`, zero padded, with weights `(C, 1, 3, 3)`."""
    if x.requires_grad or weight.requires_grad:
        y = _Depthwise.apply(x, weight, dilation)
        return y if bias is None else y + bias
    return _convolve(x, weight, bias, dilation)


def transposed(x: Tensor) -> Tensor:
    """Transpose `(B, M, N)` to contiguous `(B, N, M)` by copies in blocks, also in the backward pass."""
    return _Transposed.apply(x) if x.requires_grad else _transpose(x)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    y = F.conv2d(image(x), weight, bias, padding=dilation, dilation=dilation, groups=len(weight))
    return pixels(y)


class _Depthwise(torch.autograd.Function):
    """`_convolve` with a backward pass that is fast for dilated kernels; oneDNN's takes five times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, None, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad, d = grad.contiguous(), ctx.dilation
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(grad, weight.flip((2, 3)), None, d)
        if ctx.needs_input_grad[1]:
            # Every d-th pixel of every d-th row forms an image on which the dilation is one.
            of_weight = torch.ops.aten.convolution_backward(
                image(_split(grad, d)), image(_split(x, d)), weight, [0], [1, 1], [1, 1], [1, 1], False, [0, 0],
                len(weight), [False, True, False],
            )[1]  # fmt: skip
        return of_x, of_weight, None


def _split(x: Tensor, d: int) -> Tensor:
    """`(B, H, W, C)` → `(B · d², H / d, W / d, C)`, padded with zeros to a multiple of d."""
    if d == 1:
        return x
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % d, 0, -height % d))
    x = x.view(batch, x.shape[1] // d, d, x.shape[2] // d, d, channels).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch * d * d, *x.shape[3:])


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return _transpose(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return transposed(grad)


def _transpose(x: Tensor) -> Tensor:
    x = x.contiguous()
    return torch.stack([one.t().contiguous() for one in x]) if len(x) > 1 else x[0].t().contiguous()[None]
