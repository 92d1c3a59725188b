"""Measure BiFormer against its literal form and the networks of other packages, and print CSV.

    python biformer/benchmark.py                                            on the GPU if there is one
    python biformer/benchmark.py --part networks --output runs/speed.csv
    python biformer/benchmark.py --device cuda --output biformer/results/gpu.csv

`networks`: `literal` is the network as the authors wrote it (keys and values gathered for every query region, layouts
changed by einops, automatic gradients). `ours` is the network of `create_model`, with the same weights. timm's Swin-S
and ConvNeXt-S and birder's BiFormer have random weights. `parts`: only attention to routed regions, for each stage,
also with PyTorch's flex_attention. `loaders`: training images of ImageNet's size, from our data set and timm's.
`common.measuring.benchmarking` explains the columns. No other program should run on the machine.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from biformer import create_model, literal_network
from biformer.augmentation import TrainingPictures, training_transform
from biformer.fast.flex import flex_fits, flex_routed_attention
from biformer.fast.routing import routed_attention
from biformer.layouts import open_split
from biformer.literal import literal_routed_attention
from biformer.presets import PRESETS, Config
from common.errors import UserError, command
from common.measuring.benchmarking import Benchmark, Row
from common.measuring.counting import FORMULAS
from common.measuring.racing import Work, network_work, rival
from common.sampling import endless_loader

_TIMM = ("swin_small_patch4_window7_224", "convnext_small")
_WIDTH = 32
"""Channels of a head."""


def networks(benchmark: Benchmark) -> Iterator[Row]:
    """The classifier for images of 224 × 224, and on a GPU also of 448 × 448 and 896 × 1344."""
    side = benchmark.size(224)
    if side % 224:
        raise UserError(f"--size {side}: the literal network cannot pad; use a multiple of 224")
    batch = benchmark.batch(benchmark.pick(small=1, cpu=4, gpu=128))
    for what in ("forward", "training step"):
        yield from benchmark.race(lambda what=what: forms(benchmark, what, (side, side), batch))
    if benchmark.on_gpu:
        for what, size, count in (
            ("forward", (448, 448), 32),
            ("training step", (448, 448), 32),
            ("forward", (896, 1344), 4),
        ):
            yield from benchmark.race(lambda what=what, size=size, count=count: forms(benchmark, what, size, count))


def forms(benchmark: Benchmark, what: str, size: tuple[int, int], batch: int) -> list[Work]:
    """All networks on the same images."""
    device, name = benchmark.device, benchmark.pick(small="biformer_tiny", cpu="biformer_small", gpu="biformer_small")
    model = create_model(name).to(device)
    images = torch.randn(batch, 3, *size, device=device)
    runs: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
        "literal": (functools.partial(literal_network.biformer, model), model),
        "ours": (model, model),
    }
    if not benchmark.small:
        for peer in _TIMM:
            wanted = {"img_size": size} if "swin" in peer else {}
            other = timm.create_model(peer, **wanted).to(device)
            runs[f"timm {peer}"] = other, other
        if (birder := rival("birder.net.biformer")) is not None:
            other = birder_network(birder, size).to(device)
            runs["birder biformer_s"] = other, other
    setting = f"{name}, {batch} x {size[0]}x{size[1]}"
    return [network_work(what, form, setting, run, module, images) for form, (run, module) in runs.items()]


def birder_network(package: Any, size: tuple[int, int]) -> nn.Module:
    """Birder's network with the same depths and widths."""
    from birder.model_registry import registry  # noqa: PLC0415

    return registry.net_factory("biformer_s", num_classes=1000, size=size)


def attention(benchmark: Benchmark) -> Iterator[Row]:
    """Attention to routed regions as in stages 1 to 3, for images of 224² and 512²."""
    batch = benchmark.batch(benchmark.pick(small=1, cpu=4, gpu=64))
    for regions, first in ((2, 4),) if benchmark.small else ((7, 8), (8, 16)):
        for stage, (heads, top_k) in enumerate(((2, 1), (4, 4), (8, min(16, regions**2)))):
            tokens = (first >> stage) ** 2
            setting = f"stage {stage + 1} of {4 * regions * first}²: {batch} x {regions**2} regions, {tokens} tokens"
            for what in ("forward", "training step"):
                build = functools.partial(
                    attentions, benchmark, what, setting, (batch, regions**2, tokens), heads, top_k
                )
                yield from benchmark.race(build)


