"""Measure FFTformer against its literal equations: seconds and peak memory, printed as CSV.

    python fftformer/benchmark.py                                          what this machine has, 256×256
    python fftformer/benchmark.py --size 128 --batch 4 --no-compile
    python fftformer/benchmark.py --device cuda --output fftformer/results/speed_gpu.csv

`literal` is the network as the authors wrote it: channels first, rfft2 and irfft2 on 8×8 patches,
plain PyTorch with automatic gradients. `ours` is what `create_model` builds. Both use the same
modules, so the same weights, in one process. The rows are measured by turns, one at a time, after
a warm-up of each; seconds are medians over --repeats turns. `forward` runs without gradients,
`training step` is forward, loss and backward. `ratio` is the literal network's seconds over the
row's, in the same mode and number format; the literal network is never compiled. `difference` is
the largest difference of the restored pictures, relative to the largest value.

Peak memory, in MiB, is what the step needs beyond the weights. On a GPU it is the allocator's
maximum. On a CPU every row runs once more in a fresh process, and the figure is the growth of
that process's resident memory from before the first step to the maximum during the second. That
counts buffers of every library, memory that the allocator has not returned, and what stays loaded
after compiling. The literal training step needs about
22 GB at 256×256; without that much, the training rows are left out and a line says so.

A quiet machine matters: with other work on the cores the threads wait for each other.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor, nn

from common import config, memory
from common.benchmarking import print_rows, say, seconds
from common.config import Positive
from common.environment import choose_device
from common.environment import device as device_name
from common.errors import UserError, command
from fftformer import FFTformer, create_model, list_models, literal

_LITERAL_TRAINING_BYTES = 340_000
"""The released configuration's memory per pixel in a literal training step, measured; scales with dim."""

_SETTING = ("what", "network", "device", "dtype", "size", "batch", "compiled", "threads")
COLUMNS = (*_SETTING, "seconds", "peak_memory_mib", "ratio", "difference")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    size: Positive[int] = 256
    """Height and width of the pictures, in pixels."""
    batch: Positive[int] = 1
    """Pictures per step."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    dtype: Literal["all", "float32", "tf32", "bfloat16"] = "all"
    """float32; tf32 (GPU only: products of float32 with short mantissas); bfloat16 autocast.
    all: float32 on a CPU, the three on a GPU."""
    compile: bool = True
    """Add rows for our network under torch.compile; compiling takes minutes."""
    forward: bool = True
    """Add the forward pass."""
    training: bool = True
    """Add the training step."""
    repeats: Positive[int] = 5
    """Turns per row; the median is printed."""
    model: str = "fftformer"
    """Variant to measure; fftformer is the released configuration."""
    output: Path | None = None
    """Write the rows to this CSV file too."""


@dataclass(frozen=True)
class Case:
    """One row: which network does what, and how."""

    what: str
    network: str
    dtype: str
    compiled: bool


def cases(benchmark: Benchmark) -> Iterator[list[Case]]:
    """Groups of rows to be measured by turns; the literal network comes first in each."""
    on_gpu = torch.device(benchmark.device).type == "cuda"
    every = ["float32", "tf32", "bfloat16"] if on_gpu else ["float32"]
    if benchmark.dtype == "tf32" and not on_gpu:
        raise UserError(f"--dtype tf32 exists on NVIDIA GPUs only, --device is {benchmark.device}")
    for dtype in every if benchmark.dtype == "all" else [benchmark.dtype]:
        for what in ["forward"] * benchmark.forward + ["training step"] * _training_fits(benchmark):
            compiled = [Case(what, "ours", dtype, True)] if benchmark.compile else []
            yield [Case(what, "literal", dtype, False), Case(what, "ours", dtype, False), *compiled]


def _training_fits(benchmark: Benchmark) -> bool:
    if not benchmark.training or torch.device(benchmark.device).type != "cpu":
        return benchmark.training
    with torch.device("meta"):
        dim = create_model(benchmark.model).patch_embed.out_channels
    needed = _LITERAL_TRAINING_BYTES * dim / 48 * benchmark.batch * benchmark.size**2
    free = psutil.virtual_memory().available
    if needed > free:
        say(
            f"training rows left out: the literal network needs about {needed / 1e9:.0f} GB and {free / 1e9:.0f} GB "
            "are free; use a smaller --size or --batch"
        )
    return needed <= free


def prepare(benchmark: Benchmark) -> tuple[FFTformer, Tensor]:
    """The network with seeded weights of unit gain, as trained networks have them, and pictures."""
    torch.manual_seed(0)
    model = create_model(benchmark.model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
    picture = torch.rand(benchmark.batch, 3, benchmark.size, benchmark.size)
    return model.to(benchmark.device), picture.to(benchmark.device)


def step(case: Case, model: FFTformer, picture: Tensor) -> Callable[[], Tensor]:
    """A function that performs the row's work once and returns the restored pictures."""
    if case.network == "literal":
        network: Callable[[Tensor], Tensor] = functools.partial(literal.fftformer, model)
    else:
        network = torch.compile(model) if case.compiled else model

    def run() -> Tensor:
        half = case.dtype == "bfloat16"
        with precision(case.dtype), torch.set_grad_enabled(case.what == "training step"):
            with torch.autocast(picture.device.type, torch.bfloat16, enabled=half):
                restored = network(picture)
                loss = (restored - picture).abs().mean()
            if case.what == "training step":
                model.zero_grad(set_to_none=True)
                loss.backward()
        return restored.detach()

    return run


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Products of float32 in full, or in TF32 for matrix products and convolutions alike."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def peak_memory(case: Case, benchmark: Benchmark) -> float:
    """MiB that a step needs beyond the weights; call it in a fresh process for a CPU."""
    model, picture = prepare(benchmark)
    run = step(case, model, picture)
    before = memory.reset_peak(picture.device)
    run()
    model.zero_grad(set_to_none=True)
    memory.reset_peak(picture.device)  # compiling may have taken more
    run()
    return (memory.peak(picture.device) - before) / 2**20


