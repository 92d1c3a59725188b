"""Light self-Gaussian attention of LSGA-ViT (IEEE TGRS 2023, doi 10.1109/TGRS.2023.3279922).

*Light Self-Gaussian-Attention Vision Transformer for Hyperspectral Image Classification.*
The released behaviour is the default. It differs from the paper in two places, both are options:

- the release mixes the tokens with two learned matrices before it attends; the paper does not
  (`token_mixing`),
- the release evaluates the Gaussian on flattened token indices, the paper on pixel coordinates
  (`position_bias`).

`LSGAttention.literal` is the equation as published; `forward` computes the same numbers faster.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PositionBias = Literal["token_index", "spatial", "none"]


def token_index_gaussian(tokens: int, sigma: float = 10.0) -> Tensor:
    """The released bias: `exp(-((i - c)² + (j - c)²) / 2σ²)` over query index i and key index j.

    c is `(tokens - 1) // 2`. Both axes count flattened tokens, neither is a coordinate of the
    window: the bias is large where query and key both lie near the middle of the sequence.

    Returns:
        `(tokens, tokens)`, float64, in (0, 1].
    """
    distance = (torch.arange(tokens, dtype=torch.float64) - (tokens - 1) // 2).square()
    return torch.exp(-(distance[:, None] + distance[None, :]) / (2 * sigma**2))


def spatial_gaussian(height: int, width: int, sigma: float = 10.0) -> Tensor:
    """The paper's bias: a 2-D Gaussian over the keys' pixel coordinates, centred in the window.

    `exp(-((y - y_c)² + (x - x_c)²) / 2σ²)`, the same for every query, so that attention favours
    the pixel that is classified.

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
        input `(B, N, C)` with N = height · width; output the same.
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
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.dim, self.num_heads, self.tokens = dim, num_heads, height * width
        self.mix_tokens = nn.Parameter(torch.empty(self.tokens, dim)) if token_mixing else None
        self.mix_channels = nn.Parameter(torch.empty(dim, dim)) if token_mixing else None
        for weight in (self.mix_tokens, self.mix_channels):
            if weight is not None:
                # Xavier as the release has it: on a leading axis of 1, so that "fan in" counts both
                # axes and the values are about ten times smaller than those of a matrix.
                nn.init.xavier_normal_(weight[None])
        self.qkv = nn.Linear(dim, dim if light else 3 * dim)
        self.out = nn.Linear(dim, dim)
        bias = None
        if position_bias == "token_index":
            bias = token_index_gaussian(self.tokens, sigma)
        elif position_bias == "spatial":
            bias = spatial_gaussian(height, width, sigma)
        if bias is not None:
            bias = bias.to(torch.get_default_dtype())
        self.register_buffer("bias", bias, persistent=False)  # a constant, not a weight

    def literal(self, x: Tensor) -> Tensor:
        """The published equations one by one; every N × N matrix is formed."""
        self._check(x)
        batch, tokens, dim = x.shape
        if self.mix_tokens is not None and self.mix_channels is not None:
            mixing = torch.einsum("nc,bmc->bnm", self.mix_tokens, x).softmax(dim=-1)
            x = mixing @ (x @ self.mix_channels)
        q, k, v = self.qkv(x).chunk(3, dim=-1) if self.qkv.out_features == 3 * dim else (self.qkv(x), x, x)
        heads = (batch, tokens, self.num_heads, dim // self.num_heads)
        q, k, v = (part.reshape(heads).transpose(1, 2) for part in (q, k, v))
        logits = (q * (dim // self.num_heads) ** -0.5) @ k.transpose(-2, -1)
        if self.bias is not None:
            logits = logits + self.bias
        return self.out((logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as `literal`, faster; see the module's header."""
        self._check(x)
        batch = len(x)
        # Tokens last, (B, C, N): the narrow axis of every product below is then never the inner one.
        # Weights are expanded over the batch instead of folding it away, which would copy x.
        if self.mix_tokens is not None and self.mix_channels is not None:
            mixing = F.linear(x, self.mix_tokens).softmax(dim=1)  # Aᵀ: columns sum to 1
            x = (x @ self.mix_channels).transpose(1, 2) @ mixing
        else:
            x = x.transpose(1, 2)
        weight, bias = self.qkv.weight.expand(batch, -1, -1), self.qkv.bias[None, :, None]
        q = torch.baddbmm(bias, weight, x)
        q, k, v = q.chunk(3, dim=1) if self.qkv.out_features == 3 * self.dim else (q, x, x)
        x = attend(q, k, v, self.num_heads, self.bias).transpose(1, 2)
        return torch.baddbmm(self.out.bias[None, None], x, self.out.weight.T.expand(batch, -1, -1))

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[1:] != (self.tokens, self.dim):
            raise ValueError(f"expected (batch, {self.tokens} tokens, {self.dim}), got {tuple(x.shape)}")


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention, tokens last: softmax over keys of `kᵀ q / √d + biasᵀ`, applied to v.

    Args:
        q, k, v: `(B, C, N)`; head h has the channels [h · d, (h + 1) · d).
        bias: `(N, N)`, query by key, constant, or None.

    Returns:
        `(B, C, N)`.
    """
    batch, dim, tokens = q.shape
    width = dim // num_heads
    if q.is_cuda or torch.compiler.is_compiling():
        q, k, v = (part.unflatten(1, (num_heads, width)).transpose(-2, -1) for part in (q, k, v))
        bias = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(-2, -1).flatten(1, 2)
    bias = q.new_zeros(tokens, tokens) if bias is None else bias.T.to(q.dtype).contiguous()
    q, k, v = (part.reshape(batch * num_heads, width, tokens) for part in (q, k.to(q.dtype), v.to(q.dtype)))
    return _AttendOnCPU.apply(q, k, v, bias).view(batch, dim, tokens)


_HEADS_PER_THREAD = 24
"""Heads whose N × N matrices a thread works on at a time: 81 tokens make 0.6 MB, which stays in its cache."""


class _AttendOnCPU(torch.autograd.Function):
    """Attention of `(heads, d, N)` in cache-sized pieces; keeps the weights for the backward pass.

    Forward and backward take 0.6 of the time of `scaled_dot_product_attention`, whose CPU kernel is
    made for heads wider than 10 channels.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        scale = q.shape[1] ** -0.5
        out, kept = torch.empty_like(q), []
        needed = any(ctx.needs_input_grad)
        ctx.pieces = _pieces(len(q))
        for piece in ctx.pieces:
            weights = torch.baddbmm(bias, k[piece].transpose(1, 2), q[piece], alpha=scale)
            torch.softmax(weights, 1, out=weights)  # over keys
            torch.bmm(v[piece], weights, out=out[piece])
            if needed:
                kept.append(weights)
        if needed:
            ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        scale = q.shape[1] ** -0.5
        dq, dk, dv = (torch.empty_like(part) for part in (q, k, v))
        for piece, weights in zip(ctx.pieces, kept, strict=True):
            torch.bmm(gradient[piece], weights.transpose(1, 2), out=dv[piece])
            dlogits = torch.bmm(v[piece].transpose(1, 2), gradient[piece])
            dlogits = torch._softmax_backward_data(dlogits, weights, 1, weights.dtype)
            torch.bmm(k[piece], dlogits, out=dq[piece])
            torch.bmm(q[piece], dlogits.transpose(1, 2), out=dk[piece])
        return dq.mul_(scale), dk.mul_(scale), dv, None


def _pieces(heads: int) -> list[slice]:
    size = _HEADS_PER_THREAD * torch.get_num_threads()
    return [slice(start, start + size) for start in range(0, heads, size)]
