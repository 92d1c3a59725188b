"""Boxes, masks, names and scores drawn into an image, and annotated beside detected ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from biformer.detection.data import CocoPictures
from biformer.detection.model import Detector, pasted
from biformer.detection.transforms import to_tensor
from common.figures import comparison_sheet

SCORE = 0.5
"""What is found with less is not drawn."""
_SHADE = 0.45
_LEAST_SIDE = 320


def draw(
    picture: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[int],
    captions: Sequence[str],
    masks: Sequence[np.ndarray] | None = None,
) -> Image.Image:
    """A copy of an RGB image with objects drawn in their class's colour, the last one on top.

    An image below 320 pixels is enlarged by a whole factor, so that names can be read.

    Args:
        picture: to draw on.
        boxes: `(N, 4)`, left, top, right, bottom in pixels.
        labels: class numbers, for colours.
        captions: a text for each box.
        masks: `(H, W)` of booleans each.
    """
    plain = np.array(picture, dtype=np.float32)
    pixels = plain.copy()
    for mask, label in zip(masks or [], labels, strict=False):
        pixels[mask] = (1 - _SHADE) * plain[mask] + _SHADE * np.array(colour(label))
    factor = max(1, -(-_LEAST_SIDE // min(picture.size)))
    drawn = Image.fromarray(pixels.round().astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1))
    brush = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 250))
    font = ImageFont.load_default(size=max(11, round(min(drawn.size) / 32)))
    scaled = (boxes * factor).tolist()
    for box, label in zip(scaled, labels, strict=True):
        brush.rectangle(box, outline=colour(label), width=line)
    for box, label, caption in zip(scaled, labels, captions, strict=True):
        left, top, right, bottom = brush.textbbox((0, 0), caption, font=font)
        across, down = right - left + 4, bottom - top + 4
        x = min(max(box[0], 0), max(0, drawn.width - across))
        y = max(0, box[1] - down)
        brush.rectangle((x, y, x + across, y + down), fill=colour(label))
        brush.text((x + 2 - left, y + 2 - top), caption, fill=_readable_on(colour(label)), font=font)
    return drawn


def draw_found(
    picture: Image.Image, found: dict[str, Tensor], classes: Sequence[str], *, score: float = SCORE
) -> Image.Image:
    """Draw what a detector found with at least this score, the surest on top."""
    keep = [i for i in range(len(found["scores"])) if found["scores"][i] >= score][::-1]
    labels = found["labels"].tolist()
    masks = None
    if "masks" in found:
        masks = [pasted(found["masks"][i], found["boxes"][i], picture.height, picture.width).numpy() for i in keep]
    captions = [f"{classes[labels[i]]} {100 * float(found['scores'][i]):.0f} %" for i in keep]
    return draw(picture, found["boxes"].cpu().numpy()[keep], [labels[i] for i in keep], captions, masks)


def draw_annotated(pictures: CocoPictures, index: int) -> Image.Image:
    """Draw an image's annotated objects, with masks where they have shapes."""
    objects = pictures.objects[index]
    labels = objects.labels.tolist()
    shaped = bool(objects.shapes) and all(shape is not None for shape in objects.shapes)
    masks = list(pictures.masks(index).astype(bool)) if shaped else None
    return draw(pictures.read(index), objects.boxes, labels, [pictures.classes[i] for i in labels], masks)


def detection_sheet(
    detector: Detector, pictures: CocoPictures, device: torch.device, path: Path, *, count: int = 2
) -> Path:
    """Save annotated beside detected objects of a split's first images."""
    rows = []
    for index in range(min(count, len(pictures))):
        picture = pictures.read(index)
        with torch.inference_mode():
            found = detector([to_tensor(picture).to(device)])
        assert isinstance(found, list)
        both = (draw_annotated(pictures, index), draw_found(picture, found[0], detector.class_names))
        rows.append([np.array(each) / 255 for each in both])
    return comparison_sheet(rows, ["annotated", f"found with a score of {SCORE} or more"], path)


def colour(label: int) -> tuple[int, int, int]:
    """A class's colour: matplotlib's ten, then lighter ones, then from the beginning."""
    red, green, blue = matplotlib.colormaps["tab10" if label % 20 < 10 else "Set3"].colors[label % 10]  # type: ignore[attr-defined]
    return round(255 * red), round(255 * green), round(255 * blue)


def _readable_on(background: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
