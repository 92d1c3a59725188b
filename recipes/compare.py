"""Train a small network with and without a block, over several seeds, for the table in docs/blocks.md.

    python recipes/compare.py --data-root data/cifar10_subset --output recipes/results/cifar10_subset.json

The network is timm's ResNet-18 with half the width and a small first convolution for images of 32 pixels, trained from
scratch. For each seed, the networks with and without a block have the same initial weights and batches. No parameter
was tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from biformer.blocks import BRABlock
from biformer.data import Pictures
from biformer.layouts import open_both
from common import config
from common.attach import attach
from common.config import BatchSize, Positive
from common.errors import command
from common.results import Row, measured, table, write_rows
from fftformer.blocks import FSASBlock

LAYER, CHANNELS = "layer2.1", 64
BLOCKS: dict[str, Callable[[], nn.Module] | None] = {
    "ResNet-18, half as wide": None,
    "with BRABlock": lambda: BRABlock(CHANNELS, num_regions=4),
    "with FSASBlock": lambda: FSASBlock(CHANNELS),
}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Flags of this script."""

    data_root: Path
    """Folder of the data set, whose images have 32 × 32 pixels."""
    output: Path
    """JSON file for the rows."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; one training for each."""
    epochs: Positive[int] = 6
    """Passes over the training images."""
    batch_size: BatchSize[int] = 64
    """Images per update."""
    learning_rate: float = 0.1
    """Largest learning rate of the one-cycle schedule; SGD with Nesterov momentum."""


@command
def main() -> None:
    """Train all networks, write the rows, print the table."""
    options = config.parse(CompareConfig, __doc__)
    training, validation = open_both(options.data_root)
    train, test = as_tensors(training), as_tensors(validation)
    rows = []
    for name, block in BLOCKS.items():
        found = [accuracy(trained(options, train, len(training.classes), block, seed), *test) for seed in options.seeds]
        rows.append(
            Row(
                paper="blocks",
                preset=name,
                dataset=options.data_root.name,
                split=f"validation, {len(validation):,} images",
                metric="top-1",
                definition="percentage of images whose class has the largest logit, "
                f"after {options.epochs} epochs; the block is behind {LAYER}",
                value=float(np.mean(found)),
                std=float(np.std(found)),
                seeds=list(options.seeds),
            )
        )
        print(f"{name}: {', '.join(f'{value:.2f}' for value in found)}")
        write_rows(options.output, measured(rows, "cpu"))
    print(table(rows, {"network": list(BLOCKS)}))


def as_tensors(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Return all images `(N, 3, 32, 32)` in about [-2, 2], and their classes."""
    read = [pictures.read(index) for index in range(len(pictures))]
    values = torch.stack([torch.from_numpy(np.array(image)) for image, _ in read]).permute(0, 3, 1, 2)
    return (values / 255 - 0.47) / 0.25, torch.tensor([label for _, label in read])


def trained(
    options: CompareConfig, train: tuple[Tensor, Tensor], classes: int, block: Callable[[], nn.Module] | None, seed: int
) -> nn.Module:
    """Return the network of one seed after its training."""
    torch.manual_seed(seed)
    network = timm.create_model("resnet18", num_classes=classes, channels=(32, 64, 128, 256))
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False), nn.Identity()
    if block is not None:
        attach(network, LAYER, block())
    images, labels = train
    per_epoch = len(images) // options.batch_size
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.epochs * per_epoch
    )
    random = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(options.epochs), unit="epoch", desc=f"seed {seed}"):
        order = torch.randperm(len(images), generator=random)
        for chosen in order[: per_epoch * options.batch_size].split(options.batch_size):
            loss = F.cross_entropy(network(augmented(images[chosen], random)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift each image at random by up to 4 pixels and mirror it at random."""
    left, top = torch.randint(0, 9, (2, len(images)), generator=random).tolist()
    mirrored = torch.randint(0, 2, (len(images),), generator=random).bool()
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    return torch.stack([one[:, y : y + 32, x : x + 32] for one, x, y in zip(padded, left, top, strict=True)])


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    found = torch.cat([network(part).argmax(dim=1) for part in images.split(250)])
    return 100 * (found == labels).float().mean().item()


if __name__ == "__main__":
    main()
