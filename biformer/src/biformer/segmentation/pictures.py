"""Figures of segmentations: colours of the classes, overlays with a legend, annotations beside predictions."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from biformer.segmentation.data import Scenes
from biformer.segmentation.inference import Protocol, predict_labels
from biformer.segmentation.model import IGNORED, Segmenter
from common.figures import save

_OPACITY = 0.55
_LARGEST = 1600
"""Longer side of an overlay in pixels; larger photographs are reduced."""
_GOLDEN = 0.618034


def palette(classes: int) -> np.ndarray:
    """A colour for each class, `(classes, 3)` uint8: hues in steps of the golden section, and seven shades in turn."""
    # The hues of two classes are close if their numbers differ by a Fibonacci number. These classes have different
    # shades, because the first Fibonacci number that 7 divides is 21.
    shades = ((0.75, 0.95), (0.8, 0.85), (0.95, 0.6), (0.6, 0.9), (0.95, 0.95), (0.55, 0.7), (0.75, 0.45))
    colours = [colorsys.hsv_to_rgb(i * _GOLDEN % 1, *shades[i % len(shades)]) for i in range(classes)]
    return (np.array(colours) * 255).round().astype(np.uint8)


def label_picture(labels: np.ndarray, classes: int) -> Image.Image:
    """Convert labels to an 8-bit palette image with the codes of the data set: 1 for the first class, 0 for unlabelled.

    Args:
        labels: `(H, W)` class numbers from 0, 255 for unlabelled.
        classes: number of classes; the palette has their colours.
    """
    codes = (labels.astype(np.uint8) + np.uint8(1)).astype(np.uint8)
    image = Image.fromarray(codes)
    image.putpalette([0, 0, 0, *palette(classes).flatten().tolist()])
    return image


def blended(image: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Blend the colours of the labels `(H, W)` into an image `(H, W, 3)` uint8; unlabelled pixels do not change."""
    colours = np.vstack([palette(classes), np.zeros((IGNORED + 1 - classes, 3), np.uint8)])[labels]
    mixed = (1 - _OPACITY) * image + _OPACITY * colours
    return np.where((labels == IGNORED)[..., None], image, mixed.round()).astype(np.uint8)


def overlay(image: Image.Image, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """A photograph with the colours of its classes, and a legend at the right with the largest class first.

    Args:
        image: RGB; it is reduced if a side is longer than 1600 pixels.
        labels: `(H, W)` class numbers from 0, of the size of the image.
        names: names of the classes.
    """
    shares = np.bincount(labels.flatten(), minlength=len(names))[: len(names)] / labels.size
    found = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
    factor = min(1.0, _LARGEST / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    shown = Image.fromarray(blended(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), small, len(names)))
    letter = int(np.clip(size[1] // 28, 12, 28))
    font = ImageFont.load_default(letter)
    line, colours = round(1.5 * letter), palette(len(names))
    texts = [f"{names[i]}  {100 * shares[i]:.1f} %" for i in found]
    width = round(max(font.getlength(text) for text in texts) + 3 * letter)
    sheet = Image.new("RGB", (size[0] + width, max(size[1], line * len(found) + letter)), "white")
    sheet.paste(shown, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for row, (i, text) in enumerate(zip(found, texts, strict=True)):
        left, top = size[0] + letter // 2, row * line + letter // 2
        draw.rectangle((left, top, left + letter, top + letter), fill=tuple(colours[i].tolist()), outline="black")
        draw.text((left + 1.5 * letter, top + letter / 2), text, fill="black", font=font, anchor="lm")
    return sheet


def prediction_sheet(
    model: Segmenter, scenes: Scenes, protocol: Protocol, device: torch.device, path: Path, *, count: int = 3
) -> Path:
    """Draw the first scenes of a split with their annotations and predictions; return the path of the figure."""
    indices = range(min(count, len(scenes)))
    classes, present = len(scenes.classes), set()
    figure = Figure(figsize=(9, 2.4 * len(indices) + 0.6), dpi=100, layout="constrained")
    axes = figure.subplots(len(indices), 3, squeeze=False)
    for row, index in zip(axes, indices, strict=True):
        image, labels = scenes.read(index)
        found = predict_labels(model, image.to(device), protocol).cpu().numpy()
        pixels, expected = image.permute(1, 2, 0).numpy(), labels.numpy()
        right = 100 * (found == expected)[expected != IGNORED].mean() if (expected != IGNORED).any() else np.nan
        for axis, shown in zip(
            row, (pixels, blended(pixels, expected, classes), blended(pixels, found, classes)), strict=True
        ):
            axis.imshow(shown, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[2].set_xlabel(f"{right:.1f} % of the pixels right")
        present |= set(np.unique(expected).tolist()) | set(np.unique(found).tolist())
    for axis, title in zip(axes[0], ("image", "annotation", "prediction"), strict=True):
        axis.set_title(title)
    colours = palette(classes) / 255
    patches = [Patch(color=colours[i], label=scenes.classes[i]) for i in sorted(present - {IGNORED})]
    figure.legend(handles=patches[:40], loc="outside lower center", ncols=min(6, len(patches)))
    return save(figure, path)
