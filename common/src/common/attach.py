"""Attach a block behind a named layer of any trained network, whose own weights stay as they are.

    network = torchvision.models.resnet50(weights="DEFAULT")
    attach(network, "layer3.5", BRABlock(1024))

The block becomes a child module of the layer and runs as the layer's forward hook. So every tensor keeps its name,
trained weights load as before, and a block whose gain starts at zero changes nothing at the start. Training,
`deepcopy`, averaging of weights, pickling, tracing and export still work.
"""

from __future__ import annotations

import difflib
from typing import TypeVar

import torch
from torch import Tensor, nn

NAME = "attached"
"""The child's name: tensors of the block are called `<layer>.attached.<tensor>`."""

Block = TypeVar("Block", bound=nn.Module)


class _BlockHook:
    """Passes the layer's output to the block. A class, so that networks can be copied and pickled."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"{self.layer} returns {found}; a block needs a layer that returns a map (B, C, H, W)")
        return module.get_submodule(NAME)(output)


def attach(network: nn.Module, layer: str, block: Block) -> Block:
    """Let `block` process the output of a layer; the network is changed in place.

    Args:
        network: any module.
        layer: the layer's dotted name, as in `dict(network.named_modules())`; it returns a feature map `(B, C, H, W)`.
        block: `(B, C, H, W)` → the same shape; moved to the layer's device and floating type.

    Returns:
        the block.

    Raises:
        ValueError: the layer does not exist (the message lists similar names) or has a block already.
        TypeError: on the first forward pass, when the layer's output is not a feature map. The block itself refuses
            another number of channels.
    """
    modules = dict(network.named_modules())
    if not layer or layer not in modules:
        similar = ", ".join(difflib.get_close_matches(layer, modules, n=4, cutoff=0.3)) or ", ".join(list(modules)[1:5])
        raise ValueError(f"no layer {layer!r} in {type(network).__name__}; similar names: {similar}")
    target = modules[layer]
    if NAME in target._modules:
        raise ValueError(f"{layer} has a block already; detach it first")
    weight = next((tensor for tensor in target.parameters() if tensor.is_floating_point()), None)
    if weight is not None:
        block.to(weight.device, weight.dtype)
    target.add_module(NAME, block)
    target.register_forward_hook(_BlockHook(layer))
    block.train(target.training)
    return block


def detach(network: nn.Module, layer: str) -> nn.Module:
    """Remove the block that was attached behind a layer.

    Returns:
        the block.

    Raises:
        ValueError: the layer has no block.
    """
    target = dict(network.named_modules()).get(layer)
    if target is None or NAME not in target._modules:
        raise ValueError(f"{type(network).__name__} has no block behind {layer!r}")
    for number, hook in list(target._forward_hooks.items()):
        if isinstance(hook, _BlockHook):
            del target._forward_hooks[number]
    block = target.get_submodule(NAME)
    del target._modules[NAME]
    return block


def gains(network: nn.Module) -> dict[str, float]:
    """Return layer name → mean absolute gain of its block: how strongly the trained network uses the block."""
    found = {}
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == NAME and isinstance(gain := getattr(module, "gain", None), Tensor):
            with torch.no_grad():
                found[name.removesuffix(f".{NAME}")] = gain.abs().mean().item()
    return found
