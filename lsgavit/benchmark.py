"""Compare the speed of LSGA-ViT with its literal equations and print the results as CSV.

    python lsgavit/benchmark.py --threads 2 --output runs/speed.csv
    python lsgavit/benchmark.py --device cuda --output lsgavit/results/gpu.csv

- `networks`: a training step is forward, backward and Adam on one batch of windows; each form has its own weights and
  optimiser. Prediction classifies every pixel of a synthetic strip as wide as Pavia University: the literal network
  gets single windows in batches, as released; ours shares the tokenizer between windows. Items are pixels.
- `loaders`: ours cuts the windows of a whole batch on the device; the literal form collects windows that were copied in
  advance, as PyTorch's loader does for the released script.

`common.measuring.benchmarking` explains the columns. Run it on an otherwise idle machine.
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
    """Measure training, and prediction of a strip of `--size` rows."""
    batch = benchmark.batch(benchmark.pick(small=8, cpu=128, gpu=1024))
    yield from benchmark.race(lambda: training(benchmark, batch))
    rows = benchmark.size(benchmark.pick(small=1, cpu=8, gpu=610))
    yield from benchmark.race(lambda: prediction(benchmark, rows, batch))


def training(benchmark: Benchmark, batch: int) -> list[Work]:
    """Return training steps of both forms on the same windows."""
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
    """Return the prediction of every pixel of a strip in both forms."""
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
    """Measure the loading of one batch of windows."""
    batch = benchmark.batch(benchmark.pick(small=8, cpu=128, gpu=1024))
    scene = SceneWindows(torch.randn(64, _WIDTH, 36), (9, 9)).to(benchmark.device)
    pixels = torch.randint(len(scene), (batch,))
    setting = f"{batch} windows of 9x9, on the device"
    copies = TensorDataset(scene[pixels].cpu(), pixels)  # as released: every window is copied in advance
    numbers = range(batch)

    def literal() -> Tensor:
        windows, _ = default_collate([copies[number] for number in numbers])
        return windows.to(benchmark.device)

    forms = {"literal": literal, "ours": lambda: scene[pixels]}
    yield from benchmark.race(lambda: [Work("loader", form, setting, batch, run) for form, run in forms.items()])


@command
def main() -> None:
    """Measure and print all rows."""
    Benchmark(__doc__, networks=networks, loaders=loaders).run()


if __name__ == "__main__":
    main()
