"""The common form of the papers' blocks for other networks: `x + gain · f(norm x)` on feature maps `(B, C, H, W)`.

Each project puts its own f into `MapBlock` in `<paper>/blocks.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MapBlock(nn.Module):
    """A residual branch for any network.

    Args:
        channels: C.
        gain: initial value of the learned factor per channel; with 0 the block changes nothing at first. None leaves
            out norm, factor and sum: the block is the paper's function alone.

    Shape:
        `(B, C, H, W)` of any height, width and batch size → the same shape, floating type and memory format.

    Raises:
        ValueError: in `forward`, if the input is not a feature map or has another number of channels.
    """

    def __init__(self, channels: int, *, gain: float | None = 0.0) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.channels = channels
        self.norm = None if gain is None else nn.LayerNorm(channels)
        self.gain = None if gain is None else nn.Parameter(torch.full((channels,), float(gain)))

    def function(self, x: Tensor) -> Tensor:
        """The paper's function of maps `(B, H, W, C)`, channels last, which a subclass defines."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply the branch."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected maps (batch, {self.channels}, height, width), got {tuple(x.shape)}")
        if x.shape[0] == 0:
            return x.clone()
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        y = x.permute(0, 2, 3, 1)
        y = self.function(y if self.norm is None else self.norm(y).to(x.dtype)).to(x.dtype)
        if self.gain is not None:
            y = x.permute(0, 2, 3, 1) + self.gain * y
        return y.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def cropped(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left `height` × `width` of padded maps `(B, H, W, C)`.

    With a slice, an exported program would accept only sizes that need padding, or only those that need none.
    """
    if not torch.compiler.is_exporting():
        return x[:, :height, :width]
    rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
    return x.index_select(1, rows).index_select(2, columns)


def heads_for(channels: int) -> int:
    """The largest power of two that divides `channels` and leaves each head at least 16 channels."""
    heads = 1
    while channels % (2 * heads) == 0 and channels // (2 * heads) >= 16:
        heads *= 2
    return heads
