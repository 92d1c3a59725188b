"""Measure ESSAformer against its literal equations: seconds and peak memory, printed as CSV.

    python essaformer/benchmark.py                                     what this machine has
    python essaformer/benchmark.py --part attention --sides 64 128 256 512 1024
    python essaformer/benchmark.py --part network --dim 64 --bands 205 --scale 2 --size 48 --batch 8

`attention`: ours against the N × N kernel form at growing N = side², forward. The kernel form is left out
where its matrix does not fit --kernel-memory. After the rows a line gives the slopes of log time and log
memory over log N, from the three largest sides: 1 is linear, 2 quadratic.

`network`: the released network as its authors wrote it (channels first, concatenation, automatic gradients)
against what `create_model` builds, with the same weights, in one process, by turns, after a warm-up.
`forward` runs without gradients, `training step` is forward, loss and backward with dropout 0.2, gradient
checkpointing off. `ratio` is the literal form's seconds over the row's, `difference` the largest difference
of the results (without dropout) relative to the largest value.

Seconds are medians over --repeats turns. Peak memory, in MiB, is what the work needs beyond weights and input.
On a GPU it is the allocator's maximum. On a CPU every row runs once more in a fresh process, and the figure is
the growth of its resident memory up to the maximum during the second run. A quiet machine matters.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common import config, memory
from common.benchmarking import Row, print_rows, say, seconds
from common.config import Positive
from common.environment import choose_device
from common.environment import device as device_name
from common.errors import UserError, command
from essaformer import ESSAttention, create_model, literal

COLUMNS = (
    "what", "form", "device", "dtype", "dim", "bands", "scale", "size", "batch", "tokens", "threads", "seconds",
    "peak_memory_mib", "memory_ratio", "ratio", "difference",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    part: Literal["all", "attention", "network"] = "all"
    """The attention at growing N, the whole network, or both."""
    sides: tuple[Positive[int], ...] = (32, 64, 128, 256, 512, 1024)
    """Sides of the square maps of the attention; N is their square."""
    attention_dim: Positive[int] = 64
    """Channels of the attention."""
    kernel_memory: str = "3G"
    """The kernel form is measured where three N × N matrices fit into this."""
    dim: Positive[int] = 256
    """Channels of the network; 256 as released."""
    bands: Positive[int] = 128
    """Bands of the network."""
    scale: Positive[int] = 4
    """Of the network."""
    size: Positive[int] = 64
    """Side of the high-resolution pictures."""
    batch: Positive[int] = 1
    """Pictures per step."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast."""
    repeats: Positive[int] = 5
    """Turns per row; the median is printed."""
    output: Path | None = None
    """Write the rows to this CSV file too."""


@dataclass(frozen=True)
class Case:
    """One row: what is done in which form, at which side (attention) or size (network)."""

    what: str
    form: str
    side: int


def groups(benchmark: Benchmark) -> Iterator[list[Case]]:
    """Rows to be measured by turns; the literal form comes first where there is one."""
    if benchmark.part != "network":
        for side in benchmark.sides:
            fits = 3 * 4 * side**4 <= memory.parse_size(benchmark.kernel_memory, "--kernel-memory")
            forms = ["kernel", "ours"] if fits else ["ours"]
            yield [Case("attention", form, side) for form in forms]
    if benchmark.part != "attention":
        for what in ("forward", "training step"):
            yield [Case(what, form, benchmark.size) for form in ("literal", "ours")]


def prepare(what: str, side: int, benchmark: Benchmark) -> tuple[nn.Module, Tensor]:
    """The module with seeded weights, and its input."""
    torch.manual_seed(0)
    if what == "attention":
        module: nn.Module = ESSAttention(benchmark.attention_dim)
        x = torch.randn(1, side * side, benchmark.attention_dim)
    else:
        module = create_model("essaformer", bands=benchmark.bands, dim=benchmark.dim, scale=benchmark.scale)
        x = torch.rand(benchmark.batch, benchmark.bands, side // benchmark.scale, side // benchmark.scale)
    return module.to(benchmark.device).train(what == "training step"), x.to(benchmark.device)


def work(case: Case, module: nn.Module, x: Tensor, benchmark: Benchmark) -> Callable[[], Tensor]:
    """A function that performs the row's work once and returns its result."""
    run: Callable[[Tensor], Tensor] = module
    if case.form == "kernel":
        assert isinstance(module, ESSAttention)
        run = functools.partial(literal.kernel_attention, module)
    elif case.form == "literal":
        run = functools.partial(literal.essaformer, module)  # type: ignore[arg-type]
    training = case.what == "training step"

    def once() -> Tensor:
        torch.manual_seed(0)
        with torch.set_grad_enabled(training):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=benchmark.dtype == "bfloat16"):
                result = run(x)
            if training:
                module.zero_grad(set_to_none=True)
                result.float().abs().mean().backward()
        return result.detach()

    return once


