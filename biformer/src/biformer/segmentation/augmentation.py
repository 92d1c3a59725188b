"""The published training transform: resize, crop, mirror, distort colours, normalise, pad.

It is mmsegmentation's pipeline for ADE20K on torchvision's functions, with one random generator per sample,
made from (seed, epoch, index). Where torchvision's colour changes are others than mmseg's (brightness is
added, saturation scaled in HSV) they are written out. Colours stay floats between the changes; mmseg rounds
to 8 bits after each.
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
    """What training does to a scene; the defaults are the published values.

    Attributes:
        size: side of the crop, and of the shorter side before it is scaled, in pixels.
        scale: smallest and largest factor of the resized image.
        category_share: ten crops are tried for one in which no class covers more than this share.
        flip: probability of mirroring.
        distort: change brightness, contrast, saturation and hue.
    """

    size: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    category_share: float = 0.75
    flip: float = 0.5
    distort: bool = True

    def __call__(self, picture: Tensor, labels: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`(3, H, W)` uint8 and `(H, W)` uint8 → `(3, size, size)` normalised and `(size, size)` uint8.

        What lies outside of the image is 0 after normalisation and 255 in the labels.
        """
        height, width = fitted(labels.shape[0], labels.shape[1], self.size, random.uniform(*self.scale))
        picture = resized(picture, height, width)
        labels = TF.resize(labels[None], [height, width], InterpolationMode.NEAREST)[0]
        crop = self._crop(labels, random)
        picture, labels = picture[:, *crop], labels[crop]
        if random.random() < self.flip:
            picture, labels = picture.flip(-1), labels.flip(-1)
        colours = picture.float() / 255
        x = normalised(distorted(colours, random) if self.distort else colours)
        padding = (0, self.size - labels.shape[1], 0, self.size - labels.shape[0])
        return F.pad(x, padding), F.pad(labels, padding, value=IGNORED)

    def _crop(self, labels: Tensor, random: np.random.Generator) -> tuple[slice, slice]:
        """A random crop in which, if ten attempts give one, two classes or more share the labelled pixels."""
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
    """mmseg's `PhotoMetricDistortion`; each change with probability a half, contrast first or last.

    Args:
        x: `(3, H, W)`, RGB in [0, 1].
        random: drawn from in an order that does not depend on the image.
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
    """Multiply the saturation of HSV by `factor`, at most to 1; hue and value stay.

    With V the largest channel and S = (V - smallest) / V, every channel moves to V - (V - x)·min(factor, 1 / S).
    """
    value = x.amax(0, keepdim=True)
    limit = value / (value - x.amin(0, keepdim=True)).clamp(min=1e-6)
    return (value - (value - x) * limit.clamp(max=factor)).clamp(min=0)  # against rounding


class TrainingScenes(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training scenes; item `(epoch, index)` → `(3, S, S)` and labels `(S, S)` uint8.

    Raises:
        UserError: on access, for an image or annotation that cannot be used.
    """

    def __init__(self, scenes: Scenes, augmentation: Augmentation, seed: int) -> None:
        self.scenes, self.augmentation, self.seed = scenes, augmentation, seed

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        picture, labels = self.scenes.read(index)
        return self.augmentation(picture, labels, np.random.default_rng([self.seed, epoch, index]))
