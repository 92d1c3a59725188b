"""Transforms of an annotated image before the network: a flip in training, then conversion to a tensor.

The network itself resizes, normalises and pads (`methods.Resizing`), so it takes images of any size, and boxes are in
the pixels of the original image. The flip is derived from (seed, epoch, index), so that a sample is the same in any
loading process and after any restart.

Differs from mmdetection: batches are not grouped by aspect ratio, so they are padded more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from biformer.detection.data import CocoPictures

Target = dict[str, Tensor]


class TrainingPictures(Dataset[Any]):
    """Flipped training images; item `(epoch, index)` → image and target.

    Images of a batch differ in size, so a whole batch is fetched as one sample: a list of images and a list of targets.
    The loader stacks this single sample, which adds a first dimension of 1 to every tensor; `unstacked` removes it.

    Args:
        pictures: of the training split, each with at least one object.
        seed: seed of the run.
        flip: probability of a horizontal flip.
        masks: whether targets have masks.

    Raises:
        UserError: on access, when an image is missing or damaged.
    """

    def __init__(self, pictures: CocoPictures, *, seed: int, flip: float = 0.5, masks: bool = False) -> None:
        self.pictures, self.seed, self.flip, self.with_masks = pictures, seed, flip, masks

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """An image `(3, H, W)` in [0, 1] and its `boxes` `(N, 4)`, `labels` `(N,)` and perhaps `masks` `(N, H, W)`."""
        epoch, index = key
        image = to_tensor(self.pictures.read(index))
        objects = self.pictures.objects[index]
        boxes = torch.from_numpy(objects.boxes)
        target = {"boxes": boxes, "labels": torch.from_numpy(objects.labels)}
        if self.with_masks:
            target["masks"] = torch.from_numpy(self.pictures.masks(index))
        if np.random.default_rng([self.seed, epoch, index]).random() < self.flip:
            image = image.flip(-1)
            target["boxes"] = torch.stack(
                (image.shape[-1] - boxes[:, 2], boxes[:, 1], image.shape[-1] - boxes[:, 0], boxes[:, 3]), dim=1
            )
            if self.with_masks:
                target["masks"] = target["masks"].flip(-1)
        return image, target

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[list[Tensor], list[Target]]]:
        """A batch as a list with one sample."""
        images, targets = zip(*(self[key] for key in keys), strict=True)
        return [(list(images), list(targets))]


class EvaluationPictures(Dataset[tuple[Tensor, int]]):
    """The images that one process scores; item → image `(3, H, W)` in [0, 1] and its index in the split."""

    def __init__(self, pictures: CocoPictures, *, rank: int = 0, processes: int = 1) -> None:
        self.pictures = pictures
        self.indices = range(rank, len(pictures), processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = self.indices[position]
        return to_tensor(self.pictures.read(index)), index


def unstacked(batch: tuple[list[Tensor], list[Target]]) -> tuple[list[Tensor], list[Target]]:
    """Remove the loader's first dimension of 1 from every image and target of a batch."""
    images, targets = batch
    return [image[0] for image in images], [{key: value[0] for key, value in target.items()} for target in targets]


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to `(3, H, W)` float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
