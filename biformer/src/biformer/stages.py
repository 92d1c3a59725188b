"""The parts of BiFormer's network: stem, downsampling, blocks and stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath, Mlp, trunc_normal_
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.linear import linear


class PatchConv(nn.Conv2d):
    """Convolution whose stride equals its kernel; pads at the right and the bottom, so that all pixels are used."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → `(B, C', ⌈H / size⌉, ⌈W / size⌉)`."""
        bottom, right = (-length % self.stride[0] for length in x.shape[-2:])
        return super().forward(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)


class FusedMlp(Mlp):
    """timm's MLP without dropout and norm, `(..., C)` → the same; on a CPU the first product includes the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """fc2(gelu(fc1(x)))."""
        hidden = linear(x, self.fc1.weight, self.fc1.bias, gelu=True)
        return linear(hidden, self.fc2.weight, self.fc2.bias)


class BiFormerBlock(nn.Module):
    """Position convolution, attention and MLP, each added to its input; `(B, C, H, W)` → the same."""

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path: float, position: bool) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if position else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FusedMlp(dim, int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → the same."""
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class BiFormerStage(nn.Module):
    """Downsampling (except in the first stage) and blocks; `(B, C, H, W)` → `(B, C', H', W')`."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[BiFormerBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def attentions(self) -> list[nn.Module]:
        """The attention of every block."""
        return [block.attn for block in self.blocks if isinstance(block, BiFormerBlock)]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → `(B, C', H', W')`."""
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


def stem(in_chans: int, dim: int, overlapping: bool) -> nn.Sequential:
    """`(B, in_chans, H, W)` → `(B, dim, ⌈H / 4⌉, ⌈W / 4⌉)`, by two convolutions of stride 2 or by patches of 4×4."""
    if not overlapping:
        return nn.Sequential(PatchConv(in_chans, dim, 4), nn.BatchNorm2d(dim))
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        nn.BatchNorm2d(dim),
    )


def downsampling(dim: int, wider: int, overlapping: bool) -> nn.Sequential:
    """`(B, dim, H, W)` → `(B, wider, ⌈H / 2⌉, ⌈W / 2⌉)`, by a convolution of stride 2 or by patches of 2×2."""
    if overlapping:
        return nn.Sequential(nn.Conv2d(dim, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider))
    return nn.Sequential(nn.BatchNorm2d(dim), PatchConv(dim, wider, 2))


def init_linear(module: nn.Module) -> None:
    """The released initial values of a linear layer; other modules are not changed."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
