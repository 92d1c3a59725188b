"""Pairs of a blurred and a sharp image: random crops for training, whole images for scoring.

`layouts` finds the pairs. A training item has the key `(epoch, index)`, and every random choice for it is derived
from (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from fftformer.images import read_pixels, to_float

_RED_GREEN_BLUE = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # luma weights of the released saturation jitter


@dataclass(frozen=True)
class Pair:
    """A blurred image and its sharp image.

    Attributes:
        name: a relative path without suffix; each name occurs once in a data set.
        blurred, sharp: the files.
    """

    name: str
    blurred: Path
    sharp: Path


class TrainingPairs(Dataset[dict[str, Tensor]]):
    """Random crops of pairs for training; both images of a pair get the same augmentation.

    Flips and quarter turns are as published. The release also changes the saturation, by mistake in validation
    too; here only in training.

    Args:
        pairs: from `layouts.find_pairs`.
        crop: side of the square crops in pixels.
        seed: seed of every random choice.
        saturation_jitter: multiply the saturation of both images by 0.8 to 1.2, with probability 1/3, as released.

    Item `(epoch, index)`:
        `{"blurred", "sharp"}`, each `(3, crop, crop)` float32 in [0, 1].

    Raises:
        UserError: on access, when an image is damaged or smaller than the crop.
    """

    def __init__(self, pairs: Sequence[Pair], crop: int, seed: int, *, saturation_jitter: bool = True) -> None:
        if crop < 1:
            raise ValueError(f"crop must be at least 1, got {crop}")
        self.pairs, self.crop, self.seed = list(pairs), crop, seed
        self.saturation_jitter = saturation_jitter

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        pair, crop = self.pairs[index], self.crop
        blurred, sharp = read_pixels(pair.blurred), read_pixels(pair.sharp)
        height, width = sharp.shape[:2]
        if blurred.shape != sharp.shape:
            raise UserError(f"{pair.blurred}: found shape {blurred.shape}, expected {sharp.shape} as in {pair.sharp}")
        if min(height, width) < crop:
            raise UserError(
                f"{pair.blurred}: {width}x{height} pixels are too few for a crop of {crop}; "
                "use a smaller --crop or remove the pair"
            )
        top, left = int(random.integers(height - crop + 1)), int(random.integers(width - crop + 1))
        window = (slice(top, top + crop), slice(left, left + crop))
        turn = random_turn(random)
        images = [turn(to_float(np.asarray(pixels[window]))) for pixels in (blurred, sharp)]
        if self.saturation_jitter and random.integers(3) == 0:
            factor = np.float32(random.uniform(0.8, 1.2))
            images = [_saturate(image, factor) for image in images]
        return {"blurred": to_tensor(images[0]), "sharp": to_tensor(images[1])}


class EvaluationPairs(Dataset[dict[str, Any]]):
    """Whole pairs for scoring.

    Item `index`:
        `{"name": str, "blurred": Tensor, "sharp": Tensor}`, the images `(3, H, W)` float32 in [0, 1].

    Raises:
        UserError: on access, when an image is missing or damaged.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self.pairs[index]
        blurred, sharp = (to_tensor(to_float(np.asarray(read_pixels(path)))) for path in (pair.blurred, pair.sharp))
        return {"name": pair.name, "blurred": blurred, "sharp": sharp}


def random_turn(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Draw one of the eight combinations of flips and quarter turns, all equally likely.

    Returns:
        a function that turns an `(H, W, C)` image.
    """
    flip_vertical, flip_horizontal, transpose = random.integers(2, size=3)

    def turn(image: np.ndarray) -> np.ndarray:
        image = image[:: -1 if flip_vertical else 1, :: -1 if flip_horizontal else 1]
        return image.swapaxes(0, 1) if transpose else image

    return turn


def to_tensor(image: np.ndarray) -> Tensor:
    """Convert an `(H, W, 3)` image to a contiguous `(3, H, W)` tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _saturate(image: np.ndarray, factor: np.float32) -> np.ndarray:
    grey = (image @ _RED_GREEN_BLUE)[..., None]
    return (grey + factor * (image - grey)).clip(0, 1)
