"""Less memory in training: intermediate results that the backward pass computes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def recomputed(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """`function(*tensors)`; of it only `tensors` are kept for the backward pass.

    Unlike `torch.utils.checkpoint` it does not load torch's compiler, its forward pass takes the products that need
    no gradient, and it notices when a tensor is changed in between.

    Args:
        function: the same result in every call; it uses no other tensor that needs a gradient.
    """
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _Recomputed.apply(function, *tensors)
    return function(*tensors)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        needed = ctx.needs_input_grad[1:]
        tensors, twice = ctx.saved_tensors, torch.is_grad_enabled()
        if not twice:  # no second derivative is wanted: the graph ends at these tensors
            tensors = [
                tensor if tensor is None else tensor.detach().requires_grad_(wanted)
                for tensor, wanted in zip(tensors, needed, strict=True)
            ]
        with torch.enable_grad():
            result = ctx.function(*tensors)
        learning = [tensor for tensor, wanted in zip(tensors, needed, strict=True) if wanted]
        grads = iter(torch.autograd.grad(result, learning, grad, create_graph=twice))
        return None, *(next(grads) if wanted else None for wanted in needed)
