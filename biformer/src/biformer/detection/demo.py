"""The data of the demo in COCO's layout: coins, cups and horses, cut out of images that scikit-image installs.

The objects are turned, resized and pasted on photographs of grass, gravel and brick, which are grey and get a colour
here. Some objects cover others a little. Each has a box, polygons and an area. A heap of coins is a crowd region, and
one image of each split has no object. Category numbers have gaps, as in COCO. Nothing is downloaded, and every call
writes the same files.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageOps
from skimage import filters, measure, morphology, segmentation

from biformer.detection.coco import coco_mask
from biformer.detection.data import SPLITS
from common.files import atomic_path, write_json

CATEGORIES = {3: "coin", 19: "horse", 47: "cup"}
"""Number → name; 19 and 47 are the numbers in COCO."""
_GROUNDS = {
    "grass.png": ((10, 35, 5), (190, 225, 130)),
    "gravel.png": ((15, 25, 75), (165, 195, 255)),
    "brick.png": ((50, 20, 15), (235, 190, 170)),
}
"""Grey photographs, and the colours that replace black and white."""
_SIZES = ((128, 96), (112, 96), (120, 96))
_SIDES = {"coin": (26, 38), "horse": (48, 72), "cup": (44, 68)}
_LEAST_VISIBLE = 0.85
_CROWD = 1
"""Number of the training image with the heap of coins."""


def write_demo(folder: Path, *, training: int = 97, validation: int = 8) -> Path:
    """Write the data set into `folder`, with these numbers of training and validation images; return `folder`."""
    for split, count in (("train", training), ("validation", validation)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            name = f"{number + 1:012d}.jpg"
            image, found = _compose(split, number, empty=number == count - 1)
            with atomic_path(folder / SPLITS[split] / name) as temporary:
                image.save(temporary, quality=95)
            images.append({"id": 100 + number, "file_name": name, "width": image.width, "height": image.height})
            annotations += [
                {"id": len(annotations) + i + 1, "image_id": 100 + number, **a} for i, a in enumerate(found)
            ]
        categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / f"instances_{SPLITS[split]}.json", content)
    return folder


def _compose(split: str, number: int, *, empty: bool) -> tuple[Image.Image, list[dict[str, Any]]]:
    random = np.random.default_rng([number, split == "validation"])
    width, height = _SIZES[number % len(_SIZES)]
    name, tints = list(_GROUNDS.items())[number % len(_GROUNDS)]
    ground = ImageOps.colorize(_installed(name).convert("L"), *tints).resize((320, 320))
    left, top = (int(random.integers(0, 320 - length + 1)) for length in (width, height))
    image = ground.crop((left, top, left + width, top + height))
    owner = np.full((height, width), -1)  # which object a pixel shows
    placed: list[tuple[int, bool, int]] = []  # category, in the heap or not, pixels before any were covered
    heap = [(3, (0.5 + 0.09 * dx, 0.5 + 0.1 * dy)) for dx in (-1, 1) for dy in (-1, 0, 1)]
    chosen = [(int(random.choice(list(CATEGORIES))), None) for _ in range(0 if empty else random.integers(2, 4))]
    for category, place in [*(heap if number == _CROWD and split == "train" else []), *chosen]:
        cut_out = _turned(CATEGORIES[category], random)
        left, top = (
            int(random.uniform(-0.05, 1.05) * max(1, length - side) if share is None else share * length - side / 2)
            for length, side, share in zip((width, height), cut_out.size, place or (None, None), strict=True)
        )
        layer = Image.new("L", (width, height))
        layer.paste(cut_out.getchannel("A"), (left, top))
        mask = np.array(layer) > 127
        hidden = [(owner[mask] == i).sum() / pixels for i, (_, crowd, pixels) in enumerate(placed) if not crowd]
        if place is None and (mask.sum() < 150 or max(hidden, default=0) > 1 - _LEAST_VISIBLE):
            continue
        image.paste(cut_out.convert("RGB"), (left, top), cut_out.getchannel("A"))
        owner[mask] = len(placed)
        placed.append((category, place is not None, int(mask.sum())))
    crowd = np.isin(owner, [i for i, (_, in_heap, _) in enumerate(placed) if in_heap])
    found = [_annotation(3, crowd, crowd=True)] if crowd.any() else []
    for i, (category, in_heap, pixels) in enumerate(placed):
        if not in_heap and (owner == i).sum() >= 0.3 * pixels:
            found.append(_annotation(category, owner == i))
    return image, found


def _annotation(category: int, mask: np.ndarray, *, crowd: bool = False) -> dict[str, Any]:
    """COCO's fields of one object: polygons, or uncompressed run lengths for a crowd region."""
    lengths = coco_mask().encode(np.asfortranarray(mask.astype(np.uint8)))
    box = [float(x) for x in coco_mask().toBbox(lengths)]
    if crowd:
        runs = mask.flatten(order="F")
        ends = np.flatnonzero(np.diff(runs)) + 1
        counts = [int(b - a) for a, b in pairwise([0, *ends.tolist(), len(runs)])]
        segmentation: Any = {"size": list(mask.shape), "counts": [0, *counts] if runs[0] else counts}
    else:
        lines = measure.find_contours(np.pad(mask, 1).astype(float), 0.5)
        # Contours have (row, column) of pixel centres in the padded image; COCO has (x, y) from the pixels' corners.
        segmentation = [np.round(line[:, ::-1] - 0.5, 1).flatten().tolist() for line in lines if len(line) >= 8]
    return {
        "category_id": category,
        "bbox": box,
        "area": float(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": segmentation,
    }


def _turned(name: str, random: np.random.Generator) -> Image.Image:
    """A cut-out of random size; coins get any angle, cups and horses a small one."""
    cut_outs = _cut_outs(name)
    cut_out = cut_outs[int(random.integers(len(cut_outs)))]
    if random.random() < 0.5:
        cut_out = cut_out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = random.uniform(0, 360) if name == "coin" else random.uniform(-15, 15)
    cut_out = cut_out.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    cut_out = cut_out.crop(cut_out.getchannel("A").getbbox())
    side = random.uniform(*_SIDES[name]) / max(cut_out.size)
    return cut_out.resize([max(1, round(side * length)) for length in cut_out.size], Image.Resampling.LANCZOS)


@cache
def _cut_outs(name: str) -> list[Image.Image]:
    """Images of one category with a transparent background."""
    if name == "horse":
        horse = _installed("horse.png").convert("RGBA")
        dark = np.array(horse.convert("L")) < 128
        coat = Image.new("RGB", horse.size, (96, 58, 32))
        return [_transparent(coat, dark & (np.array(horse.getchannel("A")) > 127))]
    if name == "cup":
        cup = _installed("coffee.png").convert("RGB")
        shape = Image.new("L", cup.size)
        ImageDraw.Draw(shape).ellipse((74, 24, 480, 385), fill=255)  # the saucer
        ImageDraw.Draw(shape).ellipse((170, 16, 420, 200), fill=255)  # the rim above it
        return [_transparent(cup, np.array(shape) > 127)]
    coins = _installed("coins.png").convert("L")
    grey = np.array(coins)
    solid = segmentation.clear_border(morphology.closing(grey > filters.threshold_otsu(grey), morphology.disk(3)))
    regions = [region for region in measure.regionprops(measure.label(solid)) if region.area_filled > 800]
    cut_outs = []
    for region in regions:
        top, left, bottom, right = region.bbox
        cut_outs.append(_transparent(coins.crop((left, top, right, bottom)), region.image_filled))
    return cut_outs


def _transparent(image: Image.Image, shape: np.ndarray) -> Image.Image:
    cut_out = image.convert("RGBA")
    cut_out.putalpha(Image.fromarray((255 * shape).astype(np.uint8)))
    return cut_out.crop(cut_out.getchannel("A").getbbox())


def _installed(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as file:
        file.load()
        return file
