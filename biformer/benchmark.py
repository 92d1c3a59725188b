"""Measure BiFormer against its literal form: seconds, pictures per second, memory; printed as CSV.

    python biformer/benchmark.py                                         what this machine has
    python biformer/benchmark.py --models biformer_small --batches 4     the row of two CPU cores
    python biformer/benchmark.py --device cuda --output biformer/results/speed_gpu.csv

`literal` is the network as the authors wrote it: keys and values gathered for every query region,
layouts changed by einops, plain PyTorch with automatic gradients. `ours` is what `create_model`
builds. Both use the same modules, so the same weights, in one process. Names under --beside are
timm's, untrained, in the same run; Swin-T, Swin-S and ConvNeXt-T on a GPU. The rows of a group are
measured by turns, one at a time, after a warm-up of each; `seconds` is the median over --repeats
turns and `fastest` the least. `forward` runs without gradients in evaluation mode, `training step`
is forward, cross-entropy and backward. `ratio` is the literal network's seconds over the row's, in
the same mode and number format; the literal network is never compiled. `difference` is that of the
logits, relative to the largest; in a training step of one picture it says nothing, as the last
BatchNorm makes that picture's mean, and so the logits, zero. bfloat16 is autocast, float32 on a GPU
is without TF32.

Peak memory, in MiB, is what a step needs beyond the weights, from the GPU's allocator; empty on a
CPU. A case that does not fit into the GPU's memory is left out, and a line says so.

A quiet machine matters: with other work on the cores the threads wait for each other.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biformer import BiFormer, create_model, list_models, literal_network
from common import config, memory
from common.benchmarking import print_rows, say, seconds
from common.config import Positive
from common.environment import choose_device
from common.environment import device as device_name
from common.errors import UserError, command

_GPU = torch.cuda.is_available()
_SETTING = ("what", "network", "model", "device", "dtype", "size", "batch", "compiled", "threads")
COLUMNS = (*_SETTING, "seconds", "fastest", "pictures_per_second", "peak_memory_mib", "ratio", "difference")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    models: tuple[str, ...] = ("biformer_small", "biformer_base") if _GPU else ("biformer_small",)
    """Variants to measure."""
    beside: tuple[str, ...] = (
        ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "convnext_tiny") if _GPU else ()
    )
    """timm's names of other networks, measured in the same run."""
    batches: tuple[Positive[int], ...] = (1, 16, 128) if _GPU else (4,)
    """Pictures per step."""
    size: Positive[int] = 224
    """Height and width of the pictures, in pixels; a multiple of 224."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16") if _GPU else ("float32",)
    """Number formats."""
    compile: bool = _GPU
    """Add rows under torch.compile; compiling takes minutes."""
    training: bool = True
    """Add the training step."""
    repeats: Positive[int] = 20 if _GPU else 7
    """Turns per row."""
    threads: Positive[int] | None = None
    """CPU threads; by default PyTorch's choice."""
    output: Path | None = None
    """Write the rows to this CSV file too."""


@dataclass(frozen=True)
class Case:
    """One row: which network does what, and how."""

    what: str
    network: str
    model: str
    dtype: str
    batch: int
    compiled: bool


def groups(benchmark: Benchmark) -> Iterator[list[Case]]:
    """Rows to be measured by turns; the first model's literal network comes first in each."""
    kinds = [("literal", name, False) for name in benchmark.models]
    for compiled in (False, True) if benchmark.compile else (False,):
        kinds += [("ours", name, compiled) for name in benchmark.models]
        kinds += [("timm", name, compiled) for name in benchmark.beside]
    for dtype in benchmark.dtypes:
        for batch in benchmark.batches:
            for what in ("forward", "training step") if benchmark.training else ("forward",):
                yield [Case(what, network, name, dtype, batch, compiled) for network, name, compiled in kinds]


