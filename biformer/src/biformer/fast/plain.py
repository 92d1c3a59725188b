"""Attention to routed regions with PyTorch's fused attention, on CPUs and without Triton.

Equations 5 and 6 of BiFormer (arXiv 2303.08810), with the same results as `literal`. Unlike the release, it does not
write attention weights to memory, and for small maps it does not copy keys and values. Gradients are computed by
autograd. The gradient of a copy is one indexed sum over R regions for every image; the gradient of the release's
`gather` fills a tensor of R² regions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_MASKED_KEYS = 512
"""Largest number of keys of a map for which the whole map is computed with a mask. Stage 3 at 224 pixels has 196."""

_MASKED_SHARE = 4
"""Compute the whole map with a mask if it has at most this number of times the routed keys. This was measured for a
factor of 3 (stage 3 at 224 pixels), where it needs a third of the time of copying; the limit of 4 is a guess."""


def plain_routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Computes `literal.literal_routed_attention`, on any device and for any floating-point type."""
    regions, top_k = routes.shape[1:]
    few_keys = k.shape[1] * k.shape[2] <= _MASKED_KEYS and regions <= _MASKED_SHARE * top_k
    attend = _masked if few_keys and q.device.type == "cpu" else _selected
    return attend(q, k, v, routes, num_heads, scale)


def _masked(q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float) -> Tensor:  # noqa: PLR0917
    """Attention of every query to every key of the map, with a mask that keeps the routed keys."""
    batch, regions, tokens, _ = q.shape
    mask = q.new_full((batch, regions, regions), float("-inf")).scatter(2, routes, 0.0)
    mask = mask[:, None, :, None, :, None].expand(-1, -1, -1, tokens, -1, k.shape[2])
    mask = mask.reshape(batch, 1, regions * tokens, -1)
    q, k, v = (x.reshape(batch, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return attended.transpose(1, 2).reshape(batch, regions, tokens, -1)


def _selected(q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float) -> Tensor:  # noqa: PLR0917
    """Attention to copies of the routed regions, which are selected from a table of the regions of all images."""
    batch, regions, tokens, _ = q.shape
    first = torch.arange(batch, device=routes.device)[:, None, None] * k.shape[1]
    rows = (routes + first).flatten()
    k, v = (x.reshape(batch * k.shape[1], *x.shape[2:]).index_select(0, rows) for x in (k, v))
    q, k, v = (x.reshape(batch * regions, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return attended.transpose(1, 2).reshape(batch, regions, tokens, -1)
