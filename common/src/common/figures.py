"""Figures of a run: before/after sheets and training curves, as PNG.

Matplotlib's object interface is used throughout, so nothing depends on a display or on global state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common.files import atomic_path, printable


def comparison_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    path: str | Path,
    captions: Sequence[Sequence[str]] | None = None,
    *,
    width: float = 4.0,
) -> Path:
    """Save images side by side, one row per sample.

    Args:
        rows: images `(H, W, 3)` or `(H, W)` in [0, 1]; every row has the same number.
        titles: one per column.
        captions: text below each image, for example its PSNR.
        width: width of a column, in inches at 100 dots per inch.
    """
    # 0.45 inches for titles or captions, 0.1 between rows without any.
    texts = [0.45 if i == 0 or captions else 0.1 for i in range(len(rows))]
    heights = [
        width * max(image.shape[0] / image.shape[1] for image in row) + text
        for row, text in zip(rows, texts, strict=True)
    ]
    figure = Figure(figsize=(width * len(titles), sum(heights)), dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False, gridspec_kw={"height_ratios": heights})
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axes[i, j].imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[i, j].set(xticks=[], yticks=[])
            if i == 0:
                axes[i, j].set_title(printable(titles[j]), parse_math=False)  # a name may hold $
            if captions:
                axes[i, j].set_xlabel(printable(captions[i][j]), parse_math=False)
    return save(figure, path)


def curves(metrics: str | Path, path: str | Path, names: Sequence[str] | None = None) -> Path | None:
    """Draw the scalars of a run's metrics.jsonl over the steps, one panel each.

    Args:
        names: the scalars to draw; by default all except the speed.

    Returns:
        The image's path, or None when nothing has been recorded.
    """
    if not Path(metrics).exists():  # a run with --log-every 0 and no validation
        return None
    lines = [json.loads(line) for line in Path(metrics).read_text(encoding="utf-8").splitlines()]
    found = list(dict.fromkeys(key for line in lines for key in line if key not in ("step", "samples_per_second")))
    names = [name for name in names or found if name in found]
    if not names:
        return None
    figure = Figure(figsize=(5 * len(names), 3.4), dpi=100, layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None)
        axis.set(title=name.replace("_", " "), xlabel="step")
        axis.grid(alpha=0.3)
    return save(figure, path)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return Path(path)
