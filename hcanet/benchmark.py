"""Measure HCANet against the published 3-D form: seconds and peak memory, printed as CSV.

    python hcanet/benchmark.py                                     the released network at 128 x 128
    python hcanet/benchmark.py --model hcanet_light --size 64 --batch 4

The network as its authors wrote it (3-D convolutions over a depth of one, one operation after the other, automatic
gradients) against what `create_model` builds, with the same weights, in one process, by turns, after a warm-up.
`forward` runs without gradients; `training step` is forward, loss and backward. `ratio` is the published form's seconds
over the row's, `difference` the largest difference of the results relative to the largest value.

Seconds are medians over --repeats turns. Peak memory, in MiB, is what the work needs beyond weights and input.
On a GPU it is the allocator's maximum. On a CPU every row runs once more in a fresh process, and the figure is
the growth of its resident memory up to the maximum during the second run. A quiet machine matters.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from common import config, memory
from common.benchmarking import print_rows, say, seconds
from common.config import Positive
from common.environment import choose_device
from common.environment import device as device_name
from common.errors import command
from hcanet import create_model
from hcanet.attention import LocalMix
from hcanet.literal import published_form

COLUMNS = (
    "what", "form", "model", "local_mix", "device", "dtype", "bands", "size", "batch", "threads", "seconds",
    "peak_memory_mib", "memory_ratio", "ratio", "difference",
)  # fmt: skip
FORMS = ("published", "ours")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    model: str = "hcanet"
    """hcanet or hcanet_light."""
    local_mix: LocalMix = "released"
    """The local branch: released or pixel."""
    bands: Positive[int] = 31
    """Bands of the network."""
    size: Positive[int] = 128
    """Side of the images in pixels, a multiple of 4."""
    batch: Positive[int] = 1
    """Images per step."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast."""
    repeats: Positive[int] = 5
    """Turns per row; the median is printed."""
    output: Path | None = None
    """Write the rows to this CSV file too."""


def prepare(form: str, training: bool, benchmark: Benchmark) -> tuple[nn.Module, Tensor]:
    """The network with seeded weights, and its input."""
    torch.manual_seed(0)
    network: nn.Module = create_model(benchmark.model, bands=benchmark.bands, local_mix=benchmark.local_mix)
    x = torch.rand(benchmark.batch, benchmark.bands, benchmark.size, benchmark.size)
    if form == "published":
        network = published_form(network)  # type: ignore[arg-type]
    device = choose_device(benchmark.device)
    return network.to(device).train(training), x.to(device)


def work(network: nn.Module, x: Tensor, training: bool, dtype: str) -> Callable[[], Tensor]:
    """A function that performs the row's work once and returns its result."""

    def once() -> Tensor:
        with torch.set_grad_enabled(training):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                result = network(x)
            if training:
                network.zero_grad(set_to_none=True)
                result.float().abs().mean().backward()
        return result.detach()

    return once


def peak_memory(form: str, training: bool, benchmark: Benchmark, threads: int) -> float:
    """MiB that the work needs beyond weights and input; call it in a fresh process for a CPU."""
    torch.set_num_threads(threads)
    network, x = prepare(form, training, benchmark)
    run = work(network, x, training, benchmark.dtype)
    before = memory.reset_peak(x.device)
    run()
    network.zero_grad(set_to_none=True)
    memory.reset_peak(x.device)  # loading may have taken more
    run()
    return (memory.peak(x.device) - before) / 2**20


def measure(training: bool, benchmark: Benchmark) -> Iterator[dict[str, object]]:
    """Measure both forms by turns and yield their rows."""
    peaks = []
    for form in FORMS:
        say(f"memory: {form}, {'training step' if training else 'forward'}")
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            peaks.append(fresh.apply(peak_memory, (form, training, benchmark, torch.get_num_threads())))
    prepared = [prepare(form, training, benchmark) for form in FORMS]
    runs = [work(network, x, training, benchmark.dtype) for network, x in prepared]
    results = [run().float() for run in runs]
    device = prepared[0][1].device
    turns = [[seconds(run, device) for run in runs] for _ in range(benchmark.repeats)]
    medians = [statistics.median(column) for column in zip(*turns, strict=True)]
    for form, median, peak, result in zip(FORMS, medians, peaks, results, strict=True):
        difference = ((result - results[0]).abs().max() / results[0].abs().max()).item()
        yield {
            "what": "training step" if training else "forward",
            "form": form,
            "model": benchmark.model,
            "local_mix": benchmark.local_mix,
            "device": device_name(device),
            "dtype": benchmark.dtype,
            "bands": benchmark.bands,
            "size": benchmark.size,
            "batch": benchmark.batch,
            "threads": torch.get_num_threads(),
            "seconds": f"{median:.4g}",
            "peak_memory_mib": f"{peak:.1f}",
            "memory_ratio": f"{peak / peaks[0]:.2f}",
            "ratio": f"{medians[0] / median:.2f}",
            "difference": f"{difference:.1e}",
        }


@command
def main() -> None:
    """Print the rows as they come, and write the file at the end."""
    benchmark = config.parse(Benchmark, __doc__)
    print_rows((row for training in (False, True) for row in measure(training, benchmark)), COLUMNS, benchmark.output)


if __name__ == "__main__":
    main()
