"""ESSA as a block for any network."""

from __future__ import annotations

from torch import Tensor

from common.networks.blocks import MapBlock
from essaformer.attention import ESSAttention


class ESSABlock(MapBlock):
    """`x + gain · ESSA(norm x)`: every pixel attends to all others, at a cost linear in their number.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `ESSAttention` over the pixels.
        order: of the attention's Taylor series, 1 as released, or 2.

    Shape:
        `(B, C, H, W)` → the same.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0, order: int = 1) -> None:
        super().__init__(channels, gain=gain)
        self.attention = ESSAttention(channels, order)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return self.attention(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
