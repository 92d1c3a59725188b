"""The attention on a CPU in float32 or float64: the result of `LSGAttention.forward` in 0.6 of its time.

Tokens are the last axis, `(B, C, N)`, so that the narrow axis of a head (10 channels as released) is never the inner
axis of a matrix product. The N × N matrices are computed, used and stored in pieces that fit into the cache. GPUs,
compilers, exporters, autocast and half precision use PyTorch's own attention instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from lsgavit.attention import LSGAttention

_HEADS_PER_THREAD = 24
"""Heads whose N × N matrices a thread computes at a time: with 81 tokens 0.6 MB, which fits into its cache."""


def suits(x: Tensor) -> bool:
    """Whether to use `attention` for this input: eager mode, on a CPU, float32 or float64."""
    # Tracers, such as the older ONNX exporter, treat the results of operators that they do not see as constants.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and full and not traced


def attention(module: LSGAttention, x: Tensor) -> Tensor:
    """Compute `LSGAttention.forward` of `(B, N, C)`."""
    batch = len(x)
    # Weights are expanded over the batch, because flattening the batch would copy x.
    if module.mix_tokens is not None and module.mix_channels is not None:
        mixing = F.linear(x, module.mix_tokens).softmax(dim=1)  # Aᵀ: columns sum to 1
        x = (x @ module.mix_channels).transpose(1, 2) @ mixing
    else:
        x = x.transpose(1, 2)
    weight, bias = module.qkv.weight.expand(batch, -1, -1), module.qkv.bias[None, :, None]
    q = torch.baddbmm(bias, weight, x)
    q, k, v = (q, x, x) if module.light else q.chunk(3, dim=1)
    x = attend(q, k, v, module.num_heads, module.bias).transpose(1, 2)
    return torch.baddbmm(module.out.bias[None, None], x, module.out.weight.T.expand(batch, -1, -1))


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention with tokens last: softmax over keys of `kᵀ q / √d + biasᵀ`, applied to v.

    Args:
        q, k, v: `(B, C, N)`; head h has the channels [h · d, (h + 1) · d).
        bias: `(N, N)`, query by key, constant, or None.

    Returns:
        `(B, C, N)`.
    """
    batch, dim, tokens = q.shape
    bias = q.new_zeros(tokens, tokens) if bias is None else bias.T.contiguous()
    heads = (batch * num_heads, dim // num_heads, tokens)
    return _Attend.apply(*(part.reshape(heads) for part in (q, k, v)), bias).view(batch, dim, tokens)


class _Attend(torch.autograd.Function):
    """Attention of `(heads, d, N)` in cache-sized pieces; stores the attention weights for the backward pass.

    The CPU kernel of `scaled_dot_product_attention` is slow for heads as narrow as 10 channels.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        scale = q.shape[1] ** -0.5
        out, kept = torch.empty(q.shape, dtype=q.dtype), []
        needed = any(ctx.needs_input_grad)
        ctx.pieces = _pieces(len(q))
        for piece in ctx.pieces:
            weights = torch.baddbmm(bias, k[piece].transpose(1, 2), q[piece], alpha=scale)
            torch.softmax(weights, 1, out=weights)  # over keys
            torch.bmm(v[piece], weights, out=out[piece])
            if needed:
                kept.append(weights)
        if needed:
            ctx.save_for_backward(q, k, v, bias, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, bias, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return (*_differentiable_backward(q, k, v, bias, gradient), None)
        scale = q.shape[1] ** -0.5
        dq, dk, dv = (torch.empty(q.shape, dtype=q.dtype) for _ in range(3))
        for piece, weights in zip(ctx.pieces, kept, strict=True):
            torch.bmm(gradient[piece], weights.transpose(1, 2), out=dv[piece])
            dlogits = torch.bmm(v[piece].transpose(1, 2), gradient[piece])
            dlogits = torch._softmax_backward_data(dlogits, weights, 1, weights.dtype)
            torch.bmm(k[piece], dlogits, out=dq[piece])
            torch.bmm(q[piece], dlogits.transpose(1, 2), out=dk[piece])
        return dq.mul_(scale), dk.mul_(scale), dv, None


def _differentiable_backward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same gradients, from operations that autograd can differentiate, for all heads at once."""
    scale = q.shape[1] ** -0.5
    weights = (k.transpose(1, 2) @ q * scale + bias).softmax(dim=1)
    dweights = v.transpose(1, 2) @ gradient
    dlogits = weights * (dweights - (weights * dweights).sum(dim=1, keepdim=True))
    return k @ dlogits * scale, q @ dlogits.transpose(1, 2) * scale, gradient @ weights.transpose(1, 2)


def _pieces(heads: int) -> list[slice]:
    size = _HEADS_PER_THREAD * torch.get_num_threads()
    return [slice(start, start + size) for start in range(0, heads, size)]
