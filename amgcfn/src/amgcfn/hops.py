"""The k-hop graphs of a weighted graph (AMGCFN, IEEE TGRS 2023, section III-A, equation 5)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def hop_graphs(adjacency: sparse.sparray | np.ndarray, hops: int = 3) -> list[sparse.csr_array]:
    """Return the k-hop graphs for k = 1 … `hops` (equation 5 of the paper).

    The weight between two nodes is the largest mean edge weight over all simple paths of exactly k edges between them;
    nodes without such a path are not joined. Edges of weight 0 do not count. Every node is joined to itself with
    weight 1.

    All simple paths from a block of start nodes are extended together, one edge per round, without neighbours that the
    path has already visited. This is exact for any k. The cost is the number of simple paths, about 200 per node for
    k = 3, because superpixels have about six neighbours.

    Args:
        adjacency: `(N, N)` symmetric, non-negative, dense or sparse; the diagonal is ignored.
        hops: largest k, at least 1.
    """
    if hops < 1:
        raise ValueError(f"hops must be at least 1, got {hops}")
    graph = sparse.csr_array(adjacency).astype(np.float64)
    graph.setdiag(0)
    graph.eliminate_zeros()
    count = graph.shape[0]
    pieces: list[list[sparse.csr_array]] = [[] for _ in range(hops)]
    block = max(1, 2_000_000 // max(count, 1))  # number of start nodes at a time, which limits the size of `best`
    for first in range(0, count, block):
        starts = np.arange(first, min(first + block, count))
        visited = [starts]
        total = np.zeros(len(starts))
        for k in range(1, hops + 1):
            visited, total = _grow(graph, visited, total)
            best = np.zeros((len(starts), count))
            np.maximum.at(best, (visited[0] - first, visited[-1]), total / k)
            best[starts - first, starts] = 1.0
            pieces[k - 1].append(sparse.csr_array(best))
    return [sparse.csr_array(sparse.vstack(rows)) for rows in pieces]


def _grow(graph: sparse.csr_array, visited: list[np.ndarray], total: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Extend every path by every neighbour of its end that it has not visited.

    Args:
        visited: one array per step, `(paths,)` node ids.
        total: `(paths,)` sum of the edge weights.
    """
    begin, end = graph.indptr[visited[-1]], graph.indptr[visited[-1] + 1]
    degree = end - begin
    path = np.repeat(np.arange(len(total)), degree)
    edge = np.arange(degree.sum()) - np.repeat(np.cumsum(degree) - degree - begin, degree)
    node = graph.indices[edge].astype(np.int64)
    fresh = np.ones(len(node), dtype=bool)
    for step in visited[:-1]:  # the end itself cannot repeat: there are no self loops
        fresh &= node != step[path]
    path, edge, node = path[fresh], edge[fresh], node[fresh]
    return [*(step[path] for step in visited), node], total[path] + graph.data[edge]


def sparse_tensor(matrix: sparse.sparray, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a scipy matrix as a coalesced torch sparse tensor."""
    entries = matrix.tocoo()
    indices = torch.from_numpy(np.stack(entries.coords).astype(np.int64))
    values = torch.from_numpy(entries.data).to(dtype)
    return torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=True).coalesce()
