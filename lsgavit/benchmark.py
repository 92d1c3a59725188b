"""Speed and memory of LSGA-ViT against the literal equations, as CSV.

    python lsgavit/benchmark.py                       released sizes, two CPU threads, about a minute
    python lsgavit/benchmark.py --rounds 20 --device cuda

A training step is forward, backward and Adam on one batch. Prediction classifies every pixel of a
made-up strip of a scene as wide as Pavia University; the literal network gets single windows in
batches, as released, ours shares the tokenizer between windows. Both sides take turns in one
process; seconds are medians over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from common import environment
from common.benchmarking import print_rows, seconds
from common.config import Positive, parse
from common.environment import choose_device
from common.errors import command
from lsgavit import LSGAViT, SceneWindows, create_model, literal, predict_pixels


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Flags of this script."""

    rounds: Positive[int] = 9
    """Timed turns of each side, after one that is not timed."""
    batch_size: Positive[int] = 128
    """Windows of a training step, and of the literal network's prediction."""
    rows: Positive[int] = 8
    """Rows of the predicted strip, 340 pixels each."""
    threads: Positive[int] = 2
    """CPU threads."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    output: Path | None = None
    """Also write the rows to this CSV file."""


@command
def main() -> None:
    """Measure training and prediction."""
    options = parse(BenchmarkConfig, __doc__)
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    torch.manual_seed(0)
    rows = training(options, device) + prediction(options, device)
    for row in rows:
        row |= {"device": environment.device(device), "torch": torch.__version__}
    print_rows(rows, list(rows[0]), options.output)


def training(options: BenchmarkConfig, device: torch.device) -> list[dict[str, Any]]:
    """Training steps of both sides, each with its own weights and optimiser, on the same windows."""
    windows = torch.randn(options.batch_size, 36, 9, 9, device=device)
    classes = torch.arange(options.batch_size, device=device) % 16

    def trainer(form: str) -> Callable[[], None]:
        model = create_model().to(device)
        forward: Callable[[Tensor], Tensor] = partial(literal.lsgavit, model) if form == "literal" else model
        optimizer = Adam(model.parameters(), lr=5e-4, fused=form == "ours")

        def step() -> None:
            loss = F.cross_entropy(forward(windows), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    sides = {"ours": trainer("ours"), "literal": trainer("literal")}
    return race("training step", options.batch_size, **sides, rounds=options.rounds, device=device)


def prediction(options: BenchmarkConfig, device: torch.device) -> list[dict[str, Any]]:
    """Every pixel of a strip."""
    model: LSGAViT = create_model().to(device).eval()
    windows = SceneWindows(torch.randn(max(options.rows, 9), 340, 36), model.image_size).to(device)
    pixels = torch.arange(options.rows * 340)

    def ours() -> None:
        for _, logits in predict_pixels(model, windows, pixels.numpy()):
            logits.argmax(dim=1)

    @torch.inference_mode()
    def single_windows() -> None:
        for batch in pixels.split(options.batch_size):
            literal.lsgavit(model, windows[batch]).argmax(dim=1)

    sides = {"ours": ours, "literal": single_windows}
    return race("whole-scene prediction", len(pixels), **sides, rounds=options.rounds, device=device)


def race(
    what: str,
    pixels: int,
    *,
    ours: Callable[[], None],
    literal: Callable[[], None],
    rounds: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Run both sides in turn; one CSV row for each."""
    sides = {"ours": ours, "literal": literal}
    times: dict[str, list[float]] = {form: [] for form in sides}
    for _ in range(rounds + 1):
        for form, run in sides.items():
            times[form].append(seconds(run, device))
    medians = {form: statistics.median(values[1:]) for form, values in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["ours"][1:], times["literal"][1:], strict=True))
    return [
        {
            "what": what,
            "form": form,
            "seconds": f"{value:.4f}",
            "pixels_per_second": f"{pixels / value:.0f}",
            "times_ours": f"{ratio:.2f}" if form == "literal" else "",
        }
        for form, value in medians.items()
    ]


if __name__ == "__main__":
    main()
