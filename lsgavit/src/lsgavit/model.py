"""LSGA-ViT (IEEE TIM 2023, doi 10.1109/TIM.2023.3279922): tokenizer, attention blocks, classifier.

*Light Self-Gaussian-Attention Vision Transformer for Hyperspectral Image Classification.* The
defaults are the released training configuration (536,296 parameters with 16 classes). Tensors have the release's
layout; `checkpoints` lists the names that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.networks import variants
from common.networks.linear import Linear
from common.networks.weights import Pretrained
from lsgavit.attention import LSGAttention, PositionBias
from lsgavit.tokenizer import SpectralSpatialTokenizer


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch of a whole sample with probability `rate` in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` → the same."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1 - self.rate))


class Block(nn.Module):
    """`x + attention(norm1(x))`, then `x + MLP(norm2(x))`; `(B, N, C)` → the same."""

    def __init__(self, attention: LSGAttention, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        dim, hidden = attention.dim, int(attention.dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` → the same."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
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
        """`(B, h · w, C)` → `(B, h · w / 4, 2 · C)`."""
        x = x.unflatten(1, self.size)
        # Order (0,0), (1,0), (0,1), (1,1): down first, then right.
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        return self.reduction(self.norm(x.flatten(1, 2)))


class LSGAViT(Pretrained, nn.Module):
    """Classifies the centre pixel of a window from all pixels of the window.

    Args:
        image_size: side of the window in pixels, or (height, width).
        bands: channels of a pixel, in the release 36 whitened principal components.
        num_classes: classes of the classifier.
        embed_dim: channels of a token; doubled after every stage.
        depths: blocks of each stage; between stages, patch merging halves the sides, which must be even.
        num_heads: attention heads of each stage; further numbers are ignored, as in the release,
            which always lists four.
        position_bias: `"token_index"` as released, `"spatial"` as in the paper, `"none"`.
        token_mixing: learned mixing of the tokens before attention, as released; the paper has none.
        light: keys and values are the tokens themselves; False for ordinary attention.
        sigma: standard deviation of the Gaussian, in token indices or pixels.
        mlp_ratio: hidden channels of the MLP per channel of a token.
        drop_path: rate of the last block's stochastic depth, which rises linearly from 0 at the first block.

    Shape:
        `(B, bands, height, width)` → logits `(B, num_classes)`.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 9,
        bands: int = 36,
        num_classes: int = 16,
        *,
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
        if not depths or min(depths) < 1 or len(num_heads) < len(depths):
            raise ValueError(
                "depths needs at least one stage of at least one block and num_heads a number for each, "
                f"got {tuple(depths)} and {tuple(num_heads)}"
            )
        if num_classes < 1 or not 0 <= drop_path < 1:
            raise ValueError(f"num_classes must be at least 1 and drop_path in [0, 1), got {num_classes}, {drop_path}")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size, self.bands, self.num_classes = (height, width), bands, num_classes
        self.tokenizer = SpectralSpatialTokenizer(bands, embed_dim)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        blocks: list[nn.Module] = []
        dim, size = embed_dim, (height, width)
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=False)):
            if stage:
                blocks.append(PatchMerging(dim, size))
                dim, size = 2 * dim, (size[0] // 2, size[1] // 2)
            for _ in range(depth):
                attention = LSGAttention(
                    dim, heads, size, token_mixing=token_mixing, light=light, position_bias=position_bias, sigma=sigma
                )
                blocks.append(Block(attention, mlp_ratio, next(rates)))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Windows `(B, bands, height, width)` → logits `(B, num_classes)`."""
        if x.ndim != 4 or x.shape[1:] != (self.bands, *self.image_size):
            raise ValueError(f"expected windows (batch, {self.bands}, {self.image_size}), got {tuple(x.shape)}")
        return self.classify(self.tokenizer(x))

    def classify(self, tokens: Tensor) -> Tensor:
        """Tokens of windows `(B, N, C)` → logits `(B, num_classes)`."""
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


def _initialise(module: nn.Module) -> None:
    """Linear layers: normal with standard deviation 0.02 cut at ±2, biases zero; others keep their initial values."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_VARIANTS: dict[str, dict[str, Any]] = {
    "lsgavit": {},
    "lsgavit_spatial": {"position_bias": "spatial"},
    # The paper's four variants: light + Gaussian, light, Gaussian, plain.
    "lsgavit_paper": {"position_bias": "spatial", "token_mixing": False},
    "lsgavit_light": {"position_bias": "none", "token_mixing": False},
    "lsgavit_gaussian": {"position_bias": "spatial", "token_mixing": False, "light": False},
    "lsgavit_plain": {"position_bias": "none", "token_mixing": False, "light": False},
}


def list_models() -> list[str]:
    """Names for `create_model`: the released network first, then the paper's network and its ablations."""
    return list(_VARIANTS)


def create_model(name: str = "lsgavit", **overrides: Any) -> LSGAViT:
    """Build a named variant.

    Args:
        name: `"lsgavit"` (released), `"lsgavit_spatial"` (released, except for the bias), `"lsgavit_paper"`
            (spatial Gaussian, no token mixing), `"lsgavit_light"`, `"lsgavit_gaussian"` and
            `"lsgavit_plain"` (ablations).
        overrides: keywords of `LSGAViT` that replace the variant's.

    Raises:
        ValueError: the name or a keyword is unknown; the message lists the valid ones.
    """
    return variants.build(LSGAViT, _VARIANTS, name, overrides)
