"""The two attention fusions of AMGCFN (IEEE TGRS 2023, section III-C): over nodes, and over pixels.

Differs from the release in form only: the attention over nodes never stores its N × N matrix.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class NodeAttention(nn.Module):
    """Multi-head self-attention over all superpixels, with residual connection and LayerNorm.

        out = LayerNorm(W_o softmax(q kᵀ / √d) v + b_o + x)      per head of width d = C / heads

    Args:
        channels: channels C of a node.
        heads: number of heads, a divisor of C.

    Shape:
        input `(N, C)`, output the same.
    """

    def __init__(self, channels: int = 192, heads: int = 6) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels {channels} cannot be divided into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """Mix `(N, C)` nodes."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(0, 1) for layer in (self.query, self.key, self.value)
        )
        # Computed in blocks, without a (heads, N, N) tensor. Its backward pass is inexact where the softmax
        # saturates, so float64, which is for tests, uses the direct form.
        exact = x.dtype == torch.float64
        with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():
            mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return self.norm(self.out(mixed.transpose(0, 1).flatten(1)) + x)


class PixelAttention(nn.Module):
    """Weight each group of channels in space by a small convolution of the group's mean.

        out_g = x_g · sigmoid(conv5×5_g(mean over the channels of x_g))

    Args:
        channels: channels C of the map.
        heads: number of groups of C / heads channels, each with its own convolution.

    Shape:
        input `(B, C, H, W)`, output the same.
    """

    def __init__(self, channels: int = 192, heads: int = 6) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels {channels} cannot be divided into {heads} heads")
        self.heads = heads
        self.conv = nn.Conv2d(heads, heads, 5, padding=2, groups=heads)

    def forward(self, x: Tensor) -> Tensor:
        """Weight a `(B, C, H, W)` map."""
        groups = x.unflatten(1, (self.heads, -1))
        weight = torch.sigmoid(self.conv(groups.mean(dim=2)))
        return (groups * weight.unsqueeze(2)).flatten(1, 2)
