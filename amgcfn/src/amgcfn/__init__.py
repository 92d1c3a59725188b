"""AMGCFN (IEEE TGRS 2023): attention multihop graph and multiscale convolutional fusion network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amgcfn.attention import NodeAttention, PixelAttention
    from amgcfn.cafm import CAFM
    from amgcfn.checkpoints import convert_released, create_model, list_models, load_model
    from amgcfn.graph import SuperpixelGraph, build_graph
    from amgcfn.graph_convolution import GraphConvolution
    from amgcfn.model import AMGCFN

__all__ = [
    "AMGCFN",
    "CAFM",
    "GraphConvolution",
    "NodeAttention",
    "PixelAttention",
    "SuperpixelGraph",
    "build_graph",
    "convert_released",
    "create_model",
    "list_models",
    "load_model",
]

_MODULES = {
    "AMGCFN": "model",
    "CAFM": "cafm",
    "GraphConvolution": "graph_convolution",
    "NodeAttention": "attention",
    "PixelAttention": "attention",
    "SuperpixelGraph": "graph",
    "build_graph": "graph",
    "convert_released": "checkpoints",
    "create_model": "checkpoints",
    "list_models": "checkpoints",
    "load_model": "checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `amgcfn.blocks` then needs no more than torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'amgcfn' has no attribute {name!r}")
    value = getattr(import_module(f"amgcfn.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
