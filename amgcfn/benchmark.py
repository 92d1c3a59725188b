"""Measure AMGCFN against the literal equations; printed as CSV.

    python amgcfn/benchmark.py --threads 2 --output amgcfn/results/speed_cpu.csv    a scene of Pavia University's size
    python amgcfn/benchmark.py --size 145 --part networks
    python amgcfn/benchmark.py --device cuda --output amgcfn/results/gpu.csv

`networks`: a training epoch is forward, backward and Adam's step on the whole scene. The literal network has the same
parts and weights, but multiplies with the dense assignment matrix, as released; at the default size it needs 7 GB.
`parts`: on the CPU, from superpixels to hop matrices; the literal form visits windows and paths one by one. PCA and
SLIC, the same code on both sides, are a row of their own. Items are pixels. There is no loader: a scene is one batch.
The columns are explained in `common.measuring.benchmarking`. A quiet machine matters.
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
from amgcfn.graph import hop_graphs, standardise, superpixel_adjacency, superpixel_means, superpixels
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
    """A training epoch."""
    yield from benchmark.race(lambda: epochs(benchmark))


def epochs(benchmark: Benchmark) -> list[Work]:
    """Literal and ours on the same scene."""
    cube, _, graph = made_up(*shape(benchmark))
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
    """The graph; on the CPU wherever the network is."""
    yield from benchmark.race(lambda: graphs(benchmark))
    yield from benchmark.race(lambda: [slic(benchmark)])


def graphs(benchmark: Benchmark) -> list[Work]:
    """From superpixels to hop matrices."""
    _, colours, made = made_up(*shape(benchmark))
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
    """What comes before the graph."""
    cube, _, _ = made_up(*shape(benchmark))

    def run() -> None:
        superpixels(standardise(fit_pca(cube, 3).apply(cube)))

    return Work("PCA and SLIC", "ours", "on the CPU", cube.shape[0] * cube.shape[1], run)


def shape(benchmark: Benchmark) -> tuple[int, int]:
    """Pavia University's, or a square of `--size`."""
    small, pavia = (48, 40), (610, 340)
    height, width = benchmark.pick(small=small, cpu=pavia, gpu=pavia)
    return benchmark.size(height), benchmark.size(width)


@cache
def made_up(height: int, width: int) -> tuple[np.ndarray, np.ndarray, SuperpixelGraph]:
    """Smooth fields with noise, `(H, W, bands)` int16 of about 0 to 8000; its standardised components; its graph."""
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
    """Of a sparse or dense matrix."""
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix)


@command
def main() -> None:
    """Print the rows as they come, and keep them."""
    Benchmark(__doc__, networks=networks, parts=graph).run()


if __name__ == "__main__":
    main()
