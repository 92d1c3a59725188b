"""HCANet as its authors published it: 3-D convolutions over a depth of one, one operation after the other.

For tests, the benchmark, and checkpoints in the published form. Only the middle slice of every 3-D kernel has an
effect; the gradient of the other slices is exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hcanet.attention import MIXTURES, LocalMix
from hcanet.model import EPS, HCANet, Norm, is_published_2d, published_shape


def inflated(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors in the published shapes; outer slices are zero."""
    result = {}
    for name, value in state_dict.items():
        shape = published_shape(name, value.shape)
        result[name] = value.new_zeros(shape)
        if len(shape) == 5:
            result[name][:, :, shape[2] // 2] = value
        else:
            result[name].copy_(value)
    return result


def middle_slices(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published tensors in our shapes."""
    return {
        name: value[:, :, value.shape[2] // 2] if value.ndim == 5 and not is_published_2d(name) else value
        for name, value in state_dict.items()
    }


def published_form(model: HCANet) -> HCANet3D:
    """Return the published network with the weights of ours, in the same mode and type."""
    published = HCANet3D(**configuration(model)).to(next(model.parameters()))
    published.load_state_dict(inflated(model.state_dict()))
    return published.train(model.training)


def configuration(model: HCANet) -> dict[str, Any]:
    """Return the keywords with which the network was built, without those that only ablations use."""
    arguments: Any = model._hub_mixin_config or {}
    return {name: value for name, value in arguments.items() if name not in ("attention", "feed_forward")}


class CAFM3D(nn.Module):
    """The released attention: `(B, n, H, W)` → the same."""

    def __init__(self, dim: int, num_heads: int, bias: bool, local_mix: LocalMix) -> None:
        super().__init__()
        self.num_heads, self.local_mix = num_heads, local_mix
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv3d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv3d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv3d(dim, dim, 1, bias=bias)
        self.fc = nn.Conv3d(3 * num_heads, MIXTURES, 1)
        groups = dim // num_heads
        self.dep_conv = nn.Conv3d(MIXTURES * groups, dim, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        b, c, h, w = x.shape
        heads = self.num_heads
        qkv = self.qkv_dwconv(self.qkv(x.unsqueeze(2))).squeeze(2)
        # The release permutes Q to channels last, but then reshapes the unpermuted Q.
        pixels = qkv.permute(0, 2, 3, 1)
        source = qkv if self.local_mix == "released" else pixels
        slots = source.reshape(b, h * w, 3 * heads, -1).permute(0, 2, 1, 3)
        mixed = self.fc(slots.unsqueeze(2)).squeeze(2)
        local = mixed.permute(0, 3, 1, 2).reshape(b, MIXTURES * c // heads, h, w)
        local = self.dep_conv(local.unsqueeze(2)).squeeze(2)
        q, k, v = (part.reshape(b, heads, c // heads, h * w) for part in qkv.chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        out = (attention @ v).reshape(b, c, h, w)
        return self.project_out(out.unsqueeze(2)).squeeze(2) + local


class MSFN3D(nn.Module):
    """The released feed-forward network: `(B, n, H, W)` → the same."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv3d(dim, 3 * hidden, 1, bias=bias)
        self.dwconv1 = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv2 = nn.Conv2d(hidden, hidden, 3, padding=2, dilation=2, groups=hidden, bias=bias)
        self.dwconv3 = nn.Conv2d(hidden, hidden, 3, padding=3, dilation=3, groups=hidden, bias=bias)
        self.project_out = nn.Conv3d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        x1, x2, x3 = self.project_in(x.unsqueeze(2)).chunk(3, dim=1)
        x1 = self.dwconv1(x1).squeeze(2)
        gated = F.gelu(x1) * self.dwconv2(x2.squeeze(2)) * self.dwconv3(x3.squeeze(2))
        return self.project_out(gated.unsqueeze(2)).squeeze(2)


class ChannelNorm3D(nn.Module):
    """The released norm: `(B, n, H, W)` → the same, computed on `(B, H·W, n)`."""

    def __init__(self, dim: int, norm: Norm) -> None:
        super().__init__()
        self.norm, self.body = norm, nn.LayerNorm(dim, bias=norm == "WithBias")

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        tokens = x.flatten(2).transpose(1, 2)
        variance = tokens.var(-1, keepdim=True, unbiased=False)
        if self.norm == "WithBias":
            mean = tokens.mean(-1, keepdim=True)
            tokens = (tokens - mean) / torch.sqrt(variance + EPS) * self.body.weight + self.body.bias
        else:
            tokens = tokens / torch.sqrt(variance + EPS) * self.body.weight
        return tokens.transpose(1, 2).unflatten(-1, x.shape[2:])


class Block3D(nn.Module):
    """A released block."""

    def __init__(self, dim: int, num_heads: int, expansion: float, bias: bool, norm: Norm, mix: LocalMix) -> None:  # noqa: PLR0917
        super().__init__()
        self.norm1 = ChannelNorm3D(dim, norm)
        self.attn = CAFM3D(dim, num_heads, bias, mix)
        self.norm2 = ChannelNorm3D(dim, norm)
        self.ffn = MSFN3D(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class HCANet3D(nn.Module):
    """The released network; arguments as in `HCANet`, height and width are multiples of 4."""

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
    ) -> None:
        super().__init__()

        def level(width: int, depth: int, num_heads: int) -> nn.Sequential:
            return nn.Sequential(
                *(Block3D(width, num_heads, ffn_expansion, bias, norm, local_mix) for _ in range(depth))
            )

        def resample(width: int, made: int, shuffle: nn.Module) -> nn.ModuleDict:
            return nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(width, made, 3, padding=1, bias=False), shuffle)})

        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(bands, dim, 3, padding=1, bias=False)})
        self.encoder_level1 = level(dim, num_blocks[0], heads[0])
        self.down1_2 = resample(dim, dim // 2, nn.PixelUnshuffle(2))
        self.encoder_level2 = level(2 * dim, num_blocks[1], heads[1])
        self.down2_3 = resample(2 * dim, dim, nn.PixelUnshuffle(2))
        self.encoder_level3 = level(4 * dim, num_blocks[2], heads[2])
        self.up3_2 = resample(4 * dim, 8 * dim, nn.PixelShuffle(2))
        self.reduce_chan_level2 = nn.Conv3d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, num_blocks[1], heads[1])
        self.up2_1 = resample(2 * dim, 4 * dim, nn.PixelShuffle(2))
        self.decoder_level1 = level(2 * dim, num_blocks[0], heads[0])
        self.refinement = level(2 * dim, num_refinement_blocks, heads[0])
        self.output = nn.Conv3d(2 * dim, bands, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Apply it."""
        level1 = self.encoder_level1(self.patch_embed["proj"](image.unsqueeze(2)).squeeze(2))
        level2 = self.encoder_level2(self.down1_2["body"](level1))
        level3 = self.encoder_level3(self.down2_3["body"](level2))
        x = torch.cat([self.up3_2["body"](level3), level2], dim=1)
        x = self.reduce_chan_level2(x.unsqueeze(2)).squeeze(2)
        x = self.decoder_level2(x)
        x = torch.cat([self.up2_1["body"](x), level1], dim=1)
        x = self.refinement(self.decoder_level1(x))
        return self.output(x.unsqueeze(2)).squeeze(2) + image
