"""3×3 convolution by Winograd's minimal filtering, F(4×4, 3×3), for wide maps on a CPU.

Four by four outputs from six by six inputs with 36 products per pair of channels instead of 144
(Lavin and Gray, CVPR 2016, arXiv 1509.09308): `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The transforms cost per channel,
the products per pair of channels, so it pays from about 100 channels on; oneDNN, which torch uses on a CPU,
does not offer it. On a GPU cuDNN chooses by itself. Rounding errors in float32 are about 1e-5 of the largest
value, ten times the direct convolution's.

Maps are `(B, C, H, W)`, channels last in memory. Strips of tiles are done one after the other, so what is needed
besides input and output stays in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4
"""Side of an output tile; its input has two more."""
STRIP = 64 * 1024
"""Tiles times channels that are transformed at once; 36 numbers each."""
MINIMUM_CHANNELS = 48
"""Harmonic sum of input and output channels from which the saved products outweigh the transforms."""
MINIMUM_PIXELS = 2048
"""Pixels from which the map outweighs the transform of the weights."""

_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=np.float64,
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=np.float64,
)
_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float64)


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)` for a 3×3 convolution with padding 1, the fast way where it pays."""
    if worthwhile(conv, x):
        return _Winograd.apply(x, conv.weight, conv.bias)
    return conv(x)


def worthwhile(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether Winograd's form is faster: float32 on a CPU, many channels, more than a few tiles."""
    return (
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and 1 / (1 / conv.in_channels + 1 / conv.out_channels) >= MINIMUM_CHANNELS
        and x.shape[0] * x.shape[2] * x.shape[3] >= MINIMUM_PIXELS
    )


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3×3 convolution with padding 1.

    Args:
        x: `(B, C, H, W)`.
        weight: `(C', C, 3, 3)`.
        bias: `(C',)` or None.

    Returns:
        `(B, C', H, W)`, channels last.
    """
    outputs, channels = weight.shape[:2]
    height, width = x.shape[2:]
    down, across = -(-height // TILE), -(-width // TILE)
    to_input, to_weight, to_output = (_square(matrix).to(x) for matrix in (_B, _G, _A))
    # One matrix of weights for each of the 36 frequencies.
    u = (to_weight @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, outputs)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1 + across * TILE - width, 1, 1 + down * TILE - height))
    result = torch.empty_like(x[:, :1].expand(-1, outputs, -1, -1), memory_format=torch.channels_last)
    most = max(1, STRIP // (max(channels, outputs) * across))
    rows = -(-down // -(-down // most))
    # The same memory for every strip: fresh memory costs more than what is computed in it.
    frequencies = x.new_empty(36, rows * across, channels)
    shared = x.new_empty(36 * rows * across * max(channels, outputs))  # the tiles are done when the products come
    tiles, products = (shared[: 36 * rows * across * n].view(36, -1, n) for n in (channels, outputs))
    final = x.new_empty(TILE**2, rows * across, outputs)
    for picture, out in zip(padded, result.permute(0, 2, 3, 1), strict=True):
        for top in (min(top, down - rows) for top in range(0, down, rows)):  # the last strip may repeat rows
            strip = picture[top * TILE : (top + rows) * TILE + 2]
            cut = strip.unfold(0, 6, TILE).unfold(1, 6, TILE).permute(3, 4, 0, 1, 2)
            tiles.view(6, 6, rows, across, channels).copy_(cut)
            torch.mm(to_input, tiles.view(36, -1), out=frequencies.view(36, -1))
            torch.bmm(frequencies, u, out=products)
            torch.mm(to_output, products.view(36, -1), out=final.view(TILE**2, -1))
            pixels = final.view(TILE, TILE, rows, across, outputs).permute(2, 0, 3, 1, 4)
            there = out[top * TILE : (top + rows) * TILE]
            if there.shape[:2] == (rows * TILE, across * TILE):
                there.view(rows, TILE, across, TILE, outputs).copy_(pixels)
            else:  # the last tiles reach beyond the map
                there.copy_(pixels.reshape(rows * TILE, across * TILE, outputs)[: len(there), :width])
    if bias is not None:
        result += bias[:, None, None]
    return result


def _square(matrix: np.ndarray) -> Tensor:
    """The transform of both axes at once, as one matrix on flattened tiles."""
    return torch.from_numpy(np.kron(matrix, matrix))


class _Winograd(torch.autograd.Function):
    """The input's gradient is a convolution with the turned weights; the weights' stays direct."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return winograd(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x = winograd(grad, weight.flip(2, 3).transpose(0, 1), None) if ctx.needs_input_grad[0] else None
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return of_x, of_weight, of_bias
