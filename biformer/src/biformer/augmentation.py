"""Transforms of an image before the network: timm's, with random choices that repeat exactly.

timm's augmentation draws from the global generators of Python, NumPy and torch. Here they are set
per sample from (seed, epoch, index) and put back afterwards, so that a sample is the same in any
loading process and after any restart, and nothing else in the process notices.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from torch import Tensor
from torch.utils.data import Dataset

from biformer.data import Pictures, UnreadablePicture
from biformer.model import CROP_SHARE, BiFormer
from biformer.presets import Config
from common.errors import UserError
from common.sampling import EndlessSampler

Transform = Callable[[Image.Image], Tensor]
_ATTEMPTS = 10


def training_transform(config: Config) -> Transform:
    """timm's training transform with the preset's numbers: PIL image → `(3, size, size)`, normalised."""
    transform = create_transform(
        config.image_size,
        is_training=True,
        scale=(config.crop_area, 1.0),
        ratio=(config.crop_ratio, 1 / config.crop_ratio),
        hflip=config.flip,
        color_jitter=config.colour_jitter,
        auto_augment=config.auto_augment or None,
        interpolation="bicubic",
        re_prob=config.erasing,
        re_mode="pixel",
    )
    for step in transform.transforms:
        for operation in getattr(step, "ops", ()):  # of RandAugment
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterize
    return transform


def posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's at the strongest: it asks for no bits at all, which is black, but which Pillow 13 refuses."""
    return auto_augment.posterize(picture, bits) if bits else Image.new(picture.mode, picture.size)


def evaluation_transform(image_size: int = 224, crop_pct: float = CROP_SHARE) -> Transform:
    """The published evaluation: bicubic resize of the shorter side to size / crop_pct, centre crop, normalisation."""
    return create_transform(image_size, is_training=False, interpolation="bicubic", crop_pct=crop_pct)


def check_image_size(image_size: int, model: BiFormer) -> None:
    """Refuse images that the network cannot cut into its regions.

    Raises:
        UserError: with the smallest size.
    """
    if image_size < model.least_size:
        raise UserError(
            f"--image-size {image_size}: is smaller than the region grid of {model.num_regions}x{model.num_regions} "
            f"regions; expected {model.least_size} pixels or more, or fewer --num-regions in training"
        )


class TrainingPictures(Dataset[tuple[Tensor, int]]):
    """Augmented training images; item `(epoch, index)` → `(3, S, S)` and class number.

    With repeated augmentation an epoch shows a random 1/repeats of the images, each `repeats`
    times with other random choices and next to each other in the order of samples, so in the same
    global batch, as timm's `RepeatAugSampler` arranges it.

    Args:
        pictures: of the training split.
        transform: from `training_transform`.
        seed: of order and augmentation; the run's.
        repeats: how often an epoch shows an image; 1 for no repetition.
        strict: refuse unreadable images, instead of taking the next one.

    Raises:
        UserError: on access, for an unreadable image if `strict`, or for ten in a row.
    """

    def __init__(
        self, pictures: Pictures, transform: Transform, seed: int, *, repeats: int = 1, strict: bool = False
    ) -> None:
        self.pictures, self.transform, self.seed = pictures, transform, seed
        self.repeats, self.strict = repeats, strict
        # Shared, so that loading processes can note what they skipped.
        self._unreadable = torch.zeros(len(pictures), dtype=torch.bool).share_memory_()
        self._epoch = -1

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        picture, label = self._read(self._source(epoch, index))
        with seeded(self.seed, epoch, index):
            return self.transform(picture), label

    def skipped(self) -> list[str]:
        """Names of the images that could not be read so far, in any loading process."""
        return [self.pictures.names[i] for i in self._unreadable.nonzero().flatten().tolist()]

    def _source(self, epoch: int, index: int) -> int:
        if self.repeats == 1:
            return index
        if epoch != self._epoch:
            length = len(self)
            stream = EndlessSampler(length, batch_size=length, seed=self.seed, start=epoch)
            self._order = np.fromiter((key[1] for key in islice(stream, length)), dtype=np.int64, count=length)
            self._position = np.argsort(self._order)
            self._epoch = epoch
        return int(self._order[self._position[index] // self.repeats])

    def _read(self, index: int) -> tuple[Image.Image, int]:
        for attempt in range(_ATTEMPTS):
            i = (index + attempt) % len(self.pictures)
            try:
                return self.pictures.read(i)
            except UnreadablePicture as error:
                if self.strict:
                    raise UserError(f"{error}, or remove --strict to skip it") from None
                self._unreadable[i] = True
        raise UserError(
            f"{self.pictures.names[index]} and the {_ATTEMPTS - 1} images after it cannot be read; "
            "copy the data set again"
        )


class EvaluationPictures(Dataset[tuple[Tensor, int, int]]):
    """One process's share of the images to score; item → `(3, S, S)`, class number, index.

    An unreadable image has class -1 and zeros, or is refused if `strict`.
    """

    def __init__(
        self, pictures: Pictures, transform: Transform, *, rank: int = 0, processes: int = 1, strict: bool = False
    ) -> None:
        self.pictures, self.transform, self.strict = pictures, transform, strict
        self.indices = range(rank, len(pictures), processes)
        self.blank: Any = transform(Image.new("RGB", (8, 8))) * 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        index = self.indices[position]
        try:
            picture, label = self.pictures.read(index)
        except UnreadablePicture as error:
            if self.strict:
                raise UserError(f"{error}, or remove --strict to skip it") from None
            return self.blank, -1, index
        return self.transform(picture), label, index


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Set the global generators from `key`; on leaving, put them back as they were."""
    number = int(np.random.SeedSequence(key).generate_state(1)[0])
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - timm's transforms draw from it
    torch.default_generator.manual_seed(number)  # not torch.manual_seed, which would reset the GPU's generators too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
        torch.set_rng_state(tensor)
