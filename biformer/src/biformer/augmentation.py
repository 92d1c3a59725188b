"""timm's transforms of an image before the network, with random choices that can be repeated exactly.

timm's augmentation uses the global generators of Python, NumPy and torch. Here they are set for each sample from
(seed, epoch, index) and restored afterwards. So a sample is the same in any loading process and after any restart, and
other code of the process is not affected.
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
    """timm's training transform with the values of `config`: PIL image → `(3, size, size)`, normalised."""
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


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's `posterize`; for 0 bits, its strongest form, which Pillow 13 refuses, the image is black."""
    return auto_augment.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def evaluation_transform(image_size: int = 224, crop_pct: float = CROP_SHARE) -> Transform:
    """The published evaluation transform: PIL image → `(3, image_size, image_size)`, normalised.

    Args:
        image_size: side of the centre crop in pixels.
        crop_pct: share of the resized image's side that is kept: the shorter side is resized to
            `image_size / crop_pct` pixels by bicubic interpolation.
    """
    return create_transform(image_size, is_training=False, interpolation="bicubic", crop_pct=crop_pct)


def check_image_size(image_size: int, model: BiFormer) -> None:
    """Refuse a size of images that the network cannot cut into regions.

    Args:
        image_size: side of the images in pixels.
        model: the network.

    Raises:
        UserError: the size is too small; the message has the smallest size.
    """
    if image_size < model.least_size:
        raise UserError(
            f"--image-size {image_size}: is smaller than the region grid of {model.num_regions}x{model.num_regions} "
            f"regions; expected {model.least_size} pixels or more, or fewer --num-regions in training"
        )


class TrainingPictures(Dataset[tuple[Tensor, int]]):
    """Augmented training images; item `(epoch, index)` → `(3, S, S)` and class number.

    With repeated augmentation an epoch uses a random 1/`repeats` of the images. Each of them is used `repeats` times
    with different random choices. These samples follow each other, so they are in the same global batch, as with timm's
    `RepeatAugSampler`.

    Args:
        pictures: images of the training split.
        transform: from `training_transform`.
        seed: seed of order and augmentation.
        repeats: how often an epoch uses an image; 1 for no repetition.
        strict: refuse unreadable images instead of using the next image.

    Raises:
        UserError: on access, for an unreadable image if `strict`, or if ten images in a row are unreadable.
    """

    def __init__(
        self, pictures: Pictures, transform: Transform, seed: int, *, repeats: int = 1, strict: bool = False
    ) -> None:
        self.pictures, self.transform, self.seed = pictures, transform, seed
        self.repeats, self.strict = repeats, strict
        # In shared memory, so that loading processes can record the images that they skip.
        self._unreadable = torch.zeros(len(pictures), dtype=torch.bool).share_memory_()
        self._epoch = -1

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = self._read(self._source(epoch, index))
        with seeded(self.seed, epoch, index):
            return self.transform(image), label

    def skipped(self) -> list[str]:
        """Names of the unreadable images that all loading processes have found so far."""
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
    """The images that one process scores; item → image `(3, S, S)`, class number, index in the split.

    An unreadable image has the class -1 and is all zeros.

    Args:
        pictures: images of the split.
        transform: from `evaluation_transform`.
        rank: number of this process.
        processes: how many processes there are.
        strict: refuse unreadable images.

    Raises:
        UserError: on access, for an unreadable image if `strict`.
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
            image, label = self.pictures.read(index)
        except UnreadablePicture as error:
            if self.strict:
                raise UserError(f"{error}, or remove --strict to skip it") from None
            return self.blank, -1, index
        return self.transform(image), label, index


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Set the global generators from `key`; at the end of the context, restore their former states."""
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
