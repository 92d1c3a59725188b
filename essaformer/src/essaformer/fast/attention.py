"""ESSA with fewer operations and passes over memory than `literal.attention`, and the same result.

- Centring q and k over channels is linear, so it is done once on the weights instead of on every token.
- Values are never formed: `k̂ᵀ v = (k̂ᵀ x) W_vᵀ + (k̂ᵀ 1) b_vᵀ`, and `W_o` joins the C × C context.
- The sums in q's denominator cancel when it is normalised; k's norms over tokens act on the context.
- The backward pass of the squares and quotients is written by hand and stores half as much.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from common.networks.linear import linear
from essaformer.literal import EPS

TINY = 1e-30
"""Smallest divisor, so that a constant spectrum attends to nothing."""


def attend(x: Tensor, qkv: nn.Linear, out: nn.Linear, order: int) -> Tensor:
    """`W_o (v + Σ_n q̂_n (k̂_nᵀ v) / (n √N)) + b_o`.

    Args:
        x: tokens `(B, N, C)`.
        qkv: C → 3 C, queries, keys and values.
        out: C → C.
        order: terms of the sum.

    Returns:
        `(B, N, C)`.
    """
    dim = x.shape[-1]
    weight_qk, weight_v = qkv.weight.split((2 * dim, dim))
    bias_qk, bias_v = qkv.bias.split((2 * dim, dim))
    # (I − 11ᵀ/C)(W x + b): the same as subtracting every token's mean over channels.
    weight_qk = weight_qk.unflatten(0, (2, dim))
    weight_qk = (weight_qk - weight_qk.mean(dim=1, keepdim=True)).flatten(0, 1)
    bias_qk = bias_qk.unflatten(0, (2, dim))
    bias_qk = (bias_qk - bias_qk.mean(dim=1, keepdim=True)).flatten()

    shares = spectral_shares(at_least_single(linear(x, weight_qk, bias_qk)))
    result = linear(x, out.weight @ weight_v, linear(bias_v, out.weight, out.bias))
    for n in range(1, order + 1):
        q, k, total, norm = shares if n == 1 else second_order(*shares[:2])
        # k̂ᵀ v W_oᵀ / √N: every token's contribution, summed once. (B, C, C)
        context = linear(k.to(x.dtype).transpose(1, 2) @ x, weight_v) + total[..., None] * bias_v
        context = (context / (norm[..., None] * (n * x.shape[1] ** 0.5))).to(x.dtype)
        result = torch.baddbmm(result, q.to(x.dtype), linear(context, out.weight))
    return result


def spectral_shares(qk: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the normalised squares of queries and keys, of which the kernel consists.

    Args:
        qk: centred queries and keys side by side, `(B, N, 2 C)`.

    Returns:
        q̂ `(B, N, C)`; φ(k) / √N `(B, N, C)`, not normalised over tokens; its sum over tokens and its norm over
        tokens, both `(B, C)`. The factor keeps sums over many tokens in half precision's range.
    """
    # torch.compile finds an efficient backward pass by itself, and cannot compile this one.
    if torch.is_grad_enabled() and qk.requires_grad and not torch.compiler.is_compiling():
        return _SpectralShares.apply(qk)
    q, k, total, norm, *_ = _spectral_shares(qk)
    return q, k, total, norm


def _spectral_shares(qk: Tensor) -> tuple[Tensor, ...]:
    """The results of `spectral_shares`, and the factor per token by which the squares were multiplied."""
    q, k = qk.square().chunk(2, dim=-1)
    per_q = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(TINY).reciprocal()
    per_k = ((k.sum(dim=-1, keepdim=True) + EPS) * qk.shape[1] ** 0.5).reciprocal()
    q, k = q * per_q, k * per_k
    return q, k, k.sum(dim=1), torch.linalg.vector_norm(k, dim=1).clamp_min(TINY), per_q, per_k


class _SpectralShares(torch.autograd.Function):
    """`_spectral_shares` with a backward pass that stores only its input and its results.

    Automatic differentiation stores every square, quotient and norm, which is twice as much, and passes over memory
    three times as often.
    """

    @staticmethod
    def forward(ctx: Any, qk: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        q, k, total, norm, per_q, per_k = _spectral_shares(qk)
        ctx.save_for_backward(qk, q, k, norm, per_q, per_k)
        return q, k, total, norm

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        qk, q, k, norm, per_q, per_k = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives use automatic differentiation
            return torch.autograd.grad(_spectral_shares(qk)[:4], qk, grads, create_graph=True)[0]
        grad_q, grad_k, grad_total, grad_norm = grads
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
    """Return `spectral_shares` of φ²: the squares of the first order, normalised again."""
    q, k = normalised(q.square(), dim=-1), k.square() * k.shape[1] ** 0.5
    return q, k, k.sum(dim=1), torch.linalg.vector_norm(k, dim=1).clamp_min(TINY)


def normalised(x: Tensor, dim: int) -> Tensor:
    """Return `x` divided by its L2 norm along `dim`; zeros stay zeros."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(TINY)


def at_least_single(x: Tensor) -> Tensor:
    """Convert half precision to float32, in which squares and sums do not overflow; other types stay unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
