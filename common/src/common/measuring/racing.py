"""Time forms of the same computation in turns in one process, so that other load affects all of them equally."""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from common.measuring import peaks
from common.measuring.counting import Count, count, precision, timed

COMPILED = ", compiled"


@dataclass(frozen=True)
class Work:
    """One form of a piece of work.

    Attributes:
        what: the job, "forward" or "training step".
        form: "literal", "ours" or the name of another package.
        setting: variant and sizes.
        items: number of images, pixels or tokens that one call processes.
        run: does the work once and returns the tensor in which all forms must agree, or None.
        module: the module whose gradients are dropped after every call.
        compiled: builds the same work under torch.compile, or None.
        counted_as: another form whose operations are counted instead, if operators of this form hide theirs.
    """

    what: str
    form: str
    setting: str
    items: int
    run: Callable[[], Tensor | None]
    module: nn.Module | None = None
    compiled: Callable[[], Callable[[], Tensor | None]] | None = None
    counted_as: str = ""


@dataclass(frozen=True)
class Measured:
    """The measurements of one form.

    Attributes:
        seconds, fastest: median and minimum over the turns.
        peak: bytes needed on a GPU beyond weights and input, None on a CPU.
        counted: operations and bytes.
        ratio: seconds of the literal form divided by these; None without a literal form.
        difference: largest difference from the literal form's result, divided by its largest value; or None.
    """

    work: Work
    seconds: float
    fastest: float
    peak: int | None
    counted: Count
    ratio: float | None
    difference: float | None


def network_work(  # noqa: PLR0917
    what: str, form: str, setting: str, network: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> Work:
    """Return the `forward` pass of a network on a batch `x`, without gradients, or a `training step` of it.

    A training step is a forward pass, the mean of the absolute outputs and a backward pass. The loss of a paper would
    cost almost nothing in comparison.
    """

    def once(network: Callable[[Tensor], Tensor]) -> Callable[[], Tensor | None]:
        def forward() -> Tensor | None:
            module.eval()
            with torch.no_grad():
                result = network(x)
            return result if form in ("literal", "ours") else None  # other packages have weights of their own

        def training_step() -> None:
            module.train()
            loss = network(x).float().abs().mean()
            with torch.autocast(x.device.type, enabled=False):
                loss.backward()

        return forward if what == "forward" else training_step

    compiled = (lambda: once(torch.compile(network))) if form == "ours" else None
    return Work(what, form, setting, len(x), once(network), module, compiled)


def with_compiled(works: Sequence[Work]) -> list[Work]:
    """Return the works, followed by compiled copies of those that can be compiled."""
    more = [
        replace(work, form=work.form + COMPILED, run=work.compiled(), counted_as=work.form)
        for work in works
        if work.compiled
    ]
    return [*works, *more]


def race(works: Sequence[Work], device: torch.device, dtype: str, repeats: int) -> list[Measured]:
    """Measure works in turns; a work that fails, for example for lack of memory, is left out, and a line says so."""
    warm: dict[str, tuple[Tensor | None, int | None, Count]] = {}
    for work in works:
        say(f"warm-up: {work.what}, {work.form}, {work.setting}, {dtype}")
        try:
            with number_format(device, dtype):
                warm[work.form] = _warm_up(work, device, warm)
        except Exception as error:  # if one form fails, the others are still measured
            say(f"left out, {work.form}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            drop_gradients(work)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    works = [work for work in works if work.form in warm]
    turns: dict[str, list[float]] = {work.form: [] for work in works}
    flushed = torch.empty(2**26 if device.type == "cuda" else 0, device=device)
    for _ in range(repeats):
        for work in works:
            flushed.zero_()  # empties a GPU's cache between turns
            with number_format(device, dtype):
                turns[work.form].append(timed(work.run, device))
            drop_gradients(work)
    literal = statistics.median(turns["literal"]) if "literal" in turns else None
    measured = []
    for work in works:
        seconds, (result, peak, counted) = statistics.median(turns[work.form]), warm[work.form]
        ratio = None if literal is None else literal / seconds
        difference = None if literal is None else _difference(result, warm["literal"][0])
        measured.append(Measured(work, seconds, min(turns[work.form]), peak, counted, ratio, difference))
    return measured


def peak_memory(work: Work, dtype: str) -> int:
    """Return the bytes by which a CPU process grows when it does the work a second time; call it in a new process."""
    device = torch.device("cpu")
    before = peaks.reset_peak(device)
    with number_format(device, dtype):
        work.run()
        drop_gradients(work)
        peaks.reset_peak(device)  # the first run may have needed more
        work.run()
    return peaks.peak(device) - before


@contextmanager
def number_format(device: torch.device, dtype: str) -> Iterator[None]:
    """Seed the generators and set the number format; bfloat16 means autocast."""
    torch.manual_seed(0)
    with precision(dtype), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        yield


def drop_gradients(work: Work) -> None:
    """Drop the module's gradients, so that the next turn starts without them."""
    if work.module is not None:
        work.module.zero_grad(set_to_none=True)


def rival(package: str) -> Any | None:
    """Import another package to compare with; without it, print a line and return None."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        say(f"left out, {package} is not installed: {error}")
        return None


def say(message: str) -> None:
    """Print a message to stderr, apart from the rows."""
    print(message, file=sys.stderr, flush=True)


def usual_loader(dataset: Any, batch: int, workers: int) -> DataLoader[Any]:
    """Return PyTorch's own loader over a data set, in random order and practically without end."""
    return DataLoader(
        dataset, batch, sampler=RandomSampler(dataset, replacement=True, num_samples=10**6), num_workers=workers
    )


def loaded(batches: Iterable[Any], count: int, items: int) -> float:
    """Return a loader's seconds per item: over `count` batches of `items` each, after the first batches."""
    running = iter(batches)
    for _ in range(count // 4 + 1):
        next(running)
    return timed(lambda: [next(running) for _ in range(count)], torch.device("cpu")) / (count * items)


def _warm_up(work: Work, device: torch.device, warm: dict[str, Any]) -> tuple[Tensor | None, int | None, Count]:
    result, peak = work.run(), None
    drop_gradients(work)
    if device.type == "cuda":
        before = peaks.reset_peak(device)
        work.run()
        peak = peaks.peak(device) - before
        drop_gradients(work)
    if work.counted_as:
        return _kept(result), peak, warm[work.counted_as][2] if work.counted_as in warm else Count(None, None)
    counted = count(work.run)
    drop_gradients(work)
    return _kept(result), peak, counted


def _kept(result: Tensor | None) -> Tensor | None:
    return None if result is None else result.detach().float().cpu()


def _difference(result: Tensor | None, literal: Tensor | None) -> float | None:
    if result is None or literal is None or result.shape != literal.shape:
        return None
    return ((result - literal).abs().max() / literal.abs().max()).item()
