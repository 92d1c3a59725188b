"""Attention to routed regions with PyTorch's `flex_attention`, to compare our kernels with.

If a block of the block mask is one region, the routing table is the index of the mask, so no mask is computed. The
number of tokens of a region must be a power of two, at least 16, and heads are not packed, so stage 3 at 224 pixels
cannot be computed. On a CPU there is no gradient.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

SMALLEST = 16


def flex_fits(q: Tensor, k: Tensor) -> bool:
    """Whether `flex_routed_attention` accepts the regions of these queries and keys `(B, R, T, C)`."""
    return all(x.shape[2] >= SMALLEST and x.shape[2] & (x.shape[2] - 1) == 0 for x in (q, k))


def flex_routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Computes `routing.routed_attention` if `flex_fits`; the first call with a shape compiles the code."""
    from torch.nn.attention.flex_attention import BlockMask  # noqa: PLC0415 - imports the compiler

    batch, regions, tokens, _ = q.shape
    # Every row of the index has room for all regions; only its first `count` entries are used.
    index = routes.new_zeros(batch, 1, regions, regions, dtype=torch.int32)
    index[:, 0, :, : routes.shape[-1]] = routes
    count = index.new_full((batch, 1, regions), routes.shape[-1])
    none = torch.zeros_like(count), torch.zeros_like(index)
    mask = BlockMask.from_kv_blocks(*none, count, index, BLOCK_SIZE=(tokens, k.shape[2]))
    q, k, v = (x.flatten(1, 2).unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    attended = _compiled()(q, k, v, block_mask=mask, scale=scale)
    return attended.transpose(1, 2).reshape(batch, regions, tokens, -1)


@functools.cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415

    return torch.compile(flex_attention, dynamic=False)
