"""Pictures of scenes: false-colour composites, class maps with legend, confusion matrices.

Figures come from matplotlib's object interface; `common.figures.save` writes them as PNG.
The palette is fixed, so that class 3 has one colour in every picture. It begins with the colours
of Okabe and Ito; each further one was chosen farthest (CIELAB) from all before it and from
the dark of unlabelled pixels, as seen with normal sight, protanopia and deuteranopia together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.hyperspectral.scene import Scene

UNLABELLED = "#1A1A1A"
PALETTE = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#0D0DFF"),
    *("#EBEBC2", "#5E72FF", "#5EFFFF", "#724921", "#AEFF86", "#FF0D5E", "#860D72", "#5E0DAE"),
    *("#D7AEAE", "#9A0D49", "#729AFF", "#EB9A5E", "#4949FF", "#9A490D", "#C221AE", "#AED786"),
)
_TRUE_COLOUR = (640.0, 550.0, 460.0)
_INFRARED = (860.0, 650.0, 550.0)


def composite(scene: Scene, *, colours: Literal["true", "infrared"] = "true", percentile: float = 2.0) -> np.ndarray:
    """Three bands as a picture `(H, W, 3)`, float32 in [0, 1].

    Args:
        colours: "true" takes the bands nearest 640, 550 and 460 nm, "infrared" 860, 650 and 550 nm
            (vegetation red). Without wavelengths: the scene's own composite bands, else
            bands at 5/6, 1/2 and 1/6 of the spectrum.
        percentile: each band is stretched between this percentile and its complement, of the pixels with data;
            the others are black.
    """
    if scene.wavelengths is not None:
        wanted = _TRUE_COLOUR if colours == "true" else _INFRARED
        bands = [int(np.abs(scene.wavelengths - wavelength).argmin()) for wavelength in wanted]
    else:
        bands = list(scene.composite_bands or [scene.bands * part // 6 for part in (5, 3, 1)])
    picture = scene.cube[..., bands].astype(np.float32)
    low, high = np.percentile(picture[scene.valid], (percentile, 100 - percentile), axis=0)
    picture = np.clip((picture - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.where(scene.valid[..., None], picture, 0).astype(np.float32)


def class_colours(labels: np.ndarray) -> np.ndarray:
    """The picture `(H, W, 3)` uint8 of a label map: 0 dark, classes from the palette (which then repeats)."""
    palette = np.array([_rgb(colour) for colour in (UNLABELLED, *PALETTE)], dtype=np.uint8)
    return palette[np.where(labels > 0, (labels - 1) % len(PALETTE) + 1, 0)]


def class_map(labels: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """A label map with its legend: class, name and number of pixels."""
    return _figure([(class_colours(labels), title)], labels, class_names)


def sheet(scene: Scene, predicted: np.ndarray, *, title: str = "prediction") -> Figure:
    """Composite, ground truth where there is one, and prediction `(H, W)`, with the legend of the prediction."""
    predicted = np.where(scene.valid, predicted, 0)
    panels = [(composite(scene), scene.name)]
    if scene.labels is not None:
        panels.append((class_colours(scene.labels), "ground truth"))
    return _figure([*panels, (class_colours(predicted), title)], predicted, scene.class_names)


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """A confusion matrix `(K, K)`, true class by row: shade and number are the row's percentage, 0 left out."""
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


def _figure(panels: Sequence[tuple[np.ndarray, str]], labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Panels in a row (long scenes: in a column) and the legend beside or below them."""
    height, width = labels.shape
    wide = width > 2 * height
    long_side = 4.2 if not wide else 11.0
    panel = (long_side * min(1, width / height), long_side * min(1, height / width))
    columns = 4 if wide else 1
    legend = (0.0, 0.3 + 0.22 * -(-len(class_names) // columns)) if wide else (3.2, 0.0)
    rows, cols = (len(panels), 1) if wide else (1, len(panels))
    size = (
        cols * panel[0] + legend[0],
        max(rows * (panel[1] + 0.35) + legend[1], 0.25 * len(class_names) * (not wide)),
    )
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    for axis, (picture, title) in zip(figure.subplots(rows, cols, squeeze=False).flat, panels, strict=True):
        _show(axis, picture, title)
    counts = np.bincount(labels.ravel(), minlength=len(class_names) + 1)
    patches = [
        Patch(color=PALETTE[i % len(PALETTE)], label=f"{i + 1} {name} ({counts[i + 1]:,})")
        for i, name in enumerate(class_names)
    ]
    if counts[0]:
        patches.append(Patch(color=UNLABELLED, label=f"unlabelled ({counts[0]:,})"))
    place: Literal["outside lower center", "outside right center"]
    place = "outside lower center" if wide else "outside right center"
    figure.legend(handles=patches, loc=place, ncols=columns, fontsize=8, frameon=False)
    return figure


def _show(axis: Axes, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
