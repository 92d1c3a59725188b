"""The published training transform: resize, crop, mirror, distort colours, normalise, pad.

It is mmsegmentation's pipeline for ADE20K, written with torchvision's functions. Every sample has its own random
generator, made from (seed, epoch, index). Two changes of colour are written out because torchvision defines them
differently: here brightness is added, and saturation is scaled in HSV. Colours stay floats between the changes;
mmsegmentation rounds to 8 bits after each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from biformer.segmentation.data import Scenes
from biformer.segmentation.inference import fitted, normalised, resized
from biformer.segmentation.model import IGNORED

_CROP_ATTEMPTS = 10
_BRIGHTNESS = 32 / 255
_CONTRAST = _SATURATION = (0.5, 1.5)
_HUE = 18


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of a scene; the defaults are the published values.

    Attributes:
        size: side of the crop in pixels; also the shorter side of the image, before it is multiplied by a factor.
        scale: smallest and largest of these factors.
        category_share: up to ten crops are tried to get one in which no class covers more than this share.
        flip: probability of mirroring.
        distort: change brightness, contrast, saturation and hue.
    """

    size: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    category_share: float = 0.75
    flip: float = 0.5
    distort: bool = True

    def __call__(self, image: Tensor, labels: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`(3, H, W)` uint8 and `(H, W)` uint8 → `(3, size, size)` normalised and `(size, size)` uint8.

        Pixels outside the image are 0 after normalisation, and their label is 255.
        """
        height, width = fitted(labels.shape[0], labels.shape[1], self.size, random.uniform(*self.scale))
        image = resized(image, height, width)
        labels = TF.resize(labels[None], [height, width], InterpolationMode.NEAREST)[0]
        crop = self._crop(labels, random)
        image, labels = image[:, *crop], labels[crop]
        if random.random() < self.flip:
            image, labels = image.flip(-1), labels.flip(-1)
        colours = image.float() / 255
        x = normalised(distorted(colours, random) if self.distort else colours)
        padding = (0, self.size - labels.shape[1], 0, self.size - labels.shape[0])
        return F.pad(x, padding), F.pad(labels, padding, value=IGNORED)

    def _crop(self, labels: Tensor, random: np.random.Generator) -> tuple[slice, slice]:
        """A random crop; up to ten are tried until no class covers too many of the labelled pixels."""
        crop = self._anywhere(labels, random)
        if self.category_share >= 1:
            return crop
        for _ in range(_CROP_ATTEMPTS):
            counts = torch.bincount(labels[crop].flatten(), minlength=IGNORED + 1)[:IGNORED]
            if counts.count_nonzero() > 1 and counts.max() < self.category_share * counts.sum():
                break
            crop = self._anywhere(labels, random)
        return crop

    def _anywhere(self, labels: Tensor, random: np.random.Generator) -> tuple[slice, slice]:
        top, left = (int(random.integers(0, max(length - self.size, 0) + 1)) for length in labels.shape)
        return slice(top, top + self.size), slice(left, left + self.size)


def distorted(x: Tensor, random: np.random.Generator) -> Tensor:
    """mmsegmentation's `PhotoMetricDistortion`: each change has probability 0.5; contrast comes first or last.

    Args:
        x: `(3, H, W)`, RGB in [0, 1].
        random: generator; the order of the draws does not depend on the image.

    Returns:
        `(3, H, W)` in [0, 1].
    """
    contrast_first = bool(random.integers(2))
    brightness = random.uniform(-_BRIGHTNESS, _BRIGHTNESS) * random.integers(2)
    contrast, saturation = (
        random.uniform(*limits) if random.integers(2) else 1.0 for limits in (_CONTRAST, _SATURATION)
    )
    hue = int(random.integers(-_HUE, _HUE)) * int(random.integers(2))  # of 180 steps around the circle
    x = (x + brightness).clamp(0, 1)
    if contrast_first:
        x = (x * contrast).clamp(0, 1)
    if saturation != 1:
        x = saturated(x, saturation)
    if hue:
        x = TF.adjust_hue(x, hue / 180).clamp(0, 1)
    return x if contrast_first else (x * contrast).clamp(0, 1)


def saturated(x: Tensor, factor: float) -> Tensor:
    """Multiply the saturation in HSV by `factor`, at most up to 1; hue and value do not change.

    With V the largest channel and S = (V - smallest channel) / V, a channel x becomes V - (V - x)·min(factor, 1 / S).

    Args:
        x: `(3, H, W)`, RGB in [0, 1].
        factor: 0 or more.
    """
    value = x.amax(0, keepdim=True)
    limit = value / (value - x.amin(0, keepdim=True)).clamp(min=1e-6)
    return (value - (value - x) * limit.clamp(max=factor)).clamp(min=0)  # rounding can give values below 0


class TrainingScenes(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training scenes; item `(epoch, index)` → `(3, S, S)` and labels `(S, S)` uint8.

    Raises:
        UserError: on access, when an image or annotation cannot be used.
    """

    def __init__(self, scenes: Scenes, augmentation: Augmentation, seed: int) -> None:
        self.scenes, self.augmentation, self.seed = scenes, augmentation, seed

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, labels = self.scenes.read(index)
        return self.augmentation(image, labels, np.random.default_rng([self.seed, epoch, index]))
