"""Figures of noisy and denoised scenes: false colours with equal limits, residuals, spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.figures import save
from common.hyperspectral.scene import Scene

ERROR_SHOWN = 0.1
"""Mean absolute difference that is drawn in white."""


def shown_bands(scene: Scene) -> list[int]:
    """Return red, green and blue band: nearest to 640, 550 and 460 nm, the scene's own, or at 5/6, 1/2, 1/6."""
    if scene.wavelengths is not None:
        return [int(np.abs(scene.wavelengths - wanted).argmin()) for wanted in (640.0, 550.0, 460.0)]
    return list(scene.composite_bands or [scene.bands * part // 6 for part in (5, 3, 1)])


def stretch(image: np.ndarray, bands: list[int]) -> np.ndarray:
    """Return lower and upper limits `(2, 3)` of three bands of `(bands, H, W)`, the 2nd and 98th percentile."""
    return np.percentile(image[bands], (2, 98), axis=(1, 2))


def colours(image: np.ndarray, bands: list[int], limits: np.ndarray) -> np.ndarray:
    """Return three bands of `(bands, H, W)` as an image `(H, W, 3)` in [0, 1]."""
    low, high = limits
    return np.clip((np.moveaxis(image[bands], 0, -1) - low) / np.maximum(high - low, 1e-12), 0, 1)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference over bands `(H, W)`, scaled so that 1 is `ERROR_SHOWN`."""
    return np.clip(np.abs(one - other).mean(axis=0) / ERROR_SHOWN, 0, 1)


def worst_band(noisy: np.ndarray, restored: np.ndarray) -> int:
    """Return the number of the band that changed most."""
    return int(np.abs(noisy - restored).mean(axis=(1, 2)).argmax())


def grey(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return one band `(H, W)`, scaled from its limits to [0, 1]."""
    return np.clip((image - limits[0]) / max(limits[1] - limits[0], 1e-12), 0, 1)


def draw_spectra(path: Path, scene: Scene, images: dict[str, np.ndarray], pixels: int = 4) -> Path:
    """Draw the spectra of a few pixels, spread over the range of brightness of the clean or the last image.

    Args:
        scene: the scene, for its wavelengths.
        images: name → `(bands, H, W)`; "clean" is drawn in black.
    """
    reference = images["clean"] if "clean" in images else list(images.values())[-1]
    order = np.argsort(reference.mean(axis=0), axis=None)
    places = order[((np.arange(pixels) + 0.5) / pixels * len(order)).astype(int)]
    axis = np.arange(len(reference)) if scene.wavelengths is None else scene.wavelengths
    figure = Figure(figsize=(4.2 * pixels, 3.4), dpi=100, layout="constrained")
    styles: dict[str, dict[str, Any]] = {
        "clean": {"color": "black", "linewidth": 1.8}, "noisy": {"color": "0.7", "linewidth": 0.8},
    }  # fmt: skip
    for panel, place in zip(figure.subplots(1, pixels, squeeze=False)[0], places, strict=True):
        row, column = np.unravel_index(place, reference.shape[1:])
        for name, image in images.items():
            panel.plot(axis, image[:, row, column], label=name, **styles.get(name, {"linewidth": 1.2}))
        panel.set(title=f"row {row}, column {column}", xlabel="band" if scene.wavelengths is None else "nm")
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    return save(figure, path)
