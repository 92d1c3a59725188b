"""Save memory in training: the backward pass recomputes intermediate results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def recomputed(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """Return `function(*tensors)` and store only `tensors` for the backward pass.

    Unlike `torch.utils.checkpoint`, it does not load torch's compiler, its forward pass can use faster operators
    without gradients, and it detects if a tensor is changed before the backward pass.

    Args:
        function: returns the same result in every call, and uses no other tensor that needs a gradient.
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
        if not twice:  # without second derivatives the graph ends at these tensors
            tensors = [
                tensor if tensor is None else tensor.detach().requires_grad_(wanted)
                for tensor, wanted in zip(tensors, needed, strict=True)
            ]
        with torch.enable_grad():
            result = ctx.function(*tensors)
        learning = [tensor for tensor, wanted in zip(tensors, needed, strict=True) if wanted]
        grads = iter(torch.autograd.grad(result, learning, grad, create_graph=twice))
        return None, *(next(grads) if wanted else None for wanted in needed)
