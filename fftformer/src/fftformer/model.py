"""FFTformer: *Efficient Frequency Domain-based Transformers for High-Quality Image Deblurring*.

Kong, Dong, Ge, Li, Pan; CVPR 2023, arXiv 2211.12250. Outputs and gradients equal those of the release. Tensors
inside the network are channels-last, and `forward` pads images of any size. The names in the state dict are those of
the release without a few inner levels (`checkpoints` lists them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import variants
from common.networks.linear import linear
from common.networks.weights import Pretrained
from fftformer.attention import FSAS, WindowAttention
from fftformer.feed_forward import DFFN

MULTIPLE = 32
"""The network pads height and width to multiples of this: it uses 8×8 patches at a quarter of the resolution."""

_FUSION_EXPANSION = 2.66

Attention = Literal["fsas", "window", "none"]


class TransformerBlock(nn.Module):
    """`x + attention(norm1(x))` (in the release only in the decoder), then `x + DFFN(norm2(x))`."""

    def __init__(
        self, dim: int, expansion: float, *, attention: Attention, conjugate: bool = False, spectral: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = None if attention == "none" else nn.LayerNorm(dim)
        self.attn: FSAS | WindowAttention | None = None
        if attention != "none":
            self.attn = FSAS(dim, conjugate=conjugate) if attention == "fsas" else WindowAttention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = DFFN(dim, expansion, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        if self.attn is not None and self.norm1 is not None:
            x = self.attn.channels_last(x, self.norm1)
        return self.ffn.channels_last(x, self.norm2)


class Fusion(nn.Module):
    """Combines the decoder and encoder features of one level: two `(B, H, W, C)` → `(B, H, W, C)`."""

    def __init__(self, dim: int, *, spectral: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.block = TransformerBlock(2 * dim, _FUSION_EXPANSION, attention="none", spectral=spectral)
        self.conv2 = nn.Conv2d(2 * dim, 2 * dim, 1)

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        """Two `(B, H, W, C)` → `(B, H, W, C)`; the upsampled decoder features come first, as in the release."""
        x = torch.cat([decoded, encoded], dim=-1)
        x = self.block(linear(x, self.conv.weight.flatten(1), self.conv.bias))
        first, second = linear(x, self.conv2.weight.flatten(1), self.conv2.bias).chunk(2, dim=-1)
        return first + second


class FFTformer(Pretrained, nn.Module):
    """The deblurring network: an encoder without attention and a decoder with attention, both with three levels.

    Args:
        dim: channels of the first level; levels 2 and 3 have 2 · dim and 4 · dim.
        num_blocks: number of blocks of levels 1, 2 and 3, the same in encoder and decoder.
        num_refinement_blocks: number of further decoder blocks at full resolution.
        ffn_expansion: hidden channels of a DFFN per input channel.
        conjugate: attention as correlation, as in the paper's text, instead of the released convolution (see
            `FSAS`). Released weights need False.
        attention: attention of the decoder: `"fsas"` as released, `"window"` for `WindowAttention`, or `"none"`.
        encoder_attention: use the same attention in the encoder too; the release has none there.
        spectral: see `DFFN`.

    Shape:
        `(B, 3, H, W)`, in the value range of the training, usually [0, 1] → the same; any H and W.

    Raises:
        ValueError: unknown `attention`, or numbers of blocks that cannot be used.
    """

    def __init__(
        self,
        dim: int = 48,
        num_blocks: Sequence[int] = (6, 6, 12),
        num_refinement_blocks: int = 4,
        ffn_expansion: float = 3.0,
        conjugate: bool = False,
        *,
        attention: Attention = "fsas",
        encoder_attention: bool = False,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        if attention not in get_args(Attention):
            raise ValueError(f"attention must be one of {', '.join(get_args(Attention))}, got {attention!r}")
        if len(num_blocks) != 3 or min(*num_blocks, num_refinement_blocks) < 1:
            raise ValueError(
                "num_blocks must be three numbers (one per level) and every number of blocks at least 1, "
                f"got {tuple(num_blocks)} and {num_refinement_blocks} for refinement"
            )

        in_encoder: Attention = attention if encoder_attention else "none"

        def level(width: int, depth: int, kind: Attention) -> nn.Sequential:
            options: dict[str, Any] = {"attention": kind, "conjugate": conjugate, "spectral": spectral}
            return nn.Sequential(*(TransformerBlock(width, ffn_expansion, **options) for _ in range(depth)))

        def conv3x3(channels: int, out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)

        one, two, three = num_blocks
        self.patch_embed = conv3x3(3, dim)
        self.encoder_level1 = level(dim, one, in_encoder)
        self.down1_2 = conv3x3(dim, 2 * dim)
        self.encoder_level2 = level(2 * dim, two, in_encoder)
        self.down2_3 = conv3x3(2 * dim, 4 * dim)
        self.encoder_level3 = level(4 * dim, three, in_encoder)
        self.decoder_level3 = level(4 * dim, three, attention)
        self.up3_2 = conv3x3(4 * dim, 2 * dim)
        # This layer is in the release and its checkpoints, but the forward pass does not use it. It has no
        # requires_grad, so that DistributedDataParallel does not wait for its gradient.
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=False).requires_grad_(False)
        self.fuse2 = Fusion(2 * dim, spectral=spectral)
        self.decoder_level2 = level(2 * dim, two, attention)
        self.up2_1 = conv3x3(2 * dim, dim)
        self.fuse1 = Fusion(dim, spectral=spectral)
        self.decoder_level1 = level(dim, one, attention)
        self.refinement = level(dim, num_refinement_blocks, attention)
        self.output = conv3x3(dim, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Restored images `(B, 3, H, W)`.

        Raises:
            ValueError: the input is not a batch of three-channel images.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected images (batch, 3, height, width), got {tuple(image.shape)}")
        height, width = image.shape[-2:]
        image = pad_to_multiple(image).contiguous(memory_format=torch.channels_last)
        level1 = self.encoder_level1(_conv(self.patch_embed, image.permute(0, 2, 3, 1)))
        level2 = self.encoder_level2(_conv(self.down1_2, _halve(level1)))
        level3 = self.encoder_level3(_conv(self.down2_3, _halve(level2)))
        x = self.decoder_level3(level3)
        x = self.decoder_level2(self.fuse2(_conv(self.up3_2, _double(x)), level2))
        x = self.decoder_level1(self.fuse1(_conv(self.up2_1, _double(x)), level1))
        x = _conv(self.output, self.refinement(x)).permute(0, 3, 1, 2)
        return (x + image)[..., :height, :width]


def pad_to_multiple(image: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Pad images by reflection at the right and the bottom to the next multiples.

    Equals `F.pad(..., mode="reflect")` where that is defined. An image that is smaller than its padding is reflected
    several times.

    Args:
        image: `(B, C, H, W)`.
        multiple: of which height and width become multiples.
    """
    for axis in (-2, -1):
        size = image.shape[axis]
        target = (size + multiple - 1) // multiple * multiple  # no negative numbers: traced ones round towards zero
        if target != size:
            period = max(2 * (size - 1), 1)
            position = torch.arange(target, device=image.device) % period
            index = torch.minimum(position, period - position) if size > 1 else position
            image = image.index_select(axis, index)
    return image


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _halve(x: Tensor) -> Tensor:
    # Bilinear interpolation by 0.5 without aligned corners is the mean of 2×2 pixels.
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _double(x: Tensor) -> Tensor:
    x = x.permute(0, 3, 1, 2)
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


_VARIANTS: dict[str, dict[str, Any]] = {
    "fftformer": {},
    "fftformer_tiny": {"dim": 16, "num_blocks": (1, 1, 2), "num_refinement_blocks": 1},
}


def list_models() -> list[str]:
    """Names for `create_model`: first the released configuration, then the small network of the demo."""
    return list(_VARIANTS)


def create_model(name: str = "fftformer", **overrides: Any) -> FFTformer:
    """Build a named variant.

    Args:
        name: `"fftformer"` (released, 16.6 M parameters) or `"fftformer_tiny"` (0.5 M).
        overrides: keywords of `FFTformer` that replace the variant's.

    Raises:
        ValueError: unknown name or keyword; the message lists the valid ones.
    """
    return variants.build(FFTformer, _VARIANTS, name, overrides)
