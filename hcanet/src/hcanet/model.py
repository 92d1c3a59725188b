"""HCANet: hyperspectral image denoising (GRSL 2024, arXiv 2403.10067).

The released architecture with the published tensor names. Differences, none of which changes the result:

- The release's 3-D convolutions over a depth of one are 2-D, with the middle slices of the published weights.
- Feature maps are stored channels last, so that a map is a list of pixels.
- Images of any height and width are padded to a multiple of 4 by reflection, and the result is cropped.

New weights have the published scale: PyTorch's bound uses the fan-in of the 3-D form, so layers that replace 3×3×3
convolutions start √3 smaller than PyTorch's 2-D default.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks import variants
from common.networks.weights import Pretrained
from hcanet.attention import CAFM, LocalMix
from hcanet.feedforward import MSFN, PlainFeedForward

Norm = Literal["WithBias", "BiasFree"]
FeedForward = Literal["msfn", "plain"]
PUBLISHED_2D = ("down1_2.", "down2_3.", "up3_2.", "up2_1.", ".dwconv2.", ".dwconv3.")
"""Parts of the names of those convolutions that are published as 2-D; all others are published as 3-D."""
EPS = 1e-5


class ChannelNorm(nn.Module):
    """Normalise the channels of every pixel.

    Args:
        dim: number of channels.
        norm: `"WithBias"` is a layer norm; `"BiasFree"` divides by the standard deviation without subtracting the mean.

    Shape:
        `(B, dim, H, W)` → the same.
    """

    def __init__(self, dim: int, norm: Norm = "WithBias") -> None:
        super().__init__()
        self.dim = dim
        # A LayerNorm, only for its parameters and their published names.
        self.body = nn.LayerNorm(dim, EPS, bias=norm == "WithBias")
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Apply the norm."""
        pixels = x.permute(0, 2, 3, 1)
        if self.norm == "WithBias":
            normed = F.layer_norm(pixels, (self.dim,), self.body.weight, self.body.bias, EPS)
        else:
            wide = pixels.float() if pixels.dtype in (torch.float16, torch.bfloat16) else pixels
            variance = wide.var(dim=-1, correction=0, keepdim=True)
            normed = (wide * torch.rsqrt(variance + EPS)).to(x.dtype) * self.body.weight
        return normed.permute(0, 3, 1, 2)


