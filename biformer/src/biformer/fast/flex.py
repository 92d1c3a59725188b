"""Attention to routed regions by PyTorch's `flex_attention`, to test and time our kernels against.

A route table is a block mask's index where a block is one region, so no mask is computed. It takes regions of a
power of two of tokens, from 16 on, and packs no heads, so stage 3 at 224 pixels is out of its reach; on a CPU it has no
gradient.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

SMALLEST = 16


def flex_fits(q: Tensor, k: Tensor) -> bool:
    """Whether the regions are blocks that it takes."""
    return all(x.shape[2] >= SMALLEST and x.shape[2] & (x.shape[2] - 1) == 0 for x in (q, k))


def flex_routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """As `routing.routed_attention`, where `flex_fits`; compiled at the first call of a shape."""
    from torch.nn.attention.flex_attention import BlockMask  # noqa: PLC0415 - loads the compiler

    batch, regions, tokens, _ = q.shape
    # Every row of the index names all regions; only its first `count` are attended to.
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
