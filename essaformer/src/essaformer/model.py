"""ESSAformer: hyperspectral super-resolution by iterative refinement (ICCV 2023, arXiv 2307.14010).

The released architecture, with these differences, none of which changes the result:

- Feature maps are stored channels last, so that a map is a list of tokens without a transposition.
- `fast/` has an attention and an encoder step with fewer passes over memory. `literal.py` is the network as the
  authors wrote it.

`global_residual` is not in the release: see `ESSAformer`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.networks import variants
from common.networks.weights import Pretrained
from essaformer.attention import ESSAttention
from essaformer.fast.encoder import activated, drop_channels, joined
from essaformer.resize import enlarge_bicubic

SCALES = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
"""Scale → factors of the pixel shuffles that produce it."""


class Encoder(nn.Module):
    """One encoder step: the attention's result and the input are concatenated and pass three convolutions.

        E(x) = x + conv₁ₓ₁ σ conv₃ₓ₃ σ conv₁ₓ₁ [ESSA(LayerNorm x), x]     σ: LeakyReLU 0.2, channel dropout

    Args:
        dim: number of channels.
        dropout: share of channels that the three dropouts set to zero in training.
        order: order of the attention; None: no attention, and the convolutions get x alone.

    Shape:
        `(B, dim, H, W)`, channels last in memory → the same.
    """

    def __init__(self, dim: int, dropout: float, order: int | None) -> None:
        super().__init__()
        self.dropout, self.attends = dropout, order is not None
        if order is not None:
            self.norm = nn.LayerNorm(dim)
            self.attn = ESSAttention(dim, order)
        self.conv1 = nn.Conv2d(dim if order is None else 2 * dim, 2 * dim, 1)
        self.conv2 = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the step."""
        share = self.dropout if self.training else 0.0
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        if self.attends:
            y = joined(self.conv1, drop_channels(self.attn(self.norm(tokens)), share, 2), tokens)
        else:
            y = F.linear(tokens, self.conv1.weight.flatten(1), self.conv1.bias)
        y = activated(y, share, 2)
        y = y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        y = self.conv3(activated(self.conv2(y), share, 1))
        return y.add_(x) if y.dtype == x.dtype else y + x  # under autocast the types differ


