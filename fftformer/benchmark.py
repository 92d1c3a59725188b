"""Measure FFTformer against its literal form and spandrel's network, and print CSV.

    python fftformer/benchmark.py                                          on the GPU if there is one, 256×256
    python fftformer/benchmark.py --part networks --size 128 --batch 4
    python fftformer/benchmark.py --device cuda --output fftformer/results/gpu.csv

`networks`: `literal` is the network as the authors wrote it: channels-first, rfft2 and irfft2 on 8×8 patches, PyTorch
with automatic gradients. `ours` is the network of `create_model`, with the same weights. spandrel's network has its
own weights. The literal training step needs about 22 GB at 256×256; its rows are left out if less is free.
`parts`: only the product of spectra, the inner norm and the gate of FSAS; this counts the bytes and operations that a
fused kernel would save. `loaders`: crops from pairs of GoPro's size, as BasicSR loads them, and ours from whole PNGs
and from the cache of `prepare.py`. `common.measuring.benchmarking` explains the columns. No other program should run
on the machine.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from common.errors import command
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.racing import Work, network_work, rival, say, usual_loader
from common.sampling import endless_loader
from fftformer import FFTformer, create_model, frequency, literal
from fftformer.crops import prepare
from fftformer.data import Pair, TrainingPairs
from fftformer.layouts import find_pairs

_LITERAL_TRAINING_BYTES = 340_000
"""Memory per pixel of a literal training step of the released configuration, measured."""


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """Crops as in training, and on a GPU also whole images of GoPro's size."""
    side = benchmark.size(benchmark.pick(small=32, cpu=256, gpu=256))
    batch = benchmark.batch(benchmark.pick(small=1, cpu=1, gpu=8))
    yield from benchmark.race(lambda: forms(benchmark, "forward", (side, side), batch))
    count = benchmark.batch(benchmark.pick(small=1, cpu=1, gpu=2))
    yield from benchmark.race(lambda: forms(benchmark, "training step", (side, side), count))
    if benchmark.on_gpu:
        yield from benchmark.race(lambda: forms(benchmark, "forward", (720, 1280), 1))


def forms(benchmark: Benchmark, what: str, size: tuple[int, int], batch: int) -> list[Work]:
    """The networks on the same images."""
    model = prepared(benchmark)
    images = torch.rand(batch, 3, *size, device=benchmark.device)
    setting = f"{batch} x {size[0]}x{size[1]}"
    works = [network_work(what, "ours", setting, model, model, images)]
    if what == "forward" or benchmark.small or benchmark.on_gpu or training_fits(batch * math.prod(size)):
        run = functools.partial(literal.fftformer, model)
        works.insert(0, network_work(what, "literal", setting, run, model, images))
        theirs = None if benchmark.small else rival("spandrel.architectures.FFTformer")
        if theirs is not None:
            other = theirs.FFTformer().to(benchmark.device)
            works.append(network_work(what, "spandrel", setting, other, other, images))
    return works


def prepared(benchmark: Benchmark) -> FFTformer:
    """The network with seeded weights of unit gain, as in trained networks."""
    small = {"dim": 8, "num_blocks": (1, 1, 1), "num_refinement_blocks": 1}
    model = create_model("fftformer", **small if benchmark.small else {})
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
    return model.to(benchmark.device)


def training_fits(pixels: int) -> bool:
    """Whether the training step of the literal form fits into the free memory."""
    needed, free = _LITERAL_TRAINING_BYTES * pixels, psutil.virtual_memory().available
    if needed > free:
        say(f"the literal training step needs about {needed / 1e9:.0f} GB and {free / 1e9:.0f} GB are free; left out")
    return needed <= free


def attention(benchmark: Benchmark) -> Iterator[Row]:
    """F⁻¹(q · k), LayerNorm and gate at the highest resolution; the spectra q and k are given."""
    side = benchmark.size(benchmark.pick(small=16, cpu=256, gpu=256))
    batch = benchmark.batch(benchmark.pick(small=1, cpu=1, gpu=8))
    yield from benchmark.race(lambda: [gate(benchmark, side, batch)])


