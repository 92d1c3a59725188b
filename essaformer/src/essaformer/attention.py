"""ESSA: self-attention by squared spectral correlation, at a cost linear in the number of tokens.

From *ESSAformer: Efficient Transformer for Hyperspectral Image Super-resolution* (Zhang et al.,
ICCV 2023, arXiv 2307.14010). `literal.attention` is the equation below line by line, and
`literal.kernel_attention` uses the N × N kernel that it replaces. `fast/attention.py` computes the same result faster.
"""

from __future__ import annotations

from torch import Tensor, nn

from essaformer.fast.attention import attend


class ESSAttention(nn.Module):
    """Self-attention whose kernel is the squared correlation of two spectra.

    With q and k centred over channels, `φ(s) = s² / Σ_c s²` and `q̂ = φ(q) / ‖φ(q)‖` over channels,
    `k̂ = φ(k) / ‖φ(k)‖` over tokens,

        out = W_o (v + q̂ (k̂ᵀ v) / √N) + b_o

    the zeroth and first order of the Taylor series of the exponential kernel. No N × N matrix is
    formed: O(N · C²) time and O(N · C) memory. Time is linear in N, but every token still attends
    to every other, so a tile of a scene gives another result than the whole scene.

    `order=2` adds the next term, `q̂₂ (k̂₂ᵀ v) / (2 √N)`, where `q̂₂` and `k̂₂` are φ² normalised like
    `q̂` and `k̂`. The release replaces `(Σ_c q_c k_c)²` by `Σ_c q_c² k_c²`, the diagonal of the tensor
    product. The second order uses only its diagonal in the same way, which keeps the cost linear. No code of
    it was released; the default is the released first order.

    `order=0` leaves only `W_o v + b_o`, without queries and keys; it shows the effect of the attention.

    Args:
        dim: channels C of a token.
        order: 1 as released, 0 or 2.

    Shape:
        `(B, N, C)`, any N → the same. For maps `(B, C, H, W)` there is `essaformer.blocks.ESSABlock`.

    Raises:
        ValueError: `dim` or `order` is out of range; in `forward`, the input has another number of channels.
    """

    def __init__(self, dim: int, order: int = 1) -> None:
        super().__init__()
        if dim < 1 or order not in (0, 1, 2):
            raise ValueError(f"dim must be at least 1 and order 0, 1 or 2, got {dim} and {order}")
        self.dim, self.order = dim, order
        self.qkv = nn.Linear(dim, 3 * dim if order else dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; see the class."""
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"expected (batch, tokens, {self.dim}), got {tuple(x.shape)}")
        if not self.order:
            return self.out(self.qkv(x))
        return attend(x, self.qkv, self.out, self.order)
