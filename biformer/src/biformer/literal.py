"""Attention to routed regions as the authors wrote it: gather keys and values, then attend.

BiFormer (Zhu et al., CVPR 2023, arXiv 2303.08810), equations 5 and 6: `KVGather` and the pixel-level attention of the
released `bra_legacy.py`. It is the reference for the tests and timings of `fast.routing.routed_attention`. The keys and
values of a region are copied for each query region that selects it, and the gradient is the sum over these copies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def literal_routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Softmax attention of the tokens of each region to all tokens of its routed regions.

    Args:
        q: (B, R, T, C) queries: R regions row by row with T tokens each; C has the channels of all heads in turn.
        k: (B, R, Tk, C) keys; Tk differs from T if keys are pooled.
        v: (B, R, Tk, Cv) values.
        routes: (B, R, top_k) int64, the regions (0 to R - 1) that each query region attends to.
        num_heads: number of heads; divides C and Cv.
        scale: factor of the queries.

    Returns:
        (B, R, T, Cv).
    """
    batch, regions, tokens, _ = q.shape
    k, v = gather_regions(k, routes), gather_regions(v, routes)
    q = q.reshape(batch * regions, tokens, num_heads, -1).transpose(1, 2)
    k = k.reshape(batch * regions, -1, num_heads, q.shape[-1]).permute(0, 2, 3, 1)
    v = v.reshape(batch * regions, k.shape[-1], num_heads, -1).transpose(1, 2)
    weights = ((q * scale) @ k).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(batch, regions, tokens, -1)


def gather_regions(x: Tensor, routes: Tensor) -> Tensor:
    """Copy the tokens of the routed regions for each query region.

    Args:
        x: (B, R, T, C).
        routes: (B, R, top_k) int64.

    Returns:
        (B, R, top_k, T, C).
    """
    tokens, channels = x.shape[2:]
    every = x[:, None].expand(-1, routes.shape[1], -1, -1, -1)
    index = routes[:, :, :, None, None].expand(-1, -1, -1, tokens, channels)
    return torch.gather(every, 2, index)