def peak_memory(case: Case, benchmark: Benchmark) -> float:
    """MiB that the work needs beyond weights and input; call it in a fresh process for a CPU."""
    module, x = prepare(case.what, case.side, benchmark)
    run = work(case, module, x, benchmark)
    before = memory.reset_peak(x.device)
    run()
    module.zero_grad(set_to_none=True)
    memory.reset_peak(x.device)  # loading may have taken more
    run()
    return (memory.peak(x.device) - before) / 2**20


def measure(group: list[Case], benchmark: Benchmark) -> Iterator[dict[str, object]]:
    """Measure one group by turns and yield its rows."""
    peaks = []
    for case in group:
        say(f"memory: {case}")
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            peaks.append(fresh.apply(peak_memory, (case, benchmark)))
    module, x = prepare(group[0].what, group[0].side, benchmark)
    results = []
    with torch.no_grad():
        for case in group:
            module.eval()
            results.append(work(Case("forward", case.form, case.side), module, x, benchmark)().float())
    module.train(group[0].what == "training step")
    runs = [work(case, module, x, benchmark) for case in group]
    for run in runs:
        run()
    turns = [[seconds(run, x.device) for run in runs] for _ in range(benchmark.repeats)]
    medians = [statistics.median(column) for column in zip(*turns, strict=True)]
    compared = len(group) > 1
    attention = group[0].what == "attention"
    for case, median, peak, result in zip(group, medians, peaks, results, strict=True):
        difference = ((result - results[0]).abs().max() / results[0].abs().max()).item()
        size = case.side if attention else benchmark.size
        yield {
            "what": case.what,
            "form": case.form,
            "device": device_name(x.device),
            "dtype": benchmark.dtype,
            "dim": benchmark.attention_dim if attention else benchmark.dim,
            "bands": "" if attention else benchmark.bands,
            "scale": "" if attention else benchmark.scale,
            "size": size,
            "batch": len(x),
            "tokens": size**2,
            "threads": torch.get_num_threads(),
            "seconds": f"{median:.4g}",
            "peak_memory_mib": f"{peak:.1f}",
            "memory_ratio": f"{peak / peaks[0]:.2f}" if compared else "",
            "ratio": f"{medians[0] / median:.2f}" if compared else "",
            "difference": f"{difference:.1e}" if compared else "",
        }


def slope(rows: list[Row], form: str, column: str) -> float:
    """Slope of log `column` over log N, from the three largest sides."""
    points = [
        (math.log(float(str(row["tokens"]))), math.log(float(str(row[column]))))
        for row in rows
        if row["what"] == "attention" and row["form"] == form and float(str(row[column])) > 0
    ]
    points = points[-3:]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 1 else math.nan


@command
def main() -> None:
    """Print the rows as they come, and write the file at the end."""
    benchmark = config.parse(Benchmark, __doc__)
    benchmark = replace(benchmark, device=str(choose_device(benchmark.device)))
    if benchmark.size % benchmark.scale:
        raise UserError(f"--size {benchmark.size}: expected a multiple of --scale {benchmark.scale}")
    memory.parse_size(benchmark.kernel_memory, "--kernel-memory")
    measured = (row for group in groups(benchmark) for row in measure(group, benchmark))
    rows = print_rows(measured, COLUMNS, benchmark.output)
    if benchmark.part != "network":
        for form in ("kernel", "ours"):
            time_slope, memory_slope = (slope(rows, form, column) for column in ("seconds", "peak_memory_mib"))
            say(f"{form}: time ~ N^{time_slope:.2f}, memory ~ N^{memory_slope:.2f}")


if __name__ == "__main__":
    main()