def gate(benchmark: Benchmark, side: int, batch: int) -> Work:
    """The work of one such step with the released width: 96 channels of q, k and v."""
    shape = (64, batch * (side // 8) ** 2, 96)
    q, k, v = torch.randn(3, *shape, device=benchmark.device).unbind()
    weight, bias = torch.rand(2, 96, device=benchmark.device).unbind()

    def run() -> Tensor:
        with torch.no_grad(), torch.autocast(benchmark.device.type, enabled=False):
            pixels = frequency.synthesise(frequency.multiply(q, k))
            return v * F.layer_norm(pixels, (96,), weight, bias)

    setting = f"product of spectra, norm and gate, {batch} x {side}x{side}, 96 channels"
    return Work("attention", "ours", setting, batch * side**2, run, compiled=lambda: torch.compile(run))


def loaders(benchmark: Benchmark) -> Iterator[Row]:
    """Crops of 256 pixels from pairs of 1280×720, as PNGs and in the cache of `prepare.py`."""
    batch, batches = benchmark.pick(small=(1, 2), cpu=(8, 8), gpu=(8, 8))
    size = benchmark.pick(small=(64, 64), cpu=(720, 1280), gpu=(720, 1280))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "png", size, benchmark.pick(small=2, cpu=8, gpu=8))
        published = find_pairs(folder / "png", "train", "input_target")
        list(prepare(published, folder / "cache" / "train", workers=1))
        cached = find_pairs(folder / "cache", "train", "crops")
        crop = min(256, *size)
        builders = {"BasicSR's": functools.partial(usual_loader, WholePairs(published, crop), batch)}
        for form, pairs in (("ours, PNGs", published), ("ours, cache", cached)):
            crops = TrainingPairs(pairs, crop, seed=0, saturation_jitter=False)
            builders[form] = functools.partial(endless_loader, crops, batch_size=batch, seed=0)
        setting = f"crops of {crop}, pairs of {size[1]}x{size[0]}"
        yield from benchmark.race_loaders(setting, builders, batches, batch)


class WholePairs(Dataset[dict[str, Tensor]]):
    """Decode, convert, then crop, as BasicSR's PairedImageDataset, on which the authors' loader is based."""

    def __init__(self, pairs: Sequence[Pair], crop: int) -> None:
        self.pairs, self.crop = pairs, crop

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pair, crop = self.pairs[index], self.crop
        images = [
            cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR).astype(np.float32) / 255
            for path in (pair.blurred, pair.sharp)
        ]
        top, left = (random.randint(0, side - crop) for side in images[0].shape[:2])
        across, down, transpose = (random.random() < 0.5 for _ in range(3))
        results = []
        for image in images:
            part = np.ascontiguousarray(image[top : top + crop, left : left + crop])
            part = cv2.flip(part, 1) if across else part
            part = cv2.flip(part, 0) if down else part
            part = part.transpose(1, 0, 2) if transpose else part
            results.append(torch.from_numpy(cv2.cvtColor(part, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)).float())
        return {"blurred": results[0], "sharp": results[1]}


def write_pairs(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write pairs of smooth noise in the layout input/target; a file has about 1.5 MB, as in GoPro."""
    generator = np.random.default_rng(0)
    for number in range(count):
        rough = Image.fromarray(generator.integers(256, size=(size[0] // 8, size[1] // 8, 3), dtype=np.uint8))
        for kind, spread in (("target", 4), ("input", 2)):
            image = np.asarray(rough.resize(size[::-1])) + generator.normal(0, spread, (*size, 3))
            path = folder / "train" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


@command
def main() -> None:
    """Measure, print and store the rows."""
    Benchmark(__doc__, networks=networks, parts=attention, loaders=loaders).run()


if __name__ == "__main__":
    main()
