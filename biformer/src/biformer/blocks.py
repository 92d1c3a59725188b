"""Bi-level routing attention as a block for any network."""

from __future__ import annotations

from torch import Tensor

from biformer.attention import BiLevelRoutingAttention
from common.networks.blocks import MapBlock, heads_for


class BRABlock(MapBlock):
    """`x + gain · BRA(norm x)`: every region attends to the few regions that it selects.

    Args:
        channels: C.
        num_heads: number of heads; by default the largest power of two for which a head has 16 channels or more.
        num_regions: S; the map is cut into S × S regions.
        top_k: number of regions that each region attends to.
        gain: see `MapBlock`; None gives `BiLevelRoutingAttention` alone.

    Shape:
        `(B, C, H, W)` → the same. The map is padded with zeros at the bottom and the right to multiples of S, and the
        output is cropped.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int | None = None,
        num_regions: int = 7,
        top_k: int = 4,
        gain: float | None = 0.0,
    ) -> None:
        super().__init__(channels, gain=gain)
        self.attention = BiLevelRoutingAttention(channels, num_heads or heads_for(channels), num_regions, top_k)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return self.attention(x)
