"""Light self-Gaussian attention as a block for any network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from common.networks.blocks import MapBlock, cropped, heads_for
from lsgavit.attention import LSGAttention, PositionBias


class LSGABlock(MapBlock):
    """`x + gain · LSGA(norm x)` in windows that do not overlap.

    Args:
        channels: C.
        window: side of the windows in pixels.
        num_heads: by default the largest power of two with at least 16 channels per head.
        gain: see `MapBlock`; None gives `LSGAttention` in every window.
        token_mixing, light, position_bias, sigma: as in `LSGAttention`, by default as released.

    Shape:
        `(B, C, H, W)` → the same. Maps are padded with zeros at the bottom and right to whole windows, then cropped.
    """

    def __init__(
        self,
        channels: int,
        *,
        window: int = 7,
        num_heads: int | None = None,
        gain: float | None = 0.0,
        token_mixing: bool = True,
        light: bool = True,
        position_bias: PositionBias = "token_index",
        sigma: float = 10.0,
    ) -> None:
        super().__init__(channels, gain=gain)
        self.window = window
        self.attention = LSGAttention(
            channels,
            num_heads or heads_for(channels),
            window,
            token_mixing=token_mixing,
            light=light,
            position_bias=position_bias,
            sigma=sigma,
        )

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        down, across = x.shape[1] // side, x.shape[2] // side
        windows = x.reshape(batch, down, side, across, side, channels).transpose(2, 3)
        tokens = self.attention(windows.reshape(-1, side * side, channels))
        x = tokens.reshape(batch, down, across, side, side, channels).transpose(2, 3)
        return cropped(x.reshape(batch, down * side, across * side, channels), height, width)
