"""Figures of scenes: false-colour composites, class maps with legend, confusion matrices.

Figures come from matplotlib's object interface; `common.figures.save` writes them as PNG.
The palette is fixed, so that a class has the same colour in every image. It begins with the colours of Okabe and Ito.
Each further colour is the one with the largest CIELAB distance from all before it and from the dark colour of
unlabelled pixels, for normal sight, protanopia and deuteranopia together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.hyperspectral.display import shown_bands
from common.hyperspectral.scene import Scene

UNLABELLED = "#1A1A1A"
PALETTE = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#0D0DFF"),
    *("#EBEBC2", "#5E72FF", "#5EFFFF", "#724921", "#AEFF86", "#FF0D5E", "#860D72", "#5E0DAE"),
    *("#D7AEAE", "#9A0D49", "#729AFF", "#EB9A5E", "#4949FF", "#9A490D", "#C221AE", "#AED786"),
)


def composite(scene: Scene) -> np.ndarray:
    """Return three bands as an image `(H, W, 3)`, float32 in [0, 1]; pixels without data are black.

    Each band is stretched between its 2nd and 98th percentile.
    """
    image = scene.cube[..., shown_bands(scene)].astype(np.float32)
    low, high = np.percentile(image[scene.valid], (2, 98), axis=0)
    image = np.clip((image - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.where(scene.valid[..., None], image, 0).astype(np.float32)


def class_colours(labels: np.ndarray) -> np.ndarray:
    """Return the image `(H, W, 3)` uint8 of a label map: 0 is dark, classes have the palette's colours (repeated)."""
    palette = (255 * to_rgba_array((UNLABELLED, *PALETTE))[:, :3]).round().astype(np.uint8)
    return palette[np.where(labels > 0, (labels - 1) % len(PALETTE) + 1, 0)]


def sheet(scene: Scene, predicted: np.ndarray, *, title: str = "prediction") -> Figure:
    """Draw the composite, the ground truth if there is one, and a predicted map `(H, W)` with its legend.

    The panels are in a row, for wide scenes in a column; the legend is beside or below them.
    """
    predicted, names = np.where(scene.valid, predicted, 0), scene.class_names
    panels = [(composite(scene), scene.name)]
    if scene.labels is not None:
        panels.append((class_colours(scene.labels), "ground truth"))
    panels.append((class_colours(predicted), title))
    counts = np.bincount(predicted.ravel(), minlength=len(names) + 1)
    patches = [
        Patch(color=PALETTE[i % len(PALETTE)], label=f"{i + 1} {name} ({counts[i + 1]:,})")
        for i, name in enumerate(names)
    ]
    if counts[0]:
        patches.append(Patch(color=UNLABELLED, label=f"unlabelled ({counts[0]:,})"))
    (height, width), count = scene.shape, len(panels)
    if width > 2 * height:
        size = (11.0, count * (11 * height / width + 0.35) + 0.3 + 0.22 * -(-len(names) // 4))
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        axes = figure.subplots(count, 1)
        figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    else:
        panel = 4.2 * min(1, width / height), 4.2 * min(1, height / width)
        size = (count * panel[0] + 3.2, max(panel[1] + 0.35, 0.25 * len(names)))
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        axes = figure.subplots(1, count)
        figure.legend(handles=patches, loc="outside right center", fontsize=8, frameon=False)
    for axis, (image, heading) in zip(axes, panels, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(heading, fontsize=10)
    return figure


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix `(K, K)`, true class by row; shade and number are percentages of the row."""
    classes = len(confusion)
    rows = confusion.sum(axis=1, keepdims=True)
    percent = np.divide(100 * confusion, rows, out=np.zeros(confusion.shape), where=rows > 0)
    side = 2.4 + 0.42 * classes
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(confusion):
        shade = "white" if percent[row, column] > 55 else "black"
        text = f"{percent[row, column]:.0f}" if percent[row, column] >= 0.5 else "<1"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    ticks = [f"{i} {name}" for i, name in enumerate(class_names, start=1)]
    axis.set_yticks(range(classes), ticks, fontsize=8)
    axis.set_xticks(range(classes), [f"{i}" for i in range(1, classes + 1)], fontsize=8)
    axis.set(xlabel="predicted class", ylabel="true class", title=title or "percent of the true class")
    return figure
