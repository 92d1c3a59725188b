"""CAFM and MSFN as blocks for any network."""

from __future__ import annotations

from torch import Tensor

from common.networks.blocks import MapBlock, heads_for
from hcanet.attention import CAFM, LocalMix
from hcanet.feedforward import MSFN


class CAFMBlock(MapBlock):
    """`x + gain · CAFM(norm x)`: attention over channels plus a local convolution.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `CAFM`.
        num_heads: by default the largest power of two with at least 16 channels per head.
        local_mix: see `CAFM`. The default is `"pixel"`, because the released form is not local and depends on the size
            of the map; only the released weights need it.

    Shape:
        `(B, C, H, W)` of any size → the same.
    """

    def __init__(
        self, channels: int, *, gain: float | None = 0.0, num_heads: int | None = None, local_mix: LocalMix = "pixel"
    ) -> None:
        super().__init__(channels, gain=gain)
        self.attention = CAFM(channels, heads_for(channels) if num_heads is None else num_heads, local_mix=local_mix)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return self.attention(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MSFNBlock(MapBlock):
    """`x + gain · MSFN(norm x)`: a gated feed-forward network with convolutions of three dilations.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives `MSFN`.
        expansion: hidden channels per channel.

    Shape:
        `(B, C, H, W)` of any size → the same.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0, expansion: float = 2.66) -> None:
        super().__init__(channels, gain=gain)
        self.feed_forward = MSFN(channels, expansion)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        return self.feed_forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
