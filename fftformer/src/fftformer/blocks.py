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
        gain: see `MapBlock`; None gives `FSAS`.
        conjugate: see `FSAS`.

    Shape:
        `(B, C, H, W)` → the same; mirrored at the bottom and the right to multiples of 8, and cropped again (a map
        smaller than its padding goes on with its first row or column).
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0, conjugate: bool = False) -> None:
        super().__init__(channels, gain=gain)
        self.attention = FSAS(channels, conjugate=conjugate)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return _padded(self.attention, x)


class DFFNBlock(MapBlock):
    """`x + gain · DFFN(norm x)`: a feed-forward network that weighs the frequencies of 8×8 patches.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `DFFN`.
        expansion: hidden channels per channel.

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
    """A module of maps whose sides are multiples of 8, on any map `(B, H, W, C)`."""
    # An exported program serves multiples of 8 and other sizes alike; comparing them here would tie it to one kind.
    free = torch.compiler.is_exporting()
    height, width = x.shape[1:3]
    for axis, size in ((1, height), (2, width)):
        if free or size % PATCH:
            place = torch.arange((size + PATCH - 1) // PATCH * PATCH, device=x.device)
            # Mirrored at the last row or column; a map smaller than its padding goes on with its first.
            x = x.index_select(axis, (size - 1 - (place - (size - 1)).abs()).clamp(min=0))
    return cropped(module.channels_last(x), height, width)
