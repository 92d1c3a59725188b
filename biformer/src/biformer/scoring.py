"""Top-1 and top-5 accuracy of whole splits; each image counts once, with any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.data import ImageNetInfo
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from biformer.augmentation import EvaluationPictures, Transform
from biformer.data import Pictures
from biformer.published import PUBLISHED
from common.errors import UserError
from common.results import Row
from common.sampling import begin_worker

TOP_1 = "percentage of images whose class has the largest logit"
TOP_5 = "percentage of images whose class is among the five largest logits"


@dataclass(frozen=True)
class Scores:
    """Scores of one network on one split.

    Attributes:
        top1, top5: in percent; top5 is None if there are fewer than six classes.
        loss: mean cross-entropy.
        pictures: number of scored images.
        unreadable: number of images that could not be read and were left out.
    """

    top1: float
    top5: float | None
    loss: float
    pictures: int
    unreadable: int


def score(
    model: nn.Module,
    pictures: Pictures,
    transform: Transform,
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int = 0,
    strict: bool = False,
) -> Scores:
    """Score a network; the processes share the images.

    Sums and counts are added over all processes, so every image has the same weight.

    Args:
        model: in evaluation mode.
        pictures: images of the split.
        transform: from `evaluation_transform`.
        accelerator: connects the processes.
        batch_size: number of images per batch of one process.
        workers: number of loading processes for each process.
        strict: refuse unreadable images.

    Returns:
        the same scores in every process.

    Raises:
        UserError: no image could be read.
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    device = next(model.parameters()).device
    share = EvaluationPictures(pictures, transform, rank=rank, processes=processes, strict=strict)
    # Without its own generator the loader would use the global one, and scoring would change the training.
    loader: DataLoader[Any] = DataLoader(
        share, batch_size, num_workers=workers, worker_init_fn=begin_worker, generator=torch.Generator()
    )
    sums = torch.zeros(5, dtype=torch.float64)  # correct, correct among five, loss, images, unreadable
    for images, labels, _ in tqdm(loader, unit="batch", disable=rank > 0, leave=False):
        with torch.inference_mode(), accelerator.autocast():
            logits = model(images.to(device)).float().cpu()
        readable = labels >= 0
        logits, truth = logits[readable], labels[readable]
        best = logits.topk(min(5, logits.shape[1])).indices == truth[:, None]
        loss = F.cross_entropy(logits, truth, reduction="sum")
        found = [best[:, 0].sum(), best.sum(), loss, readable.sum(), (~readable).sum()]
        sums += torch.stack([value.double() for value in found])
    # Metal and some other devices have no float64. In float32 these counts are exact up to 16.7 million.
    total = accelerator.reduce(sums.float().to(accelerator.device), reduction="sum") if processes > 1 else sums
    correct, correct5, loss_sum, count, unreadable = total.tolist()
    if not count:
        raise UserError(f"none of the {len(pictures)} images could be read (first: {pictures.names[0]})")
    top5 = 100 * correct5 / count if len(pictures.classes) > 5 else None
    return Scores(100 * correct / count, top5, loss_sum / count, int(count), int(unreadable))


def rows(
    scores: Scores, *, variant: str, preset: str, seeds: Sequence[int], dataset: str, split: str, crop: str
) -> list[Row]:
    """Result rows, with the published values if there are any.

    Args:
        scores: of the split.
        variant: name of the network's variant.
        preset: name of the preset in the rows.
        seeds: seeds of the training; none for released weights.
        dataset: from `dataset_name`.
        split: name of the split in the rows.
        crop: from `crop_text`, for the definition.
    """
    left_out = f", {scores.unreadable} unreadable ones left out" if scores.unreadable else ""
    found = []
    for metric, value, definition in (("top-1", scores.top1, TOP_1), ("top-5", scores.top5, TOP_5)):
        if value is None:
            continue
        published, source = PUBLISHED.get((variant, dataset, metric), (None, None))
        found.append(
            Row(
                paper="biformer",
                preset=preset,
                dataset=dataset,
                split=f"{split}, {scores.pictures:,} images{left_out}",
                metric=metric,
                definition=f"{definition}; {crop}",
                value=value,
                seeds=list(seeds),
                published=published,
                source=source,
            )
        )
    return found


def crop_text(image_size: int, crop_pct: float) -> str:
    """Describe how evaluation resizes and crops images, for the definition in result rows."""
    return f"bicubic resize of the shorter side to {int(image_size / crop_pct)} pixels, centre crop of {image_size}"


def dataset_name(root: Path | None, classes: Sequence[str]) -> str:
    """Name of the data set in the rows: "ImageNet-1K" if it has its class folders, otherwise the folder's name."""
    if len(classes) == 1000 and list(classes) == ImageNetInfo("imagenet-1k").label_names():
        return "ImageNet-1K"
    return root.resolve().name if root else "demo photographs"