def measure(group: list[Case], benchmark: Benchmark) -> Iterator[dict[str, object]]:
    """Measure one group by turns and yield its rows."""
    device = torch.device(benchmark.device)
    peaks = []
    for case in group:
        say(f"memory: {case}")
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            peaks.append(fresh.apply(peak_memory, (case, benchmark)))
    model, picture = prepare(benchmark)
    runs = [step(case, model, picture) for case in group]
    restored = []
    for case, run in zip(group, runs, strict=True):
        say(f"warm-up: {case}")
        restored.append(run().float())
    say(f"timing {len(group)} rows, {benchmark.repeats} turns")
    turns = [[seconds(run, device) for run in runs] for _ in range(benchmark.repeats)]
    medians = [statistics.median(column) for column in zip(*turns, strict=True)]
    for case, median, peak, pictures in zip(group, medians, peaks, restored, strict=True):
        yield {
            "what": case.what,
            "network": case.network,
            "device": device_name(device),
            "dtype": case.dtype,
            "size": benchmark.size,
            "batch": benchmark.batch,
            "compiled": "yes" if case.compiled else "no",
            "threads": torch.get_num_threads(),
            "seconds": f"{median:.4g}",
            "peak_memory_mib": f"{peak:.0f}",
            "ratio": f"{medians[0] / median:.2f}",
            "difference": f"{((pictures - restored[0]).abs().max() / restored[0].abs().max()).item():.1e}",
        }


@command
def main() -> None:
    """Print the rows as they come, and write the file at the end."""
    benchmark = config.parse(Benchmark, __doc__)
    if benchmark.model not in list_models():
        raise UserError(f"--model {benchmark.model} does not exist; choose one of {', '.join(list_models())}")
    benchmark = replace(benchmark, device=str(choose_device(benchmark.device)))
    measured = (row for group in cases(benchmark) for row in measure(group, benchmark))
    print_rows(measured, COLUMNS, benchmark.output)


if __name__ == "__main__":
    main()
