"""Measure LSGA-ViT against the literal equations; printed as CSV.

    python lsgavit/benchmark.py --threads 2 --output lsgavit/results/speed_cpu.csv
    python lsgavit/benchmark.py --device cuda --output lsgavit/results/gpu.csv

A training step is forward, backward and Adam on one batch of windows, each form with weights and optimiser of its own.
Prediction classifies every pixel of a synthetic strip of a scene as wide as Pavia University: the literal network gets
single windows in batches, as released, ours shares the tokenizer between windows. Items are pixels.
`loaders`: windows of training pixels, cut on the device for a whole batch, which is all that a batch costs; literal
collects windows that were copied beforehand, as PyTorch's loader does for the released script.
The columns are explained in `common.measuring.benchmarking`. A quiet machine matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import TensorDataset, default_collate

from common.errors import command
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.racing import Work
from lsgavit import LSGAViT, SceneWindows, create_model, literal, predict_pixels

_WIDTH = 340


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """Training, and prediction of a strip of `--size` rows."""
    batch = benchmark.batch(benchmark.pick(small=8, cpu=128, gpu=1024))
    yield from benchmark.race(lambda: training(benchmark, batch))
    rows = benchmark.size(benchmark.pick(small=1, cpu=8, gpu=610))
    yield from benchmark.race(lambda: prediction(benchmark, rows, batch))


def training(benchmark: Benchmark, batch: int) -> list[Work]:
    """Training steps of both forms on the same windows."""
    windows = torch.randn(batch, 36, 9, 9, device=benchmark.device)
    classes = torch.arange(batch, device=benchmark.device) % 16

    def trainer(form: str) -> Work:
        model = create_model().to(benchmark.device)
        optimizer = Adam(model.parameters(), lr=5e-4, fused=form == "ours")

        def step(forward: Callable[[Tensor], Tensor]) -> None:
            loss = F.cross_entropy(forward(windows), classes)
            with torch.autocast(benchmark.device.type, enabled=False):
                loss.backward()
            optimizer.step()

        forward = partial(literal.lsgavit, model) if form == "literal" else model
        compiled = (lambda: partial(step, torch.compile(model))) if form == "ours" else None
        setting = f"{batch} windows of 9x9"
        return Work("training step", form, setting, batch, partial(step, forward), model, compiled)

    return [trainer("literal"), trainer("ours")]


def prediction(benchmark: Benchmark, rows: int, batch: int) -> list[Work]:
    """Every pixel of a strip."""
    model: LSGAViT = create_model().to(benchmark.device).eval()
    width = benchmark.pick(small=12, cpu=_WIDTH, gpu=_WIDTH)
    windows = SceneWindows(torch.randn(max(rows, 9), width, 36), model.image_size).to(benchmark.device)
    pixels = torch.arange(rows * width)

    def ours() -> Tensor:
        return torch.cat([logits for _, logits in predict_pixels(model, windows, pixels.numpy())])

    def single_windows() -> Tensor:
        with torch.inference_mode():
            return torch.cat([literal.lsgavit(model, windows[part]) for part in pixels.split(batch)])

    runs = {"literal": single_windows, "ours": ours}
    setting = f"{rows} rows of {width} pixels"
    return [Work("whole-scene prediction", form, setting, len(pixels), run) for form, run in runs.items()]


def loaders(benchmark: Benchmark) -> Iterator[Row]:
    """Windows of one batch."""
    batch = benchmark.batch(benchmark.pick(small=8, cpu=128, gpu=1024))
    scene = SceneWindows(torch.randn(64, _WIDTH, 36), (9, 9)).to(benchmark.device)
    pixels = torch.randint(len(scene), (batch,))
    setting = f"{batch} windows of 9x9, on the device"
    copies = TensorDataset(scene[pixels].cpu(), pixels)  # as released: every window copied beforehand
    numbers = range(batch)

    def literal() -> Tensor:
        windows, _ = default_collate([copies[number] for number in numbers])
        return windows.to(benchmark.device)

    forms = {"literal": literal, "ours": lambda: scene[pixels]}
    yield from benchmark.race(lambda: [Work("loader", form, setting, batch, run) for form, run in forms.items()])


@command
def main() -> None:
    """Print the rows as they come, and keep them."""
    Benchmark(__doc__, networks=networks, loaders=loaders).run()


if __name__ == "__main__":
    main()
