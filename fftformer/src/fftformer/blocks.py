"""FSAS and DFFN as blocks for any network."""

from __future__ import annotations

import torch
from torch import Tensor

from common.networks.blocks import MapBlock, cropped
from fftformer.attention import FSAS
from fftformer.feed_forward import DFFN
from fftformer.frequency import PATCH


class FSASBlock(MapBlock):
    """`x + gain · FSAS(norm x)`: attention as a product of spectra of 8×8 patches.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `FSAS` alone.
        conjugate: see `FSAS`.

    Shape:
        `(B, C, H, W)` → the same. The map is padded by reflection at the bottom and the right to multiples of 8, and
        the output is cropped; where a map is smaller than its padding, the first row or column is repeated.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0, conjugate: bool = False) -> None:
        super().__init__(channels, gain=gain)
        self.attention = FSAS(channels, conjugate=conjugate)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return _padded(self.attention, x)


class DFFNBlock(MapBlock):
    """`x + gain · DFFN(norm x)`: a feed-forward network that weights the frequencies of 8×8 patches.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `DFFN` alone.
        expansion: hidden channels per input channel.

    Shape:
        `(B, C, H, W)` → the same; padded as in `FSASBlock`.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0, expansion: float = 3.0) -> None:
        super().__init__(channels, gain=gain)
        self.feed_forward = DFFN(channels, expansion)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return _padded(self.feed_forward, x)


def _padded(module: FSAS | DFFN, x: Tensor) -> Tensor:
    """Apply a module that needs sides of multiples of 8 to any map `(B, H, W, C)`."""
    # An exported program must work for all sizes, so it always pads: a condition on the size would fix one case.
    exporting = torch.compiler.is_exporting()
    height, width = x.shape[1:3]
    for axis, size in ((1, height), (2, width)):
        if exporting or size % PATCH:
            position = torch.arange((size + PATCH - 1) // PATCH * PATCH, device=x.device)
            # Reflection at the last row or column; `clamp` repeats the first one if the map is too small for it.
            x = x.index_select(axis, (size - 1 - (position - (size - 1)).abs()).clamp(min=0))
    return cropped(module.channels_last(x), height, width)
