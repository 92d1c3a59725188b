"""mIoU and pixel accuracies from one exact confusion matrix, which is summed over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from biformer.segmentation.data import FOLDER, Scenes
from biformer.segmentation.inference import Protocol, predict_labels
from biformer.segmentation.model import IGNORED, Segmenter
from biformer.segmentation.published import PUBLISHED
from common.errors import UserError
from common.files import atomic_path
from common.results import Row
from common.sampling import begin_worker

DEFINITIONS = {
    "mIoU": "intersection over union in percent, mean over the classes that occur in labels or prediction, from "
    "one confusion matrix of all labelled pixels",
    "mAcc": "percentage of a class's labelled pixels whose predicted class is correct, mean over the classes "
    "that occur in labels",
    "aAcc": "percentage of all labelled pixels whose predicted class is correct",
}


@dataclass(frozen=True)
class Scores:
    """The pixels of one split, counted by label and prediction.

    Attributes:
        confusion: `(classes, classes)` int64, numbers of pixels by label (row) and prediction (column).
        pictures: number of scored images.
    """

    confusion: np.ndarray
    pictures: int

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class in percent; NaN if a class is in neither labels nor prediction."""
        right = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        return _percent(right, union)

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy of each class in percent; NaN if a class is not in the labels."""
        return _percent(np.diag(self.confusion), self.confusion.sum(1))

    def values(self) -> dict[str, float]:
        """mIoU, mAcc and aAcc in percent."""
        right = np.trace(self.confusion)
        return {
            "mIoU": float(np.nanmean(self.iou)),
            "mAcc": float(np.nanmean(self.accuracy)),
            "aAcc": float(100 * right / self.confusion.sum()),
        }


class EvaluationScenes(Dataset[tuple[Tensor, Tensor]]):
    """The scenes that one process scores; item → image and labels, as `Scenes.read` returns them."""

    def __init__(self, scenes: Scenes, rank: int, processes: int) -> None:
        self.scenes, self.indices = scenes, range(rank, len(scenes), processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        return self.scenes.read(self.indices[position])


def score(
    model: Segmenter, scenes: Scenes, accelerator: Accelerator, protocol: Protocol, *, workers: int = 0
) -> Scores:
    """Score a network, one image at a time because the sizes differ; the processes share the images.

    Args:
        model: in evaluation mode.
        scenes: of the split.
        accelerator: connects the processes.
        protocol: sizes and views of the images.
        workers: number of loading processes for each process.

    Returns:
        the same scores in every process. Whole numbers are added, so the number of processes has no effect.

    Raises:
        UserError: an image or annotation cannot be used, or no pixel has a label.
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    device = next(model.parameters()).device
    share = EvaluationScenes(scenes, rank, processes)
    # Without its own generator the loader would use the global one, and scoring would change the training.
    loader: DataLoader[Any] = DataLoader(
        share, batch_size=None, num_workers=workers, worker_init_fn=begin_worker, generator=torch.Generator()
    )
    total = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=device)
    for image, labels in tqdm(loader, unit="image", disable=rank > 0, leave=False):
        with accelerator.autocast():
            found = predict_labels(model, image.to(device), protocol)
        total += confusion(labels.to(device), found, model.num_classes)
    if processes > 1:
        total = accelerator.reduce(total, reduction="sum")
    if not total.any():
        raise UserError(f"{scenes.root}: no pixel of the {len(scenes)} images is labelled; annotate some")
    return Scores(total.cpu().numpy(), len(scenes))


def confusion(labels: Tensor, found: Tensor, classes: int) -> Tensor:
    """Numbers of pixels by label and prediction, without ignored pixels: `(classes, classes)` int64."""
    counted = labels != IGNORED
    pairs = labels[counted].long() * classes + found[counted]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def rows(
    scores: Scores, model: Segmenter, *, preset: str, seeds: Sequence[int], dataset: str, split: str, protocol: Protocol
) -> list[Row]:
    """Result rows, with the published values if there are any.

    Args:
        scores: of the split.
        model: for its variant and head.
        preset: name of the preset in the rows.
        seeds: seeds of the training.
        dataset: from `dataset_name`.
        split: name of the split in the rows.
        protocol: sizes and views of the images, for the definition.
    """
    several = len(protocol.scales) > 1
    found = []
    for metric, value in scores.values().items():
        published, source = None, None
        if metric == "mIoU" and (dataset, split) == ("ADE20K", "validation"):
            published, source = PUBLISHED.get((model.variant, model.head_name, several), (None, None))
        found.append(
            Row(
                paper="biformer",
                preset=preset,
                dataset=dataset,
                split=f"{split}, {scores.pictures:,} images",
                metric=f"{metric}, multi-scale" if several else metric,
                definition=f"{DEFINITIONS[metric]}; {protocol.describe()}",
                value=value,
                seeds=list(seeds),
                published=published,
                source=source,
            )
        )
    return found


def dataset_name(scenes: Scenes, demo: bool) -> str:
    """Name of the data set in the rows: "ADE20K" for its folder with 150 classes, otherwise the folder's name."""
    if demo:
        return "demo scenes"
    root = scenes.root.resolve()
    if root.name == FOLDER:
        return "ADE20K" if len(scenes.classes) == 150 else root.parent.name
    return root.name


def write_classes(path: Path, scores: Scores, names: Sequence[str]) -> None:
    """Write IoU, accuracy and number of labelled pixels of every class as CSV."""
    lines = ["class,IoU,accuracy,labelled pixels"]
    for name, iou, accuracy, row in zip(names, scores.iou, scores.accuracy, scores.confusion, strict=True):
        lines.append(f"{name},{iou:.2f},{accuracy:.2f},{row.sum()}".replace("nan", ""))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(100 * part, whole, out=np.full(len(part), np.nan), where=whole > 0)