def attentions(  # noqa: PLR0917
    benchmark: Benchmark, what: str, setting: str, shape: tuple[int, int, int], heads: int, top_k: int
) -> list[Work]:
    """The forms of one attention; a training step is forward and backward."""
    batch, regions, tokens = shape
    device, scale = benchmark.device, (heads * _WIDTH) ** -0.5
    q, k, v = torch.randn(3, *shape, heads * _WIDTH, device=device).unbind()
    routes = torch.rand(batch, regions, regions, device=device).topk(top_k).indices
    runs = {"literal": literal_routed_attention, "ours": routed_attention}
    if flex_fits(q, k) and not benchmark.small and (what == "forward" or benchmark.on_gpu):
        runs["flex_attention"] = flex_routed_attention

    def work(form: str) -> Work:
        def forward() -> Tensor:
            with torch.no_grad():
                dtype = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
                return runs[form](q.to(dtype), k.to(dtype), v.to(dtype), routes, heads, scale)

        def training_step() -> None:
            dtype = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
            inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
            torch.autograd.grad(runs[form](*inputs, routes, heads, scale).sum(), inputs)

        run = forward if what == "forward" else training_step
        counted_as = "literal" if form == "flex_attention" else ""
        return Work(f"attention, {what}", form, setting, batch * regions * tokens, run, counted_as=counted_as)

    return [work(form) for form in runs]


def operations(q: Any, k: Any, v: Any, routes: Any, *_: Any, **__: Any) -> int:
    """Operations of the Triton kernels' forward pass: two products for each pair of query and routed key."""
    return 4 * q[0] * q[1] * q[2] * q[3] * routes[2] * k[2]


def backward_operations(grad: Any, q: Any, k: Any, v: Any, routes: Any, *_: Any, **__: Any) -> int:
    """Operations of the backward pass: five products, for the weights and the gradients of weights, q, k and v."""
    return operations(q, k, v, routes) * 5 // 2


FORMULAS[torch.ops.biformer.routed_attention] = operations
FORMULAS[torch.ops.biformer.routed_attention_backward] = backward_operations


def loaders(benchmark: Benchmark) -> Iterator[Row]:
    """JPEGs of ImageNet's usual size, cropped, resized, flipped and normalised as in training.

    RandAugment is left out, because it takes more time than the difference between the loaders.
    """
    batch, batches = benchmark.pick(small=(2, 2), cpu=(32, 12), gpu=(32, 12))
    config = replace(PRESETS["imagenet_small"](), auto_augment="", colour_jitter=0.0, erasing=0.0)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), benchmark.pick(small=8, cpu=64, gpu=64))
        pictures = open_split(Path(folder), "train")
        training = TrainingPictures(pictures, training_transform(config), seed=0)
        theirs = functools.partial(timm_loader, folder, config, batch)
        ours = functools.partial(endless_loader, training, batch_size=batch, seed=0)
        yield from benchmark.race_loaders("ImageNet-sized JPEG", {"timm": theirs, "ours": ours}, batches, batch)


def timm_loader(folder: str, config: Config, batch: int, workers: int) -> Any:
    """timm's data set and loader, with the same transform."""
    dataset = timm.data.create_dataset("", folder, split="train")
    dataset.reader.samples *= 100  # so that an epoch does not end during the measurement
    loader = timm.data.create_loader(
        dataset, (3, config.image_size, config.image_size), batch, is_training=True, use_prefetcher=False,
        num_workers=workers, persistent_workers=False,
    )  # fmt: skip
    dataset.transform = training_transform(config)
    return loader


def write_pictures(folder: Path, count: int) -> None:
    """Write images of smooth noise in two classes: 500×375 pixels and about 100 kB, as in ImageNet."""
    random = np.random.default_rng(0)
    for number in range(count):
        rough = Image.fromarray(random.integers(256, size=(75, 100, 3), dtype=np.uint8)).resize((500, 375))
        fine = np.asarray(rough) + random.normal(0, 6, (375, 500, 3))
        path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@command
def main() -> None:
    """Measure, print and store the rows."""
    Benchmark(__doc__, networks=networks, parts=attention, loaders=loaders).run()


if __name__ == "__main__":
    main()
