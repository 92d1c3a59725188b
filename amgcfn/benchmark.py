"""Time and memory of AMGCFN against the literal equations, as CSV.

    python amgcfn/benchmark.py                              a scene of Pavia University's size, about two minutes
    python amgcfn/benchmark.py --height 145 --width 145 --bands 200 --num-classes 16
    python amgcfn/benchmark.py --no-literal                 ours alone

A training epoch is forward, backward and Adam's step on the whole scene. The literal network has
the same parts and weights, but multiplies with the dense assignment matrix, as released; the
literal graph visits windows and paths one by one. Both sides take turns in one process; times are
the smallest of all turns, memory is the largest resident size of the process (on CUDA: of its allocations).
`cpu_seconds` is processor time over all threads, which other programs disturb less.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim import Adam

import amgcfn.literal
from amgcfn import AMGCFN, SuperpixelGraph
from amgcfn.graph import hop_graphs, standardise, superpixel_adjacency, superpixel_means, superpixels
from amgcfn.literal import one_hot
from common import memory
from common.benchmarking import print_rows
from common.config import Positive, parse
from common.environment import choose_device
from common.environment import device as device_name
from common.errors import command
from common.hyperspectral.transforms import fit_pca

HOPS = 3


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Flags of this script."""

    height: Positive[int] = 610
    """Rows of the made-up scene."""
    width: Positive[int] = 340
    """Columns."""
    bands: Positive[int] = 103
    """Spectral bands."""
    num_classes: Positive[int] = 9
    """Classes."""
    epochs: Positive[int] = 3
    """Timed training epochs of each side, after one that is not timed."""
    literal: bool = True
    """Time the literal forms too; at the default size they need 7 GB."""
    threads: Positive[int] = 2
    """CPU threads."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    output: Path | None = None
    """Also write the rows to this CSV file."""


@command
def main() -> None:
    """Measure the graph, then the epochs of both sides in turn."""
    options = parse(BenchmarkConfig, __doc__)
    device = choose_device(options.device)
    torch.set_num_threads(options.threads)
    cube = made_up_scene(options.height, options.width, options.bands)
    graph, rows = measure_graph(cube, options.literal)
    rows += measure_epochs(cube, graph, options, device)
    note = f"{options.height}x{options.width}x{options.bands}, {len(graph.features)} superpixels"
    for row in rows:
        row |= {"scene": note, "device": device_name(device), "torch": torch.__version__}
    print_rows(rows, list(rows[0]), options.output)


def made_up_scene(height: int, width: int, bands: int) -> np.ndarray:
    """Smooth fields with noise, `(H, W, bands)` int16 of about 0 to 8000."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    fields = [np.sin(rows / a + columns / b) for a, b in generator.uniform(12, 60, (5, 2))]
    mixture = generator.standard_normal((5, bands)).cumsum(axis=1) / bands**0.5
    cube = np.stack(fields, axis=2) @ mixture + 0.05 * generator.standard_normal((height, width, bands))
    return np.rint(4000 + 1000 * cube).clip(0, 8000).astype(np.int16)


def measure_graph(cube: np.ndarray, literal: bool) -> tuple[SuperpixelGraph, list[dict[str, Any]]]:
    """Build the graph both ways; components and superpixels are the same code on both sides."""
    colours = standardise(fit_pca(cube, 3).apply(cube))
    segments = superpixels(colours)
    shared = min(Seconds.of(lambda: superpixels(standardise(fit_pca(cube, 3).apply(cube)))) for _ in range(2))

    def ours() -> tuple[Any, ...]:
        features = superpixel_means(colours, segments)
        adjacency = superpixel_adjacency(segments, features)
        return features, adjacency, hop_graphs(adjacency, HOPS)

    def loops() -> tuple[Any, ...]:
        features = amgcfn.literal.superpixel_means(colours, segments)
        adjacency = amgcfn.literal.superpixel_adjacency(segments, features)
        return features, adjacency, [amgcfn.literal.hop_graph(adjacency, k) for k in range(1, HOPS + 1)]

    best = {"ours": min(Seconds.of(ours) for _ in range(3))}
    if literal:
        best["literal"] = min(Seconds.of(loops) for _ in range(2))
    rows = []
    for what, extra in (("graph from superpixels", Seconds(0.0, 0.0)), ("graph with PCA and SLIC", shared)):
        rows += compared(what, {form: time + extra for form, time in best.items()}, {})
    features, adjacency, hops = ours()
    return SuperpixelGraph(segments, features, adjacency, tuple(hops)), rows


def measure_epochs(
    cube: np.ndarray, graph: SuperpixelGraph, options: BenchmarkConfig, device: torch.device
) -> list[dict[str, Any]]:
    """Train ours and the literal network in turn on 91 random pixels, Pavia University's number."""
    features, segments, hops = graph.tensors(device)
    scene = torch.from_numpy(cube.astype(np.float32)).to(device)
    pixels = torch.randperm(segments.numel(), generator=torch.Generator().manual_seed(0))[:91].to(device)
    classes = (torch.arange(91) % options.num_classes).to(device)

    def trainer(form: str) -> Callable[[], None]:
        torch.manual_seed(0)
        model = AMGCFN(options.bands, options.num_classes).to(device)
        optimizer = Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)
        dense = [hop.to_dense() for hop in hops] if form == "literal" else hops
        arguments = scene, features, segments, dense

        def epoch() -> None:
            # The release keeps Q; here it exists during the literal epochs only, outside of the time.
            if form == "literal":
                logits = amgcfn.literal.network(model, *arguments, assignment=assignment[0])
            else:
                logits = model(*arguments)
            loss = torch.stack([F.cross_entropy(one[pixels], classes, reduction="sum") for one in logits]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return epoch

    assignment: list[torch.Tensor] = []
    forms = ["ours", "literal"] if options.literal else ["ours"]
    epochs = {form: trainer(form) for form in forms}
    times: dict[str, list[Seconds]] = {form: [] for form in forms}
    peaks = dict.fromkeys(forms, 0.0)
    for _ in range(options.epochs + 1):
        for form in forms:
            gc.collect()
            memory.reset_peak(device)
            if form == "literal":
                assignment.append(one_hot(segments, len(features)))
            times[form].append(Seconds.of(epochs[form], device))
            peaks[form] = max(peaks[form], memory.peak(device) / 1e9)
            assignment.clear()
    return compared("training epoch", {form: min(times[form][1:]) for form in forms}, peaks)


class Seconds(NamedTuple):
    """Wall and processor time."""

    wall: float
    cpu: float

    @classmethod
    def of(cls, function: Callable[[], Any], device: torch.device | None = None) -> Seconds:
        """Time one call."""
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        return cls(time.perf_counter() - wall, time.process_time() - cpu)

    def __add__(self, other: Any) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


def compared(what: str, best: dict[str, Seconds], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """One CSV row per form; the last columns say how many times as long as ours."""
    return [
        {
            "what": what,
            "form": form,
            "seconds": f"{spent.wall:.3f}",
            "cpu_seconds": f"{spent.cpu:.3f}",
            "peak_gb": f"{peaks[form]:.2f}" if form in peaks else "",
            "times_ours": f"{spent.wall / best['ours'].wall:.1f}",
            "cpu_times_ours": f"{spent.cpu / best['ours'].cpu:.1f}",
        }
        for form, spent in best.items()
    ]


if __name__ == "__main__":
    main()
