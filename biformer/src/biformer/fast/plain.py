"""Attention to routed regions with PyTorch's fused attention: on CPUs, and wherever Triton is not.

Equations 5 and 6 of BiFormer (arXiv 2303.08810), the same numbers as `literal`. Differs from the
release in what is written to memory: no attention weights, and where the map is small no copied
keys and values either. Gradients come from autograd; a copy's gradient is one indexed sum, where
the release's `gather` fills a zero tensor with R² instead of R regions for every image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_MASKED_KEYS = 512
"""Largest map, in keys, that is attended to as a whole. Stage 3 at 224 pixels has 196."""

_MASKED_SHARE = 4
"""Attend to the whole map if it has at most this many times the routed keys. Measured at 3 times,
stage 3 at 224 pixels, where it takes a third of the time of copying; the bound itself is a guess."""


def plain_routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """As `literal.literal_routed_attention`, on any device and for any floating dtype."""
    regions, top_k = routes.shape[1:]
    few_keys = k.shape[1] * k.shape[2] <= _MASKED_KEYS and regions <= _MASKED_SHARE * top_k
    attend = _masked if few_keys and q.device.type == "cpu" else _selected
    return attend(q, k, v, routes, num_heads, scale)


def _masked(q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float) -> Tensor:  # noqa: PLR0917
    """Every query meets every key of the map; a mask keeps the routed ones."""
    batch, regions, tokens, _ = q.shape
    mask = q.new_full((batch, regions, regions), float("-inf")).scatter(2, routes, 0.0)
    mask = mask[:, None, :, None, :, None].expand(-1, -1, -1, tokens, -1, k.shape[2])
    mask = mask.reshape(batch, 1, regions * tokens, -1)
    q, k, v = (x.reshape(batch, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return attended.transpose(1, 2).reshape(batch, regions, tokens, -1)


def _selected(q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float) -> Tensor:  # noqa: PLR0917
    """Each query region gets a copy of its routed regions: rows of a table of all images' regions."""
    batch, regions, tokens, _ = q.shape
    first = torch.arange(batch, device=routes.device)[:, None, None] * k.shape[1]
    rows = (routes + first).flatten()
    k, v = (x.reshape(batch * k.shape[1], *x.shape[2:]).index_select(0, rows) for x in (k, v))
    q, k, v = (x.reshape(batch * regions, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return attended.transpose(1, 2).reshape(batch, regions, tokens, -1)
