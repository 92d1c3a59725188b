"""Attention to routed regions, with the implementation that fits the tensors.

BiFormer (Zhu et al., CVPR 2023, arXiv 2303.08810), equations 5 and 6. The authors copy keys and values (`literal`) and
list a fused implementation as future work. On a GPU, Triton kernels read keys and values through the routing table
(`triton_launch`). They are registered as PyTorch operators, so that torch.compile and autograd can use them. Elsewhere
PyTorch's fused attention is used (`plain`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from biformer.fast.plain import plain_routed_attention

_HAS_TRITON = find_spec("triton") is not None
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LARGEST_HEAD = 256


def routed_attention(  # noqa: PLR0917 - six operands
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Softmax attention of the tokens of each region to all tokens of its routed regions, for each head.

        out[r] = softmax(scale · q[r] [k[i₁], …, k[i_k]]ᵀ) [v[i₁], …, v[i_k]],   i = routes[r]

    Args:
        q: (B, R, T, C) queries: R regions row by row with T tokens each; C has the channels of all heads in turn.
        k: (B, R, Tk, C) keys; Tk differs from T if keys are pooled.
        v: (B, R, Tk, C) values.
        routes: (B, R, top_k) int64, the regions (0 to R - 1) that each query region attends to, all different.
        num_heads: number of heads; divides C.
        scale: factor of the products of queries and keys.

    Returns:
        (B, R, T, C), differentiable in q, k and v.
    """
    if triton_fits(q, k, v, num_heads):
        return torch.ops.biformer.routed_attention(q, k, v, routes, num_heads, scale)[0]
    return plain_routed_attention(q, k, v, routes, num_heads, scale)


def triton_fits(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> bool:
    """Whether the Triton kernels accept these tensors: CUDA, one type of 16 or 32 bits, up to 256 channels per head."""
    if not (_HAS_TRITON and q.is_cuda and k.is_cuda and v.is_cuda):
        return False
    same = q.dtype == k.dtype == v.dtype and q.shape[-1] == k.shape[-1] == v.shape[-1]
    fits = q.dtype in _DTYPES and q.shape[-1] // num_heads <= _LARGEST_HEAD
    return same and fits and torch.cuda.get_device_capability(q.device) >= (8, 0)


@torch.library.custom_op("biformer::routed_attention", mutates_args=())
def _forward(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The output, and the log-sum-exp (base 2) of the products of each query, (B, R, num_heads, T)."""
    from biformer.fast import triton_launch  # noqa: PLC0415 - not called on machines without Triton

    return triton_launch.forward(q, k, v, routes, num_heads, scale)


@torch.library.custom_op("biformer::routed_attention_backward", mutates_args=())
def _backward(  # noqa: PLR0917
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
    """Gradients of q, k and v."""
    from biformer.fast import triton_launch  # noqa: PLC0415

    return triton_launch.backward(grad, q, k, v, routes, out, lse, num_heads, scale)


@_forward.register_fake
def _(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, routes: Tensor, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    batch, regions, tokens, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, regions, num_heads, tokens), dtype=torch.float32)


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.num_heads, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    dq, dk, dv = torch.ops.biformer.routed_attention_backward(grad, *ctx.saved_tensors, ctx.num_heads, ctx.scale)
    return dq, dk, dv, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)