class Resample(nn.Module):
    """Change the resolution: for each factor a 3×3 convolution and a pixel shuffle (up) or unshuffle (down).

    Args:
        dim: channels of input and output.
        factors: for example (2, 2) for a total factor of four.
        up: enlarge (true) or reduce.
    """

    def __init__(self, dim: int, factors: tuple[int, ...], *, up: bool) -> None:
        super().__init__()
        self.factors, self.up = factors, up
        widths = [dim * factor**2 if up else dim // factor**2 for factor in factors]
        self.convs = nn.ModuleList(nn.Conv2d(dim, width, 3, padding=1) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, dim, H, W)` → `(B, dim, H · f, W · f)` or `(B, dim, H / f, W / f)`."""
        shuffle = F.pixel_shuffle if self.up else F.pixel_unshuffle
        for conv, factor in zip(self.convs, self.factors, strict=True):
            x = shuffle(conv(x), factor)
        return x


class ESSAformer(Pretrained, nn.Module):
    """The super-resolution network.

    Args:
        bands: bands of the scene.
        dim: channels inside the network; divisible by 4, for scale 3 by 9.
        scale: 2, 3, 4 or 8.
        dropout: share of channels dropped in training, released 0.2; use 0 for small data.
        global_residual: add the bicubically enlarged input to the output and start the last
            convolution at zero, so that training begins with bicubic's result. Not in the release.
        order: order of the attention, see `ESSAttention`; None for encoder steps without attention.
        refinements: how often the feature map is enlarged and encoded, released 3; it is reduced once less often.

    Shape:
        `(B, bands, h, w)`, values as trained, usually in [0, 1] → `(B, bands, h · scale, w · scale)`.

    Raises:
        ValueError: an argument is out of range; in `forward`, the image has another number of bands.
    """

    def __init__(
        self,
        bands: int = 128,
        dim: int = 256,
        scale: int = 4,
        *,
        dropout: float = 0.2,
        global_residual: bool = False,
        order: int | None = 1,
        refinements: int = 3,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
        if refinements < 1:
            raise ValueError(f"refinements must be at least 1, got {refinements}")
        divisor = SCALES[scale][0] ** 2
        if bands < 1 or dim < 1 or dim % divisor or not 0 <= dropout < 1:
            raise ValueError(
                f"bands must be at least 1, dim a multiple of {divisor} for scale {scale} (the pixel unshuffle makes "
                f"{divisor} channels of one) and dropout in [0, 1); got bands {bands}, dim {dim}, dropout {dropout}"
            )
        self.bands, self.scale, self.global_residual = bands, scale, global_residual
        self.order, self.refinements = order, refinements
        self.grad_checkpointing = False
        self.conv_first = nn.Conv2d(bands, dim, 3, padding=1)
        self.encode_up = Encoder(dim, dropout, order)
        if refinements > 1:
            self.encode_down = Encoder(dim, dropout, order)
        self.upsample = Resample(dim, SCALES[scale], up=True)
        if refinements > 1:
            self.downsample = Resample(dim, SCALES[scale], up=False)
        self.conv_last = nn.Conv2d(dim, bands, 3, padding=1)
        if global_residual:
            for parameter in self.conv_last.parameters():
                nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords with which the network was built."""
        return {
            "bands": self.bands, "dim": self.conv_first.out_channels, "scale": self.scale,
            "dropout": self.encode_up.dropout, "global_residual": self.global_residual,
            "order": self.order, "refinements": self.refinements,
        }  # fmt: skip

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training store only the maps between encoder steps and recompute the rest: less memory, more time."""
        self.grad_checkpointing = enable

    def forward(self, picture: Tensor) -> Tensor:
        """Enlarged images `(B, bands, h · scale, w · scale)`."""
        if picture.ndim != 4 or picture.shape[1] != self.bands:
            raise ValueError(f"expected images (batch, {self.bands}, height, width), got {tuple(picture.shape)}")
        d = self.conv_first(picture.contiguous(memory_format=torch.channels_last))
        u = self._step(self.encode_up, self.upsample, d, None)
        for _ in range(self.refinements - 1):
            d = self._step(self.encode_down, self.downsample, u, d)
            u = self._step(self.encode_up, self.upsample, d, u)
        output = self.conv_last(u)
        if self.global_residual:
            output = output + enlarge_bicubic(picture, self.scale)
        return output

    def _step(self, encoder: Encoder, resample: Resample, x: Tensor, before: Tensor | None) -> Tensor:
        """encoder(resample(x) + before)."""

        def step(x: Tensor, before: Tensor | None) -> Tensor:
            resampled = resample(x)
            return encoder(resampled if before is None else resampled + before)

        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(step, x, before, use_reentrant=False)
        return step(x, before)


_VARIANTS: dict[str, dict[str, Any]] = {
    "essaformer": {},
    "essaformer_small": {"dim": 64, "dropout": 0.0, "global_residual": True},
}


def list_models() -> list[str]:
    """Names for `create_model`: the released form first, then the small one for small data."""
    return list(_VARIANTS)


def create_model(name: str = "essaformer", **overrides: Any) -> ESSAformer:
    """Build a named variant.

    Args:
        name: `"essaformer"` (released: 128 bands, width 256, ×4, 11.6 M parameters) or
            `"essaformer_small"` (width 64, global residual, no dropout).
        overrides: keywords of `ESSAformer` that replace the variant's.

    Raises:
        ValueError: the name or a keyword is unknown; the message lists the valid ones.
    """
    return variants.build(ESSAformer, _VARIANTS, name, overrides)
