"""Graph and network as in the release, with loops and dense matrices, for tests and the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from amgcfn.convolution import ConvolutionLevel
    from amgcfn.model import AMGCFN


def network(
    model: AMGCFN,
    cube: Tensor,
    node_features: Tensor,
    segments: Tensor,
    hops: Sequence[Tensor],
    *,
    assignment: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits as the paper writes them, with a dense assignment matrix and full maps.

    Args:
        model: the network whose modules are used.
        assignment: `(H·W, N)` one-hot rows, by default made from `segments`; other arguments as in `AMGCFN.forward`.
    """
    if assignment is None:
        assignment = one_hot(segments, len(node_features), cube.dtype)
    graph = assignment @ model.graph_branch(node_features, hops)
    x = cube
    for level in model.levels:
        x = convolution_level(cast("ConvolutionLevel", level), x)
    conv = model.pixel_attention(x.permute(2, 0, 1)[None])
    conv, graph = model.fusion(conv, graph.T.reshape(1, -1, *segments.shape))
    conv, graph = (branch.flatten(2)[0].T for branch in (conv, graph))
    fused = model.fused_classifier(torch.cat([graph, conv], dim=1))
    return fused, model.conv_classifier(conv), model.graph_classifier(graph)


def convolution_level(level: ConvolutionLevel, x: Tensor) -> Tensor:
    """Apply a level block by block; `(H, W, C)` as in `ConvolutionLevel`."""
    maps = [block(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0) for block in level.blocks]
    return torch.cat(maps, dim=2) if level.concatenate else maps[0] + maps[1] + maps[2]


def one_hot(segments: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the dense `(H·W, count)` assignment matrix Q."""
    assignment = torch.zeros(segments.numel(), count, dtype=dtype, device=segments.device)
    return assignment.scatter_(1, segments.reshape(-1, 1), 1)


def superpixel_means(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Average `(H, W, F)` values over superpixels, one mask at a time; `(N, F)`."""
    return np.stack([values[segments == label].mean(axis=0) for label in range(int(segments.max()) + 1)])


def superpixel_adjacency(segments: np.ndarray, features: np.ndarray, *, sigma: float = 5.0) -> np.ndarray:
    """Visit every 2×2 window except those that start in the last two rows or columns; dense `(N, N)`."""
    height, width = segments.shape
    adjacency = np.zeros((len(features), len(features)))
    for row in range(height - 2):
        for column in range(width - 2):
            window = segments[row : row + 2, column : column + 2]
            low, high = np.min(window), np.max(window)
            if low == high or adjacency[low, high] != 0:
                continue
            weight = np.exp(-np.sum(np.square(features[low] - features[high])) / sigma**2)
            adjacency[low, high] = adjacency[high, low] = weight
    return adjacency


def hop_graph(adjacency: np.ndarray, hop: int) -> np.ndarray:
    """Largest mean edge weight over simple paths of exactly `hop` edges, by depth-first search; dense `(N, N)`."""
    count = len(adjacency)
    neighbours = [[n for n in np.flatnonzero(adjacency[node]).tolist() if n != node] for node in range(count)]
    best = np.eye(count)

    def visit(path: list[int], total: float) -> None:
        if len(path) == hop + 1:
            start, end = path[0], path[-1]
            best[start, end] = max(best[start, end], total / hop)
            return
        for node in neighbours[path[-1]]:
            if node not in path:
                visit([*path, node], total + adjacency[path[-1], node])

    for start in range(count):
        visit([start], 0.0)
    return best
