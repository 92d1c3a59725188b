"""Compare the speed of AMGCFN with its literal equations and print the results as CSV.

    python amgcfn/benchmark.py --threads 2 --output runs/speed.csv                 a scene of Pavia University's size
    python amgcfn/benchmark.py --size 145 --part networks
    python amgcfn/benchmark.py --device cuda --output amgcfn/results/gpu.csv

- `networks`: a training epoch is forward, backward and Adam's step on the whole scene. The literal network has the same
  modules and weights, but multiplies by the dense assignment matrix, as released; at the default size it needs 7 GB.
- `parts`: from superpixels to hop matrices, on the CPU; the literal form visits windows and paths one by one. PCA and
  SLIC, which both forms share, have a row of their own.

Items are pixels. There is no data loader, because a scene is one batch. `common.measuring.benchmarking` explains the
columns. Run it on an otherwise idle machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

import amgcfn.literal
from amgcfn import AMGCFN, SuperpixelGraph
from amgcfn.graph import standardise, superpixel_adjacency, superpixel_means, superpixels
from amgcfn.hops import hop_graphs
from amgcfn.literal import one_hot
from common.errors import command
from common.hyperspectral.classification.transforms import fit_pca
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.racing import Work

HOPS = 3
_CLASSES, _BANDS = 9, 103
_LABELLED = 91
"""Training pixels of Pavia University."""


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """Measure a training epoch."""
    yield from benchmark.race(lambda: epochs(benchmark))


def epochs(benchmark: Benchmark) -> list[Work]:
    """Return the literal form and ours on the same scene."""
    cube, _, graph = random_scene(*shape(benchmark))
    device = benchmark.device
    features, segments, hops = graph.tensors(device)
    scene = torch.from_numpy(cube.astype(np.float32)).to(device)
    pixels = torch.randperm(segments.numel(), generator=torch.Generator().manual_seed(0))[:_LABELLED].to(device)
    classes = (torch.arange(_LABELLED) % _CLASSES).to(device)

    def trainer(form: str) -> Work:
        torch.manual_seed(0)
        model = AMGCFN(_BANDS, _CLASSES).to(device)
        optimizer = Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)
        arguments: tuple[Any, ...] = scene, features, segments, [hop.to_dense() for hop in hops]
        if form == "literal":  # the release keeps its assignment matrix
            network: Any = partial(amgcfn.literal.network, model, assignment=one_hot(segments, len(features)))
        else:
            network, arguments = model, (scene, features, segments, hops)

        def epoch() -> None:
            logits = network(*arguments)
            loss = torch.stack([F.cross_entropy(one[pixels], classes, reduction="sum") for one in logits]).sum()
            with torch.autocast(device.type, enabled=False):
                loss.backward()
            optimizer.step()

        setting = f"{cube.shape[0]}x{cube.shape[1]}x{_BANDS}, {len(features)} superpixels"
        return Work("training epoch", form, setting, segments.numel(), epoch, model)

    return [trainer("literal"), trainer("ours")]


def graph(benchmark: Benchmark) -> Iterator[Row]:
    """Measure the graph, always on the CPU."""
    yield from benchmark.race(lambda: graphs(benchmark))
    yield from benchmark.race(lambda: [slic(benchmark)])


def graphs(benchmark: Benchmark) -> list[Work]:
    """Return the computation of hop matrices from superpixels in both forms."""
    _, colours, made = random_scene(*shape(benchmark))
    segments = made.segments

    def ours() -> Tensor:
        features = superpixel_means(colours, segments)
        hops = hop_graphs(superpixel_adjacency(segments, features), HOPS)
        return torch.from_numpy(dense(hops[-1]))

    def loops() -> Tensor:
        features = amgcfn.literal.superpixel_means(colours, segments)
        adjacency = amgcfn.literal.superpixel_adjacency(segments, features)
        return torch.from_numpy(dense([amgcfn.literal.hop_graph(adjacency, k) for k in range(1, HOPS + 1)][-1]))

    setting = f"from {len(made.features)} superpixels, on the CPU"
    runs = {"literal": loops, "ours": ours}
    return [Work("graph", form, setting, segments.size, run) for form, run in runs.items()]


def slic(benchmark: Benchmark) -> Work:
    """Return the steps before the graph, PCA and SLIC."""
    cube, _, _ = random_scene(*shape(benchmark))

    def run() -> None:
        superpixels(standardise(fit_pca(cube, 3).apply(cube)))

    return Work("PCA and SLIC", "ours", "on the CPU", cube.shape[0] * cube.shape[1], run)


def shape(benchmark: Benchmark) -> tuple[int, int]:
    """Return rows and columns: those of Pavia University, or `--size` for both."""
    small, pavia = (48, 40), (610, 340)
    height, width = benchmark.pick(small=small, cpu=pavia, gpu=pavia)
    return benchmark.size(height), benchmark.size(width)


@cache
def random_scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray, SuperpixelGraph]:
    """Return a cube `(H, W, bands)` of smooth fields with noise, int16, its standardised components and its graph."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    fields = [np.sin(rows / a + columns / b) for a, b in generator.uniform(12, 60, (5, 2))]
    mixture = generator.standard_normal((5, _BANDS)).cumsum(axis=1) / _BANDS**0.5
    mixed = np.stack(fields, axis=2) @ mixture + 0.05 * generator.standard_normal((height, width, _BANDS))
    cube = np.rint(4000 + 1000 * mixed).clip(0, 8000).astype(np.int16)
    colours = standardise(fit_pca(cube, 3).apply(cube))
    segments = superpixels(colours)
    features = superpixel_means(colours, segments)
    adjacency = superpixel_adjacency(segments, features)
    return cube, colours, SuperpixelGraph(segments, features, adjacency, tuple(hop_graphs(adjacency, HOPS)))


def dense(matrix: Any) -> np.ndarray:
    """Return a sparse or dense matrix as a dense array."""
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix)


@command
def main() -> None:
    """Measure and print all rows."""
    Benchmark(__doc__, networks=networks, parts=graph).run()


if __name__ == "__main__":
    main()
