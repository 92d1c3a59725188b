"""The graph construction as the release writes it, loop by loop: what `graph.py` is tested against.

The networks' literal forms stand beside the fast ones (`AMGCFN.literal`, `ConvolutionLevel.literal`).
"""

from __future__ import annotations

import numpy as np


def superpixel_means(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Average `(H, W, F)` values over superpixels, one mask at a time; `(N, F)`."""
    return np.stack([values[segments == label].mean(axis=0) for label in range(int(segments.max()) + 1)])


def superpixel_adjacency(segments: np.ndarray, features: np.ndarray, *, sigma: float = 5.0) -> np.ndarray:
    """Visit every 2×2 window but those of the last two rows and columns; dense `(N, N)`."""
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
    """Best mean edge weight over simple paths of exactly `hop` edges, by depth-first search; dense `(N, N)`."""
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
