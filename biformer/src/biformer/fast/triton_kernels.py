"""Triton kernels of attention to routed regions; import only where Triton is installed.

The release has no such kernels: BiFormer's authors gather keys and values (`literal`) and list a fused implementation
as future work. Here keys and values are read through the routing table, the softmax is computed online, and the
backward pass computes the weights again from their log-sum-exp, as in FlashAttention-2 (Dao, arXiv 2307.08691).
Gradients are summed in a fixed order, without atomic operations.

A program has a tile of *rows*, which are the tokens of one region for one or several heads. It processes *columns*, the
tokens of other regions, in blocks. If a region has fewer than 16 tokens, a tile has the rows of several heads, to fill
the 16 rows of a tensor core. A row is zero in the channels of the other heads, so one product over the channels of all
heads of the tile gives the correct result for every row, and keys are read once for all heads. In the forward pass and
for the gradient of q, rows are queries and columns are keys of the routed regions. For the gradients of k and v, rows
are keys and columns are queries of all regions that selected the region of the keys.
"""

# ruff: noqa: PLR0917 - kernels have positional operands

# mypy: allow-untyped-defs, allow-incomplete-defs
# The operands of kernels are pointers and numbers without Python types.

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile(tokens, heads, WIDTH: tl.constexpr, PADDED: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
         ROWS: tl.constexpr):  # fmt: skip
    """The tile of this program: head and token of each row, position of each channel in a tensor, and which exist.

    The last value tells for which rows and channels the head is the same.
    """
    row = tl.arange(0, ROWS)
    head = tl.program_id(1) * HEADS + row // SLOTS
    token = tl.program_id(2) * SLOTS + row % SLOTS
    row_there = (row // SLOTS < HEADS) & (head < heads) & (token < tokens)
    column = tl.arange(0, HEADS * PADDED)
    channel_head = tl.program_id(1) * HEADS + column // PADDED
    channel = channel_head * WIDTH + column % PADDED
    channel_there = (column % PADDED < WIDTH) & (channel_head < heads)
    own = row_there[:, None] & channel_there[None, :] & (head[:, None] == channel_head[None, :])
    return head, token, row_there, channel, channel_there, own


@triton.jit
def load(pointer, place, channel, there):
    """Load the tokens at the positions `place` of a tensor, with zeros where `there` is false."""
    return tl.load(pointer + place[:, None] + channel[None, :], mask=there, other=0.0)


@triton.jit
def routed_columns(start, routes, place, top_k, key_tokens, COLUMNS: tl.constexpr):
    """Region and token of each key in this block of the routed regions' keys, and which keys exist."""
    column = start + tl.arange(0, COLUMNS)
    there = column < top_k * key_tokens
    region = tl.load(routes + place * top_k + column // key_tokens, mask=there, other=0)
    return region, column % key_tokens, there


@triton.jit
def forward_kernel(
    q, k, v, routes, out, lse,
    q_batch, q_region, q_token, k_batch, k_region, k_token, v_batch, v_region, v_token,
    regions, tokens, key_tokens, top_k, heads, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp (base 2) for the queries of one region."""
    place = tl.program_id(0).to(tl.int64)
    batch, region = place // regions, place % regions
    head, token, row_there, channel, channel_there, own = tile(tokens, heads, WIDTH, PADDED, HEADS, SLOTS, ROWS)
    queries = load(q, batch * q_batch + region * q_region + token * q_token, channel, own)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, HEADS * PADDED], tl.float32)
    for start in range(0, top_k * key_tokens, COLUMNS):
        source, key, column_there = routed_columns(start, routes, place, top_k, key_tokens, COLUMNS)
        there = column_there[:, None] & channel_there[None, :]
        keys = load(k, batch * k_batch + source * k_region + key * k_token, channel, there)
        values = load(v, batch * v_batch + source * v_region + key * v_token, channel, there)
        products = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (scale * LOG2E)
        products = tl.where(column_there[None, :], products, float("-inf"))
        higher = tl.maximum(highest, tl.max(products, 1))
        weights = tl.exp2(products - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        result = result * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
        highest = higher
    result = result / total[:, None]
    at = (place * tokens + token[:, None]) * heads * WIDTH + channel[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=own)
    tl.store(lse + (place * heads + head) * tokens + token, highest + tl.log2(total), mask=row_there)


@triton.jit
def query_gradient_kernel(
    grad, q, k, v, routes, out, lse, delta, dq,
    g_batch, g_region, g_token, q_batch, q_region, q_token,
    k_batch, k_region, k_token, v_batch, v_region, v_token,
    regions, tokens, key_tokens, top_k, heads, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the queries of one region, and `delta` = Σ output · gradient of the output for the keys' kernel."""
    place = tl.program_id(0).to(tl.int64)
    batch, region = place // regions, place % regions
    head, token, row_there, channel, channel_there, own = tile(tokens, heads, WIDTH, PADDED, HEADS, SLOTS, ROWS)
    queries = load(q, batch * q_batch + region * q_region + token * q_token, channel, own)
    upstream = load(grad, batch * g_batch + region * g_region + token * g_token, channel, own)
    packed = (place * tokens + token[:, None]) * heads * WIDTH + channel[None, :]
    attended = tl.load(out + packed, mask=own, other=0.0)
    overlap = tl.sum(attended.to(tl.float32) * upstream.to(tl.float32), 1)
    at = (place * heads + head) * tokens + token
    tl.store(delta + at, overlap, mask=row_there)
    level = tl.load(lse + at, mask=row_there, other=0.0)
    result = tl.zeros([ROWS, HEADS * PADDED], tl.float32)
    for start in range(0, top_k * key_tokens, COLUMNS):
        source, key, column_there = routed_columns(start, routes, place, top_k, key_tokens, COLUMNS)
        there = column_there[:, None] & channel_there[None, :]
        keys = load(k, batch * k_batch + source * k_region + key * k_token, channel, there)
        values = load(v, batch * v_batch + source * v_region + key * v_token, channel, there)
        products = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
        # Columns that do not exist have keys of zero, so they do not change the sum below.
        weights = tl.exp2(products * (scale * LOG2E) - level[:, None])
        slope = weights * (tl.dot(upstream, tl.trans(values), input_precision=PRECISION) - overlap[:, None])
        result += tl.dot(slope.to(keys.dtype), keys, input_precision=PRECISION)
    tl.store(dq + packed, (result * scale).to(dq.dtype.element_ty), mask=own)


@triton.jit
def key_gradient_kernel(
    grad, q, k, v, choosers, chosen, lse, delta, dk, dv,
    g_batch, g_region, g_token, q_batch, q_region, q_token,
    k_batch, k_region, k_token, v_batch, v_region, v_token,
    regions, tokens, key_tokens, heads, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and values of one region, from the regions in `choosers`, which selected it."""
    place = tl.program_id(0).to(tl.int64)
    batch, region = place // regions, place % regions
    head, token, row_there, channel, channel_there, own = tile(key_tokens, heads, WIDTH, PADDED, HEADS, SLOTS, ROWS)
    keys = load(k, batch * k_batch + region * k_region + token * k_token, channel, own)
    values = load(v, batch * v_batch + region * v_region + token * v_token, channel, own)
    key_result = tl.zeros([ROWS, HEADS * PADDED], tl.float32)
    value_result = tl.zeros([ROWS, HEADS * PADDED], tl.float32)
    columns = tl.load(chosen + place) * tokens
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        column_there = column < columns
        query = column % tokens
        source = tl.load(choosers + place * regions + column // tokens, mask=column_there, other=0).to(tl.int64)
        there = column_there[:, None] & channel_there[None, :]
        queries = load(q, batch * q_batch + source * q_region + query * q_token, channel, there)
        upstream = load(grad, batch * g_batch + source * g_region + query * g_token, channel, there)
        pair = ((batch * regions + source)[None, :] * heads + head[:, None]) * tokens + query[None, :]
        there = row_there[:, None] & column_there[None, :]
        level = tl.load(lse + pair, mask=there, other=0.0)
        overlap = tl.load(delta + pair, mask=there, other=0.0)
        products = tl.dot(keys, tl.trans(queries), input_precision=PRECISION)
        weights = tl.exp2(products * (scale * LOG2E) - level)
        value_result += tl.dot(weights.to(upstream.dtype), upstream, input_precision=PRECISION)
        slope = weights * (tl.dot(values, tl.trans(upstream), input_precision=PRECISION) - overlap)
        key_result += tl.dot(slope.to(queries.dtype), queries, input_precision=PRECISION)
    at = (place * key_tokens + token[:, None]) * heads * WIDTH + channel[None, :]
    tl.store(dk + at, (key_result * scale).to(dk.dtype.element_ty), mask=own)
    tl.store(dv + at, value_result.to(dv.dtype.element_ty), mask=own)


@triton.jit
def invert_kernel(routes, choosers, chosen, regions, top_k, REGIONS: tl.constexpr):
    """List the regions that selected one region, in ascending order, and their number."""
    place = tl.program_id(0).to(tl.int64)
    batch, region = place // regions, place % regions
    query = tl.arange(0, REGIONS)
    there = query < regions
    chose = tl.zeros([REGIONS], tl.int32)
    for choice in range(top_k):
        route = tl.load(routes + (batch * regions + query) * top_k + choice, mask=there, other=-1)
        chose += (route == region).to(tl.int32)
    position = tl.cumsum(chose, 0) - chose
    tl.store(choosers + place * regions + position, query, mask=chose > 0)
    tl.store(chosen + place, tl.sum(chose, 0))
