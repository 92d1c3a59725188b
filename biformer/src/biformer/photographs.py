"""The data of the demo: crops of photographs and textures that scikit-image installs; each image is one class.

Training crops are from the left part of an image, test crops from the right part. Between the parts there is a gap.
Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from biformer.data import Pictures

FILES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
CROP = 96
"""Side of a crop in pixels."""
TRAINING_SHARE = 0.6
"""Share of an image's width for training; a gap of 8 pixels follows, then the test part."""
GAP = 8
_HEIGHT = 320
"""Larger images are reduced to this height in pixels, so that a crop shows a part that can be recognised."""


def demo_pictures(training_crops: int = 60, test_crops: int = 20) -> tuple[Pictures, Pictures]:
    """Training and test crops, with these numbers of crops of each class."""
    return _crops("train", training_crops), _crops("test", test_crops)


def part(name: str, split: str) -> tuple[int, int]:
    """Columns [first, end) of the image `name` that belong to the split "train" or "test"."""
    width = photograph(name).width
    border = int(TRAINING_SHARE * width)
    return (0, border) if split == "train" else (border + GAP, width)


@cache
def photograph(name: str) -> Image.Image:
    """An image in RGB; large images are reduced."""
    with Image.open(Path(skimage.__file__).parent / "data" / FILES[name]) as file:
        image = file.convert("RGB")
    if image.height > _HEIGHT:
        image = image.resize((round(image.width * _HEIGHT / image.height), _HEIGHT), Image.Resampling.BICUBIC)
    return image


def corner(name: str, split: str, number: int) -> tuple[int, int]:
    """Left and top of the crop `number` in pixels; they are random but always the same."""
    random = np.random.default_rng([number, list(FILES).index(name), split == "test"])
    first, end = part(name, split)
    return int(random.integers(first, end - CROP + 1)), int(random.integers(0, photograph(name).height - CROP + 1))


def _crops(split: str, count: int) -> Pictures:
    classes = sorted(FILES)
    names = [f"{split}/{name}/{number}" for name in classes for number in range(count)]
    labels = [i for i in range(len(classes)) for _ in range(count)]
    return Pictures(names, labels, classes, partial(_load, classes, split, count))


def _load(classes: list[str], split: str, count: int, index: int) -> tuple[Image.Image, int]:
    label, number = divmod(index, count)
    left, top = corner(classes[label], split, number)
    return photograph(classes[label]).crop((left, top, left + CROP, top + CROP)), label
