"""The memory that a training step stores between its forward and its backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def kept_for_backward(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> int:
    """Return the bytes that the forward pass of `run` stores for the backward pass, without the weights of `module`."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage  # stored, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run(x)
    assert result.requires_grad
    return sum(storage.nbytes() for storage in storages.values())
