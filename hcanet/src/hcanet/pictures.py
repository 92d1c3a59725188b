"""Figures of noisy and denoised scenes: false colours with equal limits, residuals, spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.hyperspectral import display
from common.hyperspectral.scene import Scene

ERROR_SHOWN = 0.1
"""Mean absolute difference that is drawn in white."""


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


def draw_spectra(path: Path, scene: Scene, images: dict[str, np.ndarray]) -> Path:
    """Draw the spectra of a few pixels, spread over the range of brightness of the clean or the last image.

    Args:
        scene: the scene, for its wavelengths.
        images: name → `(bands, H, W)`; "clean" is drawn in black.
    """
    cubes = {name: np.moveaxis(image, 0, -1) for name, image in images.items()}
    reference = "clean" if "clean" in images else list(images)[-1]
    styles = {"clean": {"color": "black", "linewidth": 1.8}, "noisy": {"color": "0.7", "linewidth": 0.8}}
    return display.draw_spectra(path, scene, cubes, reference=reference, styles=styles)
