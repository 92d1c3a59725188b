"""CAFM as a block for any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amgcfn.cafm import CAFM
from common.networks.blocks import MapBlock


class CAFMBlock(MapBlock):
    """`x + gain · (a + b)`: CAFM fuses norm x and its 3×3 depth-wise convolution into a and b.

    Args:
        channels: C.
        gain: see `MapBlock`; None gives the sum of the two maps.

    Shape:
        `(B, C, H, W)` → the same. With two maps of the same shape, `forward(x, y)` fuses these and returns both.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0) -> None:
        super().__init__(channels, gain=gain)
        self.branch = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.fusion = CAFM(channels)

    def function(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        x = x.permute(0, 3, 1, 2)
        first, second = self.fusion(x, self.branch(x).to(x.dtype))
        return (first + second).permute(0, 2, 3, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """Apply the block to one map, or fuse two maps."""
        if y is None:
            return super().forward(x)
        if self.gain is None:
            return self.fusion(x, y)
        gain = self.gain.view(-1, 1, 1)
        first, second = self.fusion(*(self._normed(map) for map in (x, y)))
        return x + (gain * first).to(x.dtype), y + (gain * second).to(y.dtype)

    def _normed(self, x: Tensor) -> Tensor:
        assert self.norm is not None
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2).to(x.dtype).contiguous(memory_format=torch.preserve_format)
