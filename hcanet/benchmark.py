"""Compare the speed of HCANet with the published 3-D form and print the results as CSV.

    python hcanet/benchmark.py                                     the released network at 128 x 128
    python hcanet/benchmark.py --part networks --size 64 --batch 4 --output runs/speed.csv
    python hcanet/benchmark.py --device cuda --output hcanet/results/gpu.csv

- `networks`: the network as its authors wrote it (3-D convolutions over a depth of one, one operation after the other,
  automatic gradients), here called literal, and the network of `create_model`, with the same weights.
- `loaders`: our noisy training patches and QRNN3D's loader.

`common.measuring.benchmarking` explains the columns. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import command
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.racing import Work, network_work, usual_loader
from common.sampling import endless_loader
from hcanet import create_model
from hcanet.data import Stage, TrainingPatches
from hcanet.literal import published_form

_BANDS = 31


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """Measure the network: on a CPU at one size, on a GPU on training patches and on ICVL's whole scenes."""
    sizes = benchmark.pick(small=[(16, 1)], cpu=[(128, 1)], gpu=[(64, 64), (512, 1)])
    for side, count in sizes:
        for what in ("forward", "training step"):
            size, batch = benchmark.size(side), benchmark.batch(count)
            yield from benchmark.race(lambda what=what, size=size, batch=batch: forms(benchmark, what, size, batch))


def forms(benchmark: Benchmark, what: str, side: int, batch: int) -> list[Work]:
    """Return the literal form and ours on the same scenes."""
    name = benchmark.pick(small="hcanet_light", cpu="hcanet", gpu="hcanet")
    model = create_model(name, bands=_BANDS).to(benchmark.device)
    scenes = torch.rand(batch, _BANDS, side, side, device=benchmark.device)
    setting = f"{name}, {batch} x {side}x{side}"
    runs = {"literal": published_form(model), "ours": model}
    return [network_work(what, form, setting, run, run, scenes) for form, run in runs.items()]


def loaders(benchmark: Benchmark) -> Iterator[Row]:
    """Measure loading of windows of 64 pixels of a scene in memory, with Gaussian noise of a random level."""
    batch, batches = benchmark.pick(small=(1, 2), cpu=(16, 12), gpu=(16, 12))
    scene = np.random.default_rng(0).random((_BANDS, 256, 256), dtype=np.float32)
    patches = TrainingPatches(
        [scene], [Stage(0, "blind", 64)], bands=_BANDS, crop=64, stride=8, seed=0, batch=batch, framework="sert",
        reverse_bands=False,
    )  # fmt: skip
    cut = CutPatches([scene[:, top : top + 64, left : left + 64] for _, top, left in patches.windows[:64]])
    theirs = functools.partial(usual_loader, cut, batch)
    ours = functools.partial(endless_loader, patches, batch_size=batch, seed=0)
    setting = f"patches of 64x64, {_BANDS} bands, blind noise"
    yield from benchmark.race_loaders(setting, {"QRNN3D's": theirs, "ours": ours}, batches, batch)


class CutPatches(Dataset[dict[str, Tensor]]):
    """Like QRNN3D's loader of patches cut and rotated in advance; here they are in memory, there in an LMDB."""

    def __init__(self, patches: Sequence[np.ndarray]) -> None:
        self.patches = [patch.copy() for patch in patches]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clean = self.patches[index]
        noise = np.random.randn(*clean.shape) * np.random.uniform(10, 70) / 255  # noqa: NPY002 - as theirs
        return {"noisy": torch.from_numpy(clean + noise).float()[None], "clean": torch.from_numpy(clean).float()[None]}


@command
def main() -> None:
    """Measure and print all rows."""
    Benchmark(__doc__, networks=networks, loaders=loaders).run()


if __name__ == "__main__":
    main()