def step(case: Case, models: dict[str, nn.Module], picture: Tensor) -> Callable[[], Tensor]:
    """A function that performs the row's work once and returns the logits."""
    model, training = models[case.model], case.what == "training step"
    network: Callable[[Tensor], Tensor] = model
    if case.network == "literal":
        network = functools.partial(literal_network.biformer, cast(BiFormer, model))
    elif case.compiled:
        network = torch.compile(model)
    classes = torch.arange(len(picture), device=picture.device)

    def run() -> Tensor:
        model.train(training)
        with torch.set_grad_enabled(training):
            with torch.autocast(picture.device.type, torch.bfloat16, enabled=case.dtype == "bfloat16"):
                logits = network(picture)
                loss = F.cross_entropy(logits, classes)
            if training:
                model.zero_grad(set_to_none=True)
                loss.backward()
        return logits.detach().float()

    return run


def warm_up(run: Callable[[], Tensor], model: nn.Module, device: torch.device) -> tuple[Tensor, float | None]:
    """Run with seeded stochastic depth; the logits, and on a GPU the peak memory of a second run in MiB."""
    torch.manual_seed(0)
    logits = run()
    model.zero_grad(set_to_none=True)
    if device.type != "cuda":
        return logits, None
    before = memory.reset_peak(device)
    run()
    return logits, (memory.peak(device) - before) / 2**20


def measure(group: list[Case], models: dict[str, nn.Module], benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    """Measure one group by turns and yield its rows."""
    device = choose_device(benchmark.device)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(group[0].batch, 3, benchmark.size, benchmark.size, generator=generator).to(device)
    runs: dict[Case, Callable[[], Tensor]] = {}
    warm: dict[Case, tuple[Tensor, float | None]] = {}
    for case in group:
        run = step(case, models, picture)
        say(f"warm-up: {case}")
        try:
            warm[case] = warm_up(run, models[case.model], device)
            runs[case] = run
        except torch.cuda.OutOfMemoryError:
            say(f"left out, too little memory on {device}: {case}")
        models[case.model].zero_grad(set_to_none=True)
    turns: dict[Case, list[float]] = {case: [] for case in runs}
    for _ in range(benchmark.repeats):
        for case, run in runs.items():
            turns[case].append(seconds(run, device))
            models[case.model].zero_grad(set_to_none=True)
    for case, times in turns.items():
        literal = next((x for x in runs if x.network == "literal" and x.model == case.model), None)
        logits, peak = warm[case]
        median = statistics.median(times)
        yield {
            "what": case.what,
            "network": case.network,
            "model": case.model,
            "device": device_name(device),
            "dtype": case.dtype,
            "size": benchmark.size,
            "batch": case.batch,
            "compiled": "yes" if case.compiled else "no",
            "threads": torch.get_num_threads(),
            "seconds": f"{median:.4g}",
            "fastest": f"{min(times):.4g}",
            "pictures_per_second": f"{case.batch / median:.4g}",
            "peak_memory_mib": "" if peak is None else f"{peak:.0f}",
            "ratio": f"{statistics.median(turns[literal]) / median:.2f}" if literal else "",
            "difference": _difference(logits, warm[literal][0]) if literal else "",
        }


def _difference(logits: Tensor, literal: Tensor) -> str:
    return f"{((logits - literal).abs().max() / literal.abs().max()).item():.1e}"


@command
def main() -> None:
    """Print the rows as they come, and write the file at the end."""
    benchmark = config.parse(Benchmark, __doc__)
    for name in benchmark.models:
        if name not in list_models():
            raise UserError(f"--models {name} does not exist; choose of {', '.join(list_models())}")
    if benchmark.size % 224:
        raise UserError(f"--size {benchmark.size}: the literal network cannot pad; use a multiple of 224")
    device = choose_device(benchmark.device)
    benchmark = replace(benchmark, device=str(device))
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {name: create_model(name).to(device) for name in benchmark.models}
    models |= {name: timm.create_model(name).to(device) for name in benchmark.beside}
    measured = (row for group in groups(benchmark) for row in measure(group, models, benchmark))
    print_rows(measured, COLUMNS, benchmark.output)


if __name__ == "__main__":
    main()
