"""The data of the demo in ADE20K's layout: objects pasted on backgrounds, from photographs that scikit-image installs.

There are six classes. The backgrounds are a brick wall, grass and galaxies; brick and grass are grey photographs that
get a colour here. The objects are coins, a cat's face and a cup on its saucer. Validation scenes use other parts of
the backgrounds and other coins; there is only one photograph of the cat and one of the cup. A ring around every object
is unlabelled, like the outlines in ADE20K. Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps
from skimage import measure, morphology

from common.files import atomic_path

CLASSES = ("brick", "grass", "galaxies", "coin", "cat", "cup")
_GROUNDS = ("brick.png", "grass.png", "hubble_deep_field.jpg")
_TINTS = {"brick.png": ((50, 20, 15), (235, 190, 170)), "grass.png": ((10, 35, 5), (190, 225, 130))}
"""Grey photographs, and the colours that replace black and white."""
SIZE = (128, 96)
"""Width and height of a scene in pixels."""
_TRAINING_SHARE = 0.6
_ELLIPSES = {"cat": ("chelsea.png", (210, 145), (150, 128)), "cup": ("coffee.png", (278, 204), (201, 186))}
"""Objects that are cut out by an ellipse: photograph, centre and half axes (horizontal, vertical) in pixels."""
_SPLITS = {"training": "train", "validation": "val"}


def write_demo(root: Path, *, training: int = 96, validation: int = 16) -> Path:
    """Write `root`/ADEChallengeData2016 if it does not exist; the files are always the same.

    Args:
        root: a folder; it is created if it is missing.
        training, validation: numbers of scenes.

    Returns:
        the folder of the data set.
    """
    folder = root / "ADEChallengeData2016"
    table = folder / "objectInfo150.txt"
    if table.exists():  # written last
        return folder
    for split, count in (("training", training), ("validation", validation)):
        for number in range(1, count + 1):
            image, labels = scene(split, number)
            name = f"ADE_{_SPLITS[split]}_{number:08d}"
            with atomic_path(folder / "images" / split / f"{name}.jpg") as temporary:
                Image.fromarray(image).save(temporary, quality=95)
            with atomic_path(folder / "annotations" / split / f"{name}.png") as temporary:
                Image.fromarray(labels).save(temporary)
    lines = [f"{i}\t0\t0\t0\t0\t{name}" for i, name in enumerate(CLASSES, start=1)]
    with atomic_path(table) as temporary:
        temporary.write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def scene(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene `(H, W, 3)` uint8 and its labels `(H, W)` uint8, 0 for unlabelled; it depends only on the arguments."""
    random = np.random.default_rng([number, split == "training"])
    ground = number % len(_GROUNDS)
    width, height = SIZE
    image = _ground(_GROUNDS[ground], split, random)
    labels = np.full((height, width), ground + 1, dtype=np.uint8)
    for _ in range(int(random.integers(2, 4))):
        kind = str(random.choice(["coin", "coin", "cat", "cup"]))
        cut = _coins(split)[int(random.integers(len(_coins(split))))] if kind == "coin" else _ellipse(kind)
        side = int(random.integers(32, 44) if kind == "coin" else random.integers(52, 72))
        scale = side / max(cut.size)
        cut = cut.resize((round(cut.width * scale), round(cut.height * scale)), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = int(random.integers(0, width - cut.width + 1))
        top = int(random.integers(0, height - cut.height + 1))
        here = (slice(top, top + cut.height), slice(left, left + cut.width))
        inside = np.asarray(cut)[..., 3] > 127
        image[here][inside] = np.asarray(cut)[inside][:, :3]
        ring = morphology.dilation(inside) & ~morphology.erosion(inside)
        labels[here] = np.where(inside, CLASSES.index(kind) + 1, labels[here])
        labels[here] = np.where(ring, 0, labels[here])
    return image, labels


def _photograph(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as file:
        return file.convert("RGB")


@cache
def _half(name: str) -> Image.Image:
    whole = _photograph(name)
    if name in _TINTS:
        whole = ImageOps.colorize(whole.convert("L"), *_TINTS[name])
    return whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.BICUBIC)


def _ground(name: str, split: str, random: np.random.Generator) -> np.ndarray:
    """A crop of a background, from its upper part for training and from its lower part for validation."""
    photograph = _half(name)
    width, height = SIZE
    border = int(_TRAINING_SHARE * photograph.height)
    first, end = (0, border) if split == "training" else (border, photograph.height)
    left = int(random.integers(0, photograph.width - width + 1))
    top = int(random.integers(first, end - height + 1))
    return np.array(photograph.crop((left, top, left + width, top + height)))


@cache
def _coins(split: str) -> tuple[Image.Image, ...]:
    """Coins as RGBA, cut out by their brightness; the left ones are for training, the others for validation."""
    grey = np.asarray(_photograph("coins.png"))
    bright = morphology.closing(grey[..., 0] > 110, morphology.disk(2))
    border = _TRAINING_SHARE * grey.shape[1]
    found = []
    for region in measure.regionprops(measure.label(bright)):
        top, left, bottom, right = region.bbox
        # Only round regions, without the bright upper edge of the photograph.
        round_ = min(bottom - top, right - left) > 25 and max(bottom - top, right - left) < 80
        if round_ and (left < border) == (split == "training"):
            alpha = np.where(region.image_filled, 255, 0).astype(np.uint8)
            found.append(Image.fromarray(np.dstack([grey[region.slice], alpha])))
    return tuple(found)


@cache
def _ellipse(kind: str) -> Image.Image:
    name, (x, y), (across, down) = _ELLIPSES[kind]
    photograph = _photograph(name).crop((x - across, y - down, x + across, y + down))
    rows, columns = np.ogrid[-1 : 1 : photograph.height * 1j, -1 : 1 : photograph.width * 1j]
    alpha = Image.fromarray(np.where(rows**2 + columns**2 <= 1, 255, 0).astype(np.uint8))
    photograph.putalpha(alpha)
    return photograph
