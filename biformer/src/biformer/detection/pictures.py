"""Figures of detections: boxes, masks, names and scores drawn on images, annotations beside detections."""

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

SCORE = 0.7
"""Detections with lower scores are not drawn."""
_SHADE = 0.45
_LEAST_SIDE = 320


def draw(
    image: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[int],
    captions: Sequence[str],
    masks: Sequence[np.ndarray] | None = None,
) -> Image.Image:
    """Draw objects on a copy of an image, in the colours of their classes, the last object on top.

    Images with a side below 320 pixels are enlarged by a whole factor, so that the names can be read.

    Args:
        image: an RGB image.
        boxes: `(N, 4)`, left, top, right, bottom in pixels.
        labels: class numbers of the objects.
        captions: a text for each object.
        masks: for each object `(H, W)` of booleans.
    """
    plain = np.array(image, dtype=np.float32)
    pixels = plain.copy()
    for mask, label in zip(masks or [], labels, strict=False):
        pixels[mask] = (1 - _SHADE) * plain[mask] + _SHADE * np.array(colour(label))
    factor = max(1, -(-_LEAST_SIDE // min(image.size)))
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
    image: Image.Image, found: dict[str, Tensor], classes: Sequence[str], *, score: float = SCORE
) -> Image.Image:
    """Draw the detections that have at least this score in [0, 1]; the best is on top.

    Args:
        image: an RGB image.
        found: the output of `Detector` for this image.
        classes: names of the classes.
        score: lowest score that is drawn.
    """
    keep = [i for i in range(len(found["scores"])) if found["scores"][i] >= score][::-1]
    labels = found["labels"].tolist()
    masks = None
    if "masks" in found:
        masks = [pasted(found["masks"][i], found["boxes"][i], image.height, image.width).numpy() for i in keep]
    captions = [f"{classes[labels[i]]} {100 * float(found['scores'][i]):.0f} %" for i in keep]
    return draw(image, found["boxes"].cpu().numpy()[keep], [labels[i] for i in keep], captions, masks)


def draw_annotated(pictures: CocoPictures, index: int) -> Image.Image:
    """Draw the annotated objects of an image; with masks if all have shapes."""
    objects = pictures.objects[index]
    labels = objects.labels.tolist()
    shaped = bool(objects.shapes) and all(shape is not None for shape in objects.shapes)
    masks = list(pictures.masks(index).astype(bool)) if shaped else None
    return draw(pictures.read(index), objects.boxes, labels, [pictures.classes[i] for i in labels], masks)


def detection_sheet(
    detector: Detector, pictures: CocoPictures, device: torch.device, path: Path, *, count: int = 2
) -> Path:
    """Write a figure with the annotated and the detected objects of the first images of a split; return its path."""
    rows = []
    for index in range(min(count, len(pictures))):
        image = pictures.read(index)
        with torch.inference_mode():
            found = detector([to_tensor(image).to(device)])
        assert isinstance(found, list)
        both = (draw_annotated(pictures, index), draw_found(image, found[0], detector.class_names))
        rows.append([np.array(each) / 255 for each in both])
    return comparison_sheet(rows, ["annotated", f"found with a score of {SCORE} or more"], path)


def colour(label: int) -> tuple[int, int, int]:
    """The RGB colour of a class: ten colours of matplotlib, then ten lighter ones, then the same again."""
    red, green, blue = matplotlib.colormaps["tab10" if label % 20 < 10 else "Set3"].colors[label % 10]  # type: ignore[attr-defined]
    return round(255 * red), round(255 * green), round(255 * blue)


def _readable_on(background: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
