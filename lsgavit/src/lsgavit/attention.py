"""Light self-Gaussian attention of LSGA-ViT (IEEE TIM 2023, doi 10.1109/TIM.2023.3279922).

*Light Self-Gaussian-Attention Vision Transformer for Hyperspectral Image Classification.*
The released behaviour is the default. It differs from the paper in two points, which are options:

- `token_mixing`: the release mixes the tokens with two learned matrices before the attention; the paper does not.
- `position_bias`: the release evaluates the Gaussian on flattened token indices, the paper on pixel coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.linear import Linear
from lsgavit.fast import attention as fast

PositionBias = Literal["token_index", "spatial", "none"]


def token_index_gaussian(tokens: int, sigma: float = 10.0) -> Tensor:
    """The released bias: `exp(-((i - c)² + (j - c)²) / 2σ²)` over query index i and key index j.

    c is `(tokens - 1) // 2`. Both indices count flattened tokens and are no coordinates in the
    window, so the bias is large if query and key are both near the middle of the sequence.

    Returns:
        `(tokens, tokens)`, float64, in (0, 1].
    """
    distance = (torch.arange(tokens, dtype=torch.float64) - (tokens - 1) // 2).square()
    return torch.exp(-(distance[:, None] + distance[None, :]) / (2 * sigma**2))


def spatial_gaussian(height: int, width: int, sigma: float = 10.0) -> Tensor:
    """The paper's bias: a 2-D Gaussian over the keys' pixel coordinates, centred in the window.

    `exp(-((y - y_c)² + (x - x_c)²) / 2σ²)`, the same for every query, so that attention favours
    the central pixel, which is classified.

    Returns:
        `(height · width, height · width)`, float64, in (0, 1]; all rows are equal.
    """
    y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2).square()
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2).square()
    keys = torch.exp(-(y[:, None] + x[None, :]) / (2 * sigma**2)).flatten()
    return keys.expand(height * width, -1).clone()


class LSGAttention(nn.Module):
    """Multi-head self-attention of a window's tokens on themselves, with a constant Gaussian bias.

    As released, for tokens X of `(N, C)`:

        A = softmax_tokens(W_A Xᵀ)        X ← A (X W_V)                     token mixing
        Q = X W_Q + b,  K = V = X                                          "light"
        out = softmax(Q Kᵀ / √d + G) V W_O + b                              per head of width d

    Args:
        dim: channels C of a token; a multiple of `num_heads`.
        num_heads: attention heads.
        window: height and width of the window in tokens, or one number for both.
        token_mixing: start with the two learned matrices W_A `(N, C)` and W_V `(C, C)`, as released.
        light: keys and values are the tokens themselves; otherwise ordinary Q, K and V projections.
        position_bias: `"token_index"` as released, `"spatial"` as in the paper, `"none"`.
        sigma: standard deviation of the Gaussian, in token indices or in pixels.

    Shape:
        input `(B, N, C)` with N = height · width; output the same. For maps `(B, C, H, W)` of any size
        there is `lsgavit.blocks.LSGABlock`.
    """

    bias: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int | tuple[int, int],
        *,
        token_mixing: bool = True,
        light: bool = True,
        position_bias: PositionBias = "token_index",
        sigma: float = 10.0,
    ) -> None:
        super().__init__()
        height, width = (window, window) if isinstance(window, int) else window
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim must be a positive multiple of num_heads, got {dim} and {num_heads}")
        if height < 1 or width < 1:
            raise ValueError(f"window must be at least 1 × 1 tokens, got {height} × {width}")
        if position_bias not in ("token_index", "spatial", "none"):
            raise ValueError(f"position_bias must be token_index, spatial or none, got {position_bias!r}")
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.dim, self.num_heads, self.tokens = dim, num_heads, height * width
        self.window, self.light, self.position_bias, self.sigma = (height, width), light, position_bias, sigma
        self.mix_tokens = nn.Parameter(torch.empty(self.tokens, dim)) if token_mixing else None
        self.mix_channels = nn.Parameter(torch.empty(dim, dim)) if token_mixing else None
        for weight in (self.mix_tokens, self.mix_channels):
            if weight is not None:
                # As in the release, Xavier with a leading axis of 1: "fan in" then counts both axes, and the values
                # are about ten times smaller than for a matrix.
                nn.init.xavier_normal_(weight[None])
        self.qkv = Linear(dim, dim if light else 3 * dim)
        self.out = Linear(dim, dim)
        self.register_buffer("bias", None, persistent=False)  # a constant, not a weight
        self._compute_bias()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` → the same."""
        if x.ndim != 3 or x.shape[1:] != (self.tokens, self.dim):
            raise ValueError(f"expected (batch, {self.tokens} tokens, {self.dim}), got {tuple(x.shape)}")
        if fast.suits(x):
            return fast.attention(self, x)
        if self.mix_tokens is not None and self.mix_channels is not None:
            mixing = (self.mix_tokens @ x.transpose(1, 2)).softmax(dim=-1)
            x = mixing @ (x @ self.mix_channels)
        q, k, v = (self.qkv(x), x, x) if self.light else self.qkv(x).chunk(3, dim=-1)
        # Under autocast x keeps its type, but q, a matrix product, does not.
        q, k, v = (part.to(q.dtype).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
        bias = None if self.bias is None else self.bias.to(q)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(x.transpose(1, 2).flatten(2))

    def _compute_bias(self) -> None:
        """Fill the buffer on the weights' device and in their type."""
        if self.position_bias == "none":
            return
        weight = self.out.weight
        with torch.device("cpu"):  # also inside `with torch.device("meta")`, where tensors have no values
            tokens, (height, width), sigma = self.tokens, self.window, self.sigma
            spatial = self.position_bias == "spatial"
            bias = spatial_gaussian(height, width, sigma) if spatial else token_index_gaussian(tokens, sigma)
        self.bias = bias.to("cpu" if weight.is_meta else weight.device, weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Called by `to`, `half`, `to_empty` and others: recompute the constant instead of converting it."""
        super()._apply(fn, recurse)
        self._compute_bias()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Recompute the constant, because loading with `assign=True` can move the weights from the meta device."""
        super()._load_from_state_dict(*arguments)
        self._compute_bias()
