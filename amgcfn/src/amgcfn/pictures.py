"""Figures of the superpixel graph and of the confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from amgcfn.graph import SuperpixelGraph
from common.figures import save


def draw_graph(composite: np.ndarray, graph: SuperpixelGraph, path: str | Path, *, title: str = "") -> Path:
    """Save a PNG: superpixel boundaries over the scene, and beside it the graph's edges by weight.

    Args:
        composite: `(H, W, 3)` in [0, 1].
        graph: the graph of the same scene.
        title: title of the figure.
    """
    height, width, _ = composite.shape
    # Panels of wide scenes are one above the other; a pixel has about 4 dots.
    columns = 1 if width > 1.5 * height else 2
    inches = np.clip(width * 4 / 100, 5, 14)
    size = (columns * inches, (3 - columns) * inches * height / width + 0.6)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(3 - columns, columns).ravel()
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    for axis, brightness in zip(axes, (1.0, 0.45), strict=True):  # edges are better visible on a dark image
        axis.imshow(brightness * composite, extent=extent, interpolation="nearest")
        axis.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    axes[0].add_collection(LineCollection(list(_boundaries(graph.segments)), colors="white", linewidths=0.8))
    axes[0].set_title(f"{len(graph.features):,} superpixels")

    centres = _centres(graph.segments)
    edges = graph.adjacency.tocoo()
    start, end = edges.coords
    once = start < end
    lines = LineCollection(
        list(np.stack([centres[start[once]], centres[end[once]]], axis=1)),
        array=edges.data[once],
        cmap="plasma",
        linewidths=1.0,
    )
    lines.set_clim(0, 1)
    axes[1].add_collection(lines)
    axes[1].plot(*centres.T, ".", color="white", markersize=2.5)
    axes[1].set_title(f"{once.sum():,} edges, mean weight {edges.data[once].mean():.2f}" if once.any() else "no edges")
    figure.colorbar(lines, ax=axes[1], label="edge weight", shrink=0.8)
    if title:
        figure.suptitle(title)
    return save(figure, path)


def draw_confidence(probabilities: np.ndarray, path: str | Path, *, title: str = "") -> Path:
    """Save a PNG of the largest class probability per pixel, `(H, W, K)`."""
    confidence = probabilities.max(axis=2)
    height, width = confidence.shape
    figure = Figure(figsize=(7, 6.2 * height / width + 0.8), dpi=100, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(confidence, cmap=colormaps["magma"], vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[], title=title or "probability of the chosen class")
    figure.colorbar(image, ax=axis, shrink=0.8)
    return save(figure, path)


def _boundaries(segments: np.ndarray) -> np.ndarray:
    """Line segments `(n, 2, 2)` in (x, y) between pixels of different superpixels."""
    rows, columns = np.nonzero(segments[:, 1:] != segments[:, :-1])
    upright = np.stack([np.stack([columns + 0.5, rows - 0.5], 1), np.stack([columns + 0.5, rows + 0.5], 1)], 1)
    rows, columns = np.nonzero(segments[1:] != segments[:-1])
    level = np.stack([np.stack([columns - 0.5, rows + 0.5], 1), np.stack([columns + 0.5, rows + 0.5], 1)], 1)
    return np.concatenate([upright, level])


def _centres(segments: np.ndarray) -> np.ndarray:
    """Mean (x, y) of each superpixel, `(N, 2)`."""
    labels = segments.reshape(-1)
    rows, columns = np.indices(segments.shape).reshape(2, -1)
    count = np.bincount(labels)
    return np.stack([np.bincount(labels, columns) / count, np.bincount(labels, rows) / count], axis=1)
