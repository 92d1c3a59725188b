"""FSAS and DFFN as blocks for any network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from common.blocks import MapBlock
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
        `(B, C, H, W)` → the same; mirrored at the bottom and the right to multiples of 8, and cropped again.
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
    """A module of maps `(B, C, H, W)` whose sides are multiples of 8, on any map `(B, H, W, C)`."""
    height, width = x.shape[1:3]
    x = x.permute(0, 3, 1, 2)
    bottom, right = -height % PATCH, -width % PATCH
    # A map smaller than its padding cannot be mirrored; its last row and column are repeated.
    mirrored = height > bottom and width > right
    x = F.pad(x, (0, right, 0, bottom), mode="reflect" if mirrored else "replicate")
    return module(x)[:, :, :height, :width].permute(0, 2, 3, 1)
