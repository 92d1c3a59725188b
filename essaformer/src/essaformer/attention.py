"""ESSA: self-attention by squared spectral correlation, at a cost linear in the number of tokens.

From *ESSAformer: Efficient Transformer for Hyperspectral Image Super-resolution* (Zhang et al.,
ICCV 2023, arXiv 2307.14010). `literal.py` holds the same equation through the N × N kernel.

Differs from the authors' release in names and in the order of the products, not in the result:

- centring q and k over channels is linear, so it is done once on the weights instead of on every token;
- values are never formed: `k̂ᵀ v = (k̂ᵀ x) W_vᵀ + (k̂ᵀ 1) b_vᵀ`, and `W_o` joins the C × C context;
- the sums in q's denominator cancel when it is normalised; k's norms over tokens act on the context.
"""

from __future__ import annotations

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

        energy = at_least_single(F.linear(x, weight_qk, bias_qk)).square()
        q, k = energy.split(self.dim, dim=-1)
        k = k / (k.sum(dim=-1, keepdim=True) + EPS)
        out = F.linear(x, self.out.weight @ weight_v, F.linear(bias_v, self.out.weight, self.out.bias))
        for power in range(1, self.order + 1):
            context = self._context(k**power if power > 1 else k, x, weight_v, bias_v) / power
            query = q if power == 1 else q / q.sum(dim=-1, keepdim=True).clamp_min(TINY)
            out = torch.baddbmm(out, normalised(query**power if power > 1 else query, dim=-1).to(x.dtype), context)
        return out

    def _context(self, k: Tensor, x: Tensor, weight_v: Tensor, bias_v: Tensor) -> Tensor:
        """`k̂ᵀ v W_oᵀ / √N`, `(B, C, C)`: every token's contribution, summed once."""
        tokens = k.shape[1] ** 0.5
        # Half precision: shares of 1/C over many tokens would overflow in the sum without this factor.
        k = k / tokens
        norm = torch.linalg.vector_norm(k, dim=1).clamp_min(TINY)[..., None]
        context = F.linear(k.to(x.dtype).transpose(1, 2) @ x, weight_v) + k.sum(dim=1)[..., None] * bias_v
        return F.linear((context / (norm * tokens)).to(x.dtype), self.out.weight)


def normalised(x: Tensor, dim: int) -> Tensor:
    """`x` over its L2 norm along `dim`; zeros stay zeros."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(TINY)


def at_least_single(x: Tensor) -> Tensor:
    """Half precision to float32, in which squares and their sums do not overflow; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
