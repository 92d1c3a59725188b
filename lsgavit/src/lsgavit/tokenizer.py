"""Hybrid spectral-spatial tokenizer of LSGA-ViT: a 3-D and a 2-D convolution, one token per pixel.

The release also contains a strided convolution `patch_embed.proj` that no forward pass uses. It is kept here, frozen,
so that released weights load completely and parameter counts agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

CHANNELS_3D = 4


class _Conv3d(nn.Conv3d):
    """A 3-D convolution that `network.to(memory_format=torch.channels_last)` leaves unchanged.

    That format has four axes; PyTorch would also apply it to weights of five axes, and raise an error.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def on_four_axes(tensor: Tensor) -> Tensor:
            if tensor.ndim < 5:
                return fn(tensor)
            return fn(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2]).contiguous()

        return super()._apply(on_four_axes, recurse)


class SpectralSpatialTokenizer(nn.Module):
    """Tokens of a window: conv 3×3×3 → BN → ReLU, channels merged with bands, conv 3×3 → BN → ReLU → LayerNorm.

    Args:
        bands: channels of the window (principal components).
        dim: channels C of a token.

    Shape:
        input `(B, bands, h, w)`; output `(B, h · w, dim)`, row by row.
    """

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        if bands < 1 or dim < 1:
            raise ValueError(f"bands and dim must be at least 1, got {bands} and {dim}")
        self.bands, self.dim = bands, dim
        self.conv3d = _Conv3d(1, CHANNELS_3D, 3, padding=1)
        self.norm3d = nn.BatchNorm3d(CHANNELS_3D)
        self.conv2d = nn.Conv2d(CHANNELS_3D * bands, dim, 3, padding=1)
        self.norm2d = nn.BatchNorm2d(dim)
        # Part of the release and its checkpoints, but unused in the forward pass. Without requires_grad,
        # DistributedDataParallel does not wait for its gradient.
        self.proj = nn.Conv2d(bands, dim, 3).requires_grad_(False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, bands, h, w)` → `(B, h · w, dim)`."""
        if x.ndim != 4 or x.shape[1] != self.bands:
            raise ValueError(f"expected windows (batch, {self.bands} bands, height, width), got {tuple(x.shape)}")
        x = self.norm3d(self.conv3d(x[:, None])).relu()  # (B, 4, bands, h, w)
        x = self.norm2d(self.conv2d(x.flatten(1, 2))).relu()
        return self.norm(x.flatten(2).transpose(1, 2))
