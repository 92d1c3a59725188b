"""Tile sizes and launches of the Triton kernels; import only where Triton is installed."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from biformer.fast import triton_kernels as kernels

# Chosen from the compiler's reports for sm_80 and sm_90, not from timings: almost no spilled registers for heads of up
# to 128 channels, and less than the 99 KiB of shared memory of consumer cards for heads of up to 256.
_TILE_BYTES = 16384
_REGISTERS = 96


def forward(  # noqa: PLR0917 - the operator's operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The output of `routing.routed_attention`, and the log-sum-exp (B, R, num_heads, T), base 2, float32."""
    q, k, v = _dense(q), _dense(k), _dense(v)
    batch, regions, tokens, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((batch, regions, num_heads, tokens), dtype=torch.float32, device=q.device)
    grid, tile = tiling(q, tokens, num_heads)
    with _device(q):
        kernels.forward_kernel[grid](
            q, k, v, routes.contiguous(), out, lse, *_strides(q, k, v),
            regions, tokens, k.shape[2], routes.shape[2], num_heads, scale, **tile,
        )  # fmt: skip
    return out, lse


def backward(  # noqa: PLR0917 - the operator's operands
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    routes: Tensor,
    out: Tensor,
    lse: Tensor,
    num_heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v for the gradient `grad` of the output."""
    grad, q, k, v, routes = _dense(grad), _dense(q), _dense(k), _dense(v), routes.contiguous()
    batch, regions, tokens, _ = q.shape
    key_tokens, top_k = k.shape[2], routes.shape[2]
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(lse)
    choosers = torch.empty((batch, regions, regions), dtype=torch.int32, device=q.device)
    chosen = torch.empty((batch, regions), dtype=torch.int32, device=q.device)
    strides = _strides(grad, q, k, v)
    with _device(q):
        kernels.invert_kernel[(batch * regions,)](
            routes, choosers, chosen, regions, top_k, REGIONS=triton.next_power_of_2(regions)
        )
        grid, tile = tiling(q, tokens, num_heads, tensors=2)
        kernels.query_gradient_kernel[grid](
            grad, q, k, v, routes, out, lse, delta, dq, *strides,
            regions, tokens, key_tokens, top_k, num_heads, scale, **tile,
        )  # fmt: skip
        grid, tile = tiling(k, key_tokens, num_heads, tensors=2)
        kernels.key_gradient_kernel[grid](
            grad, q, k, v, choosers, chosen, lse, delta, dk, dv, *strides,
            regions, tokens, key_tokens, num_heads, scale, **tile,
        )  # fmt: skip
    return dq, dk, dv


def tiling(x: Tensor, tokens: int, num_heads: int, tensors: int = 1) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Grid and constants of a kernel whose rows are the tokens of the regions of `x`.

    Args:
        x: (B, R, tokens, C).
        tokens: number of tokens of a region.
        num_heads: number of heads.
        tensors: number of tiles with rows, without accumulators: 1 for the forward pass, 2 for the backward pass.
    """
    width = x.shape[-1] // num_heads
    padded = max(16, triton.next_power_of_2(width))
    most = 64 if x.element_size() == 2 else 32
    size = x.element_size() * tensors
    slots = min(triton.next_power_of_2(tokens), most, _fitting(padded * size))
    heads = max(1, min(triton.next_power_of_2(num_heads), 16 // slots, 128 // padded))
    rows, columns = max(16, slots * heads), min(most, _fitting(heads * padded * size))
    grid = (x.shape[0] * x.shape[1], triton.cdiv(num_heads, heads), triton.cdiv(tokens, slots))
    numbers = 2 * rows * columns + x.element_size() * (rows + columns) * heads * padded // 2
    constants: dict[str, Any] = {
        "WIDTH": width,
        "PADDED": padded,
        "HEADS": heads,
        "SLOTS": slots,
        "ROWS": rows,
        "COLUMNS": columns,
        "PRECISION": "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "num_warps": min(8, max(2, triton.next_power_of_2(triton.cdiv(numbers, 32 * _REGISTERS)))),
        "num_stages": 2,
    }
    return grid, constants


def _fitting(bytes_per_row: int) -> int:
    """Number of rows of a tile, a power of two from 16 (the rows of a tensor core) to 64."""
    return max(16, min(64, _TILE_BYTES // triton.next_power_of_2(bytes_per_row)))


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [step for x in tensors for step in x.stride()[:3]]


def _device(x: Tensor) -> Any:
    """A context with the tensor's device; Triton launches kernels on the current device."""
    return torch.cuda.device_of(x)
