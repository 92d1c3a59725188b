"""LSGA-ViT: *Light Self-Gaussian-Attention Vision Transformer for Hyperspectral Image Classification*."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from common.checkpoints import Pretrained
from torch import Tensor, nn

from lsgavit.attention import LSGAttention, PositionBias
from lsgavit.tokenizer import SpectralSpatialTokenizer


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch of a whole sample with probability `rate` in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + MLP(norm(x))`; `(B, N, C)` both ways."""

    def __init__(self, attention: LSGAttention, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        dim, hidden = attention.dim, int(attention.dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def literal(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention.literal(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Halves the window: 2×2 neighbours are concatenated, normalised and projected to twice the width.

    Shape:
        input `(B, h · w, C)` with even h and w; output `(B, h · w / 4, 2 · C)`.
    """

    def __init__(self, dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"patch merging needs even sides, got {size[0]} × {size[1]}; choose another image_size")
        self.size = size
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, self.size)
        # Order (0,0), (1,0), (0,1), (1,1): down first, then right.
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        return self.reduction(self.norm(x.flatten(1, 2)))


class LSGAViT(Pretrained, nn.Module):
    def __init__(
        self,
        image_size: int | Sequence[int] = 9,
        bands: int = 36,
        num_classes: int = 16,
        embed_dim: int = 120,
        depths: Sequence[int] = (2,),
        num_heads: Sequence[int] = (12,),
        position_bias: PositionBias = "token_index",
        token_mixing: bool = True,
        light: bool = True,
        sigma: float = 10.0,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size, self.bands, self.num_classes = (height, width), bands, num_classes
        self.tokenizer = SpectralSpatialTokenizer(bands, embed_dim)
        rates = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        stages: list[nn.Module] = []
        dim, size = embed_dim, (height, width)
        for stage, (depth, heads) in enumerate(zip(depths, num_heads)):
            for _ in range(depth):
                attention = LSGAttention(
                    dim, heads, size, token_mixing=token_mixing, light=light, position_bias=position_bias, sigma=sigma
                )
                stages.append(Block(attention, mlp_ratio, next(rates)))
            if stage + 1 < len(depths):
                stages.append(PatchMerging(dim, size))
                dim, size = 2 * dim, (size[0] // 2, size[1] // 2)
        self.blocks = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.tokenizer(x))
        return self.head(self.norm(x).mean(dim=1))

    def literal(self, x: Tensor) -> Tensor:
        x = self.tokenizer.literal(x)
        for block in self.blocks:
            x = block.literal(x) if isinstance(block, Block) else block(x)
        return self.head(self.norm(x).mean(dim=1))
