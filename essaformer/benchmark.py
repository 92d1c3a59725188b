"""Compare the speed of ESSAformer with its literal equations and print the results as CSV.

    python essaformer/benchmark.py                                     on this machine
    python essaformer/benchmark.py --part parts --output runs/speed.csv
    python essaformer/benchmark.py --device cuda --output essaformer/results/gpu.csv

- `networks`: the released network (width 256, ×4, 128 bands) as its authors wrote it (channels first, concatenation,
  automatic gradients), and the network of `create_model`, with the same weights. Training uses dropout 0.2 and no
  gradient checkpointing.
- `parts`: our attention and the N × N kernel form, here called literal, for growing N = side². The kernel form is left
  out when three of its matrices need more than 3 GiB. After the rows, a line gives the slope of log time over log N
  for the three largest sides: 1 is linear, 2 quadratic.
- `loaders`: our training patches and SSPSR's loader.

`common.measuring.benchmarking` explains the columns. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError, command
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.racing import Work, network_work, say, usual_loader
from common.sampling import endless_loader
from essaformer import ESSAttention, create_model, literal
from essaformer.data import TrainingPatches
from essaformer.regions import Region
from essaformer.scenes import demo_scene

_SCALE = 4
_KERNEL_BYTES = 3 * 2**30


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """Measure the whole network; `--size` is the side of the enlarged images."""
    side = benchmark.size(benchmark.pick(small=16, cpu=64, gpu=256))
    if side % _SCALE:
        raise UserError(f"--size {side}: expected a multiple of {_SCALE}")
    for what, count in (("forward", 8), ("training step", 4)):
        batch = benchmark.batch(benchmark.pick(small=1, cpu=1, gpu=count))
        yield from benchmark.race(lambda what=what, batch=batch: forms(benchmark, what, side, batch))


def forms(benchmark: Benchmark, what: str, side: int, batch: int) -> list[Work]:
    """Return the literal form and ours on the same images."""
    bands, dim = benchmark.pick(small=(8, 16), cpu=(128, 256), gpu=(128, 256))
    model = create_model("essaformer", bands=bands, dim=dim, scale=_SCALE).to(benchmark.device)
    image = torch.rand(batch, bands, side // _SCALE, side // _SCALE, device=benchmark.device)
    setting = f"width {dim}, x{_SCALE}, {bands} bands, {batch} x {side}x{side}"
    runs = {"literal": functools.partial(literal.essaformer, model), "ours": model}
    return [network_work(what, form, setting, run, model, image) for form, run in runs.items()]


def attention(benchmark: Benchmark) -> Iterator[Row]:
    """Measure the forward pass of one attention of 64 channels for growing N; `--size` is the largest side."""
    largest = benchmark.size(benchmark.pick(small=16, cpu=1024, gpu=2048))
    points: list[tuple[float, float]] = []
    for side in (2**i for i in range(3, 12) if max(largest // 32, 4) <= 2**i <= largest):
        for row in benchmark.race(lambda side=side: attentions(benchmark, side)):
            if row["form"] == "ours":
                points.append((math.log(side**2), math.log(float(str(row["seconds"])))))
            yield row
    if len(points) > 2:
        say(f"time ~ N^{np.polyfit(*zip(*points[-3:], strict=True), 1)[0]:.2f}")


def attentions(benchmark: Benchmark, side: int) -> list[Work]:
    """Return both forms, or only ours if the N × N matrices need too much memory."""
    module = ESSAttention(64).to(benchmark.device).eval()
    x = torch.randn(1, side**2, 64, device=benchmark.device)

    def kernel(x: Tensor) -> Tensor:
        return literal.kernel_attention(module, x)

    fits = 3 * 4 * side**4 <= _KERNEL_BYTES
    runs = {"literal": kernel, "ours": module} if fits else {"ours": module}
    return [network_work("forward", form, f"attention, {side}x{side}", run, module, x) for form, run in runs.items()]


def loaders(benchmark: Benchmark) -> Iterator[Row]:
    """Measure loading of patches of 64 pixels, cut from a scene in memory or read from one file each as by SSPSR."""
    scene = demo_scene(0, *benchmark.pick(small=(72, 72), cpu=(512, 512), gpu=(512, 512)))
    patches = TrainingPatches([Region(scene, 0, 0, *scene.shape, 4096.0)], 64, 8, _SCALE, seed=0)
    batch, batches = benchmark.pick(small=(1, 2), cpu=(16, 24), gpu=(16, 24))
    with tempfile.TemporaryDirectory() as folder:
        files = PatchFiles(Path(folder), patches, benchmark.pick(small=4, cpu=128, gpu=128))
        theirs = functools.partial(usual_loader, files, batch)
        ours = functools.partial(endless_loader, patches, batch_size=batch, seed=0)
        setting = f"patches of 64x64, {scene.bands} bands"
        yield from benchmark.race_loaders(setting, {"SSPSR's": theirs, "ours": ours}, batches, batch)


class PatchFiles(Dataset[dict[str, Tensor]]):
    """Like SSPSR's HSTrainingData: one MATLAB file per patch, made in advance, with both resolutions."""

    def __init__(self, folder: Path, patches: TrainingPatches, count: int) -> None:
        self.files = [folder / f"{number}.mat" for number in range(count)]
        for number, file in enumerate(self.files):
            patch = patches[0, number]
            scipy.io.savemat(file, {name: value.permute(1, 2, 0).numpy() for name, value in patch.items()})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        stored = scipy.io.loadmat(self.files[index])
        turns, flip = int(np.random.randint(4)), np.random.random() < 0.5  # noqa: NPY002 - as theirs
        turned = {name: np.rot90(stored[name].astype(np.float32), turns) for name in ("low", "high")}
        return {
            name: torch.from_numpy((np.flipud(value) if flip else value).copy()).permute(2, 0, 1)
            for name, value in turned.items()
        }


@command
def main() -> None:
    """Measure and print all rows."""
    Benchmark(__doc__, networks=networks, parts=attention, loaders=loaders).run()


if __name__ == "__main__":
    main()
