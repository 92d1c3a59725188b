"""Graph convolution and the multihop block of AMGCFN (IEEE TGRS 2023, section III-B)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GraphConvolution(nn.Module):
    """One graph convolution, `A X W + b`.

    Args:
        in_features, out_features: channels of a node in input and output.

    Shape:
        `(N, in_features)` nodes and an `(N, N)` adjacency, dense or sparse; output
        `(N, out_features)`. Gradients flow to a dense adjacency, not to a sparse one.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        bound = out_features**-0.5  # as in the first graph convolution, Kipf and Welling 2017
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Mix `(N, in_features)` nodes over an `(N, N)` adjacency."""
        projected = nodes @ self.weight
        if adjacency.layout == torch.strided:
            return adjacency @ projected + self.bias
        if projected.dtype in (torch.float16, torch.bfloat16):  # sparse products need float32
            mixed = torch.sparse.mm(adjacency.float(), projected.float()).to(projected.dtype)
            return mixed + self.bias
        return torch.sparse.mm(adjacency, projected) + self.bias


class GraphBlock(nn.Module):
    """Two graph convolutions on one hop graph, each with LeakyReLU and dropout, residual, BatchNorm.

    Args:
        features: node channels.
        dropout: after each convolution.

    Shape:
        `(N, features)` nodes and an `(N, N)` hop graph; output `(N, features)`.
    """

    def __init__(self, features: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv1 = GraphConvolution(features, features)
        self.conv2 = GraphConvolution(features, features)
        self.norm = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, hop: Tensor) -> Tensor:
        """Mix `(N, features)` nodes over an `(N, N)` hop graph."""
        mixed = self.dropout(F.leaky_relu(self.conv1(nodes, hop)))
        mixed = self.dropout(F.leaky_relu(self.conv2(mixed, hop)))
        return self.norm(nodes + mixed)
