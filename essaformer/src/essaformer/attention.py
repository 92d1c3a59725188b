"""ESSA: self-attention by squared spectral correlation, at a cost linear in the number of tokens.

From *ESSAformer: Efficient Transformer for Hyperspectral Image Super-resolution* (Zhang et al.,
ICCV 2023, arXiv 2307.14010). `literal.py` holds the same equation through the N × N kernel.

Differs from the authors' release in names and in the order of the products, not in the result:

- centring q and k over channels is linear, so it is done once on the weights instead of on every token;
- values are never formed: `k̂ᵀ v = (k̂ᵀ x) W_vᵀ + (k̂ᵀ 1) b_vᵀ`, and `W_o` joins the C × C context;
- the sums in q's denominator cancel when it is normalised; k's norms over tokens act on the context.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-7
"""Added to a spectrum's energy, as released, so that a constant spectrum stays finite."""
TINY = 1e-30
"""Smallest norm that is divided by: a constant spectrum attends to nothing."""


class ESSAttention(nn.Module):
    """Self-attention whose kernel is the squared correlation of two spectra.

    With q and k centred over channels, `φ(s) = s² / Σ_c s²` and `q̂ = φ(q) / ‖φ(q)‖` over channels,
    `k̂ = φ(k) / ‖φ(k)‖` over tokens,

        out = W_o (v + q̂ (k̂ᵀ v) / √N) + b_o

    the zeroth and first order of the Taylor series of the exponential kernel. No N × N matrix is
    formed: O(N · C²) time and O(N · C) memory. Time is linear in N, but every token still meets
    every other, so a tile of a scene gives another result than the scene.

    `order=2` adds the next term, `q̂₂ (k̂₂ᵀ v) / (2 √N)`, where `q̂₂` and `k̂₂` are φ² normalised like
    `q̂` and `k̂`. The release goes from `(Σ_c q_c k_c)²` to `Σ_c q_c² k_c²`, the diagonal of the tensor
    product; the second order is cut to its diagonal in the same way, which keeps it linear. There is
    no released code for it; the network's default is the released first order.

    Args:
        dim: channels C of a token.
        order: 1 as released, or 2.

    Shape:
        `(B, N, C)`, any N → the same.

    Raises:
        ValueError: `dim` or `order` is out of range; in `forward`, another number of channels.
    """

    def __init__(self, dim: int, order: int = 1) -> None:
        super().__init__()
        if dim < 1 or order not in (1, 2):
            raise ValueError(f"dim must be at least 1 and order 1 or 2, got {dim} and {order}")
        self.dim, self.order = dim, order
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; see the class."""
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"expected (batch, tokens, {self.dim}), got {tuple(x.shape)}")
        weight_qk, weight_v = self.qkv.weight.split((2 * self.dim, self.dim))
        bias_qk, bias_v = self.qkv.bias.split((2 * self.dim, self.dim))
        # (I − 11ᵀ/C)(W x + b): the same as subtracting every token's mean over channels.
        weight_qk = weight_qk.unflatten(0, (2, -1))
        weight_qk = (weight_qk - weight_qk.mean(dim=1, keepdim=True)).flatten(0, 1)
        bias_qk = bias_qk.unflatten(0, (2, -1))
        bias_qk = (bias_qk - bias_qk.mean(dim=1, keepdim=True)).flatten()

        shares = spectral_shares(at_least_single(F.linear(x, weight_qk, bias_qk)))
        out = F.linear(x, self.out.weight @ weight_v, F.linear(bias_v, self.out.weight, self.out.bias))
        for order in range(1, self.order + 1):
            q, k, total, norm = shares if order == 1 else second_order(*shares[:2])
            # k̂ᵀ v W_oᵀ / √N: every token's contribution, summed once. (B, C, C)
            context = F.linear(k.to(x.dtype).transpose(1, 2) @ x, weight_v) + total[..., None] * bias_v
            context = (context / (norm[..., None] * (order * x.shape[1] ** 0.5))).to(x.dtype)
            out = torch.baddbmm(out, q.to(x.dtype), F.linear(context, self.out.weight))
        return out


def spectral_shares(qk: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernel is made of.

    Args:
        qk: centred queries and keys side by side, `(B, N, 2 C)`.

    Returns:
        q̂ `(B, N, C)`; φ(k) / √N `(B, N, C)`, not normalised over tokens; its sum over tokens and its norm over
        tokens, both `(B, C)`. The factor keeps sums over many tokens in half precision's range.
    """
    if torch.is_grad_enabled() and qk.requires_grad:
        return _SpectralShares.apply(qk)
    q, k, total, norm, _, _ = _spectral_shares(qk)
    return q, k, total, norm


def _spectral_shares(qk: Tensor) -> tuple[Tensor, ...]:
    """`spectral_shares`, and the factors per token by which the squares were multiplied."""
    q, k = qk.square().chunk(2, dim=-1)
    per_q = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(TINY).reciprocal()
    per_k = ((k.sum(dim=-1, keepdim=True) + EPS) * qk.shape[1] ** 0.5).reciprocal()
    q, k = q * per_q, k * per_k
    return q, k, k.sum(dim=1), torch.linalg.vector_norm(k, dim=1).clamp_min(TINY), per_q, per_k


class _SpectralShares(torch.autograd.Function):
    """`_spectral_shares` with a backward pass that keeps its input and its results only.

    Automatic differentiation keeps every square, quotient and norm, twice as much, and passes over memory
    three times as often.
    """

    @staticmethod
    def forward(ctx: Any, qk: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        q, k, total, norm, per_q, per_k = _spectral_shares(qk)
        ctx.save_for_backward(qk, q, k, norm, per_q, per_k)
        return q, k, total, norm

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_total: Tensor, grad_norm: Tensor) -> Tensor:  # type: ignore[override]
        qk, q, k, norm, per_q, per_k = ctx.saved_tensors
        result = torch.empty_like(qk)
        of_q, of_k = result.chunk(2, dim=-1)
        # q̂ = s / ‖s‖ with s = q²: ds = (dq̂ − q̂ ⟨q̂, dq̂⟩) / ‖s‖
        torch.addcmul(grad_q, q, (q * grad_q).sum(dim=-1, keepdim=True), value=-1, out=of_q)
        of_q.mul_(2 * per_q)
        # k = s / (Σ s + ε) / √N with s = k²: ds = (dk − √N ⟨k, dk⟩) / (Σ s + ε) / √N
        torch.addcmul(grad_total[:, None], k, (grad_norm / norm)[:, None], out=of_k)
        of_k.add_(grad_k)
        of_k.sub_((k * of_k).sum(dim=-1, keepdim=True).mul_(qk.shape[1] ** 0.5)).mul_(2 * per_k)
        return result.mul_(qk)


def second_order(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`spectral_shares` of φ²: squares of the first order's, normalised again."""
    q, k = normalised(q.square(), dim=-1), k.square() * k.shape[1] ** 0.5
    return q, k, k.sum(dim=1), torch.linalg.vector_norm(k, dim=1).clamp_min(TINY)


def normalised(x: Tensor, dim: int) -> Tensor:
    """`x` over its L2 norm along `dim`; zeros stay zeros."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(TINY)


def at_least_single(x: Tensor) -> Tensor:
    """Half precision to float32, in which squares and their sums do not overflow; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
