"""AMGCFN (IEEE TGRS 2023): attention multihop graph and multiscale convolutional fusion network."""

from typing import TYPE_CHECKING

from common.lazy import lazy

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

__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention": ("NodeAttention", "PixelAttention"),
        "cafm": ("CAFM",),
        "checkpoints": ("convert_released", "create_model", "list_models", "load_model"),
        "graph": ("SuperpixelGraph", "build_graph"),
        "graph_convolution": ("GraphConvolution",),
        "model": ("AMGCFN",),
    },
)