class Block(nn.Module):
    """`x + attn(norm1(x))`, then `x + ffn(norm2(x))`; `(B, dim, H, W)` → the same."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_expansion: float,
        *,
        bias: bool,
        norm: Norm,
        local_mix: LocalMix,
        attention: bool,
        feed_forward: FeedForward,
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, norm)
        self.attn = CAFM(dim, num_heads, bias=bias, local_mix=local_mix, attention=attention)
        self.norm2 = ChannelNorm(dim, norm)
        kind = MSFN if feed_forward == "msfn" else PlainFeedForward
        self.ffn = kind(dim, ffn_expansion, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Resample(nn.Module):
    """Halve (n → 2n channels) or double (n → n/2) the resolution: a 3×3 convolution and a pixel (un)shuffle."""

    def __init__(self, dim: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.body = nn.ModuleList([nn.Conv2d(dim, 2 * dim if up else dim // 2, 3, padding=1, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        """`(B, n, H, W)` → `(B, n / 2, 2H, 2W)` or `(B, 2n, H / 2, W / 2)`."""
        y = self.body[0](x)
        return F.pixel_shuffle(y, 2) if self.up else F.pixel_unshuffle(y, 2)


class HCANet(Pretrained, nn.Module):
    """The denoising network: a U-Net of three levels whose output is added to its input.

    Args:
        bands: bands of the images.
        dim: channels of the first level. A network with dim < bands cannot denoise well, and a warning says so: noise
            outside the dim-dimensional row space of the first convolution passes only through the skip connection.
        num_blocks: blocks of the three levels; the decoder has as many as the encoder.
        num_refinement_blocks: blocks after the decoder.
        heads: attention heads of the three levels.
        ffn_expansion: expansion of the feed-forward networks, see `MSFN`.
        bias: whether convolutions have biases, except the first and the resampling ones, which have none, and `fc`
            and `dep_conv`, which always have one.
        norm: see `ChannelNorm`.
        local_mix, attention: see `CAFM`.
        feed_forward: `"msfn"`, or `"plain"` for `PlainFeedForward`.

    Shape:
        `(B, bands, H, W)`, values as trained, usually in [0, 1] → the same, any H and W.

    Raises:
        ValueError: an argument is out of range; in `forward`, the image has another number of bands.
    """

    def __init__(
        self,
        bands: int = 31,
        dim: int = 48,
        *,
        num_blocks: Sequence[int] = (2, 3, 3),
        num_refinement_blocks: int = 1,
        heads: Sequence[int] = (1, 2, 4),
        ffn_expansion: float = 2.66,
        bias: bool = False,
        norm: Norm = "WithBias",
        local_mix: LocalMix = "released",
        attention: bool = True,
        feed_forward: FeedForward = "msfn",
    ) -> None:
        super().__init__()
        if len(num_blocks) != 3 or len(heads) != 3 or min(*num_blocks, num_refinement_blocks) < 0:
            raise ValueError(
                f"num_blocks and heads need three numbers each, blocks at least 0; got {tuple(num_blocks)}, "
                f"{tuple(heads)} and {num_refinement_blocks} refinement blocks"
            )
        if bands < 1 or dim < 2 or dim % 2 or norm not in get_args(Norm):
            raise ValueError(
                f"bands must be at least 1, dim even and norm one of {', '.join(get_args(Norm))}; "
                f"got bands {bands}, dim {dim}, norm {norm!r}"
            )
        if feed_forward not in get_args(FeedForward):
            raise ValueError(f"feed_forward must be one of {', '.join(get_args(FeedForward))}, got {feed_forward!r}")
        if dim < bands:
            warnings.warn(narrow(bands, dim), stacklevel=2)
        self.bands, self.dim = bands, dim

        def level(width: int, depth: int, num_heads: int) -> nn.Sequential:
            options: dict[str, Any] = {
                "bias": bias, "norm": norm, "local_mix": local_mix, "attention": attention,
                "feed_forward": feed_forward,
            }  # fmt: skip
            return nn.Sequential(*(Block(width, num_heads, ffn_expansion, **options) for _ in range(depth)))

        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(bands, dim, 3, padding=1, bias=False)})
        self.encoder_level1 = level(dim, num_blocks[0], heads[0])
        self.down1_2 = Resample(dim, up=False)
        self.encoder_level2 = level(2 * dim, num_blocks[1], heads[1])
        self.down2_3 = Resample(2 * dim, up=False)
        self.encoder_level3 = level(4 * dim, num_blocks[2], heads[2])
        self.up3_2 = Resample(4 * dim, up=True)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, num_blocks[1], heads[1])
        self.up2_1 = Resample(2 * dim, up=True)
        self.decoder_level1 = level(2 * dim, num_blocks[0], heads[0])
        self.refinement = level(2 * dim, num_refinement_blocks, heads[0])
        self.output = nn.Conv2d(2 * dim, bands, 3, padding=1, bias=bias)
        self._published_scale()
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Denoised images."""
        if image.ndim != 4 or image.shape[1] != self.bands:
            raise ValueError(f"expected images (batch, {self.bands}, height, width), got {tuple(image.shape)}")
        height, width = image.shape[2:]
        padded = padded_to_multiple(image, 4).contiguous(memory_format=torch.channels_last)
        level1 = self.encoder_level1(self.patch_embed["proj"](padded))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        # The upsampled map comes first, the encoder's second.
        x = self.reduce_chan_level2(torch.cat([self.up3_2(level3), level2], dim=1))
        x = torch.cat([self.up2_1(self.decoder_level2(x)), level1], dim=1)
        x = self.refinement(self.decoder_level1(x))
        return image + self.output(x)[..., :height, :width]

    def published_parameters(self) -> int:
        """Return the number of parameters of the published 3-D form; those outside its middle slices have no effect."""
        shapes = (published_shape(name, value.shape) for name, value in self.named_parameters())
        return sum(torch.Size(shape).numel() for shape in shapes)

    @torch.no_grad()
    def _published_scale(self) -> None:
        """Scale new weights as in the 3-D form, whose fan-in is three times larger and whose bound is √3 smaller."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and not is_published_2d(f"{name}.weight"):
                for parameter in layer.parameters():
                    parameter.div_(3**0.5)


def is_published_2d(name: str) -> bool:
    """Return whether a convolution's tensor is published without a depth axis."""
    return any(part in f".{name}" or name.startswith(part) for part in PUBLISHED_2D)


def published_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of our tensor in the published 3-D form: kernels get a depth as large as their height."""
    if len(shape) != 4 or is_published_2d(name):
        return tuple(shape)
    return (*shape[:2], shape[2], *shape[2:])


def narrow(bands: int, dim: int) -> str:
    """Return a sentence about the noise that a network of this width cannot remove."""
    share = (bands - dim) / bands
    return (
        f"a network of width {dim} passes at least {share:.0%} of the white noise of {bands} bands through its skip "
        f"connection: take dim >= bands, or denoise groups of at most {dim} bands"
    )


def padded_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return `x` padded right and below by reflection; sides too short for it repeat their last pixel."""
    height, width = x.shape[2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    if below < height and right < width:
        return F.pad(x, (0, right, 0, below), mode="reflect")
    return F.pad(x, (0, right, 0, below), mode="replicate")


_VARIANTS: dict[str, dict[str, Any]] = {
    "hcanet": {},
    "hcanet_light": {"dim": 32, "num_blocks": (1, 1, 1)},
}


def list_models() -> list[str]:
    """Names for `create_model`: the released form first, then the light form."""
    return list(_VARIANTS)


def create_model(name: str = "hcanet", **overrides: Any) -> HCANet:
    """Build a named variant.

    Args:
        name: `"hcanet"` (released: 31 bands, width 48, 4,607,741 published parameters, 4,122,191 with an effect) or
            `"hcanet_light"` (width 32, one block per level, 1,161,383 published parameters).
        overrides: keywords of `HCANet` that replace the variant's.

    Raises:
        ValueError: the name or a keyword is unknown; the message lists the valid ones.
    """
    return variants.build(HCANet, _VARIANTS, name, overrides)
