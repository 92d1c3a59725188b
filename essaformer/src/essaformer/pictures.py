"""Figures of results: before/after sheets, error maps, spectra of single pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.hyperspectral import display
from common.hyperspectral.scene import Scene
from essaformer.resize import imresize
from essaformer.scoring import PictureScore

ERROR_SHOWN = 0.1
"""Mean absolute error that error maps show as white; values range from 0 to 1."""


def stretch(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the darkest and brightest value to show per band, the 2nd and 98th percentile of an image `(H, W, 3)`."""
    low, high = np.percentile(reference, (2, 98), axis=(0, 1))
    return low, np.maximum(high - low, 1e-9)


def colours(cube: np.ndarray, bands: list[int], limits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the false colours `(H, W, 3)` in [0, 1] of `(H, W, bands)`; equal limits make images comparable."""
    return np.clip((cube[..., bands] - limits[0]) / limits[1], 0, 1).astype(np.float32)


def error_map(cube: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error over bands, `(H, W)`, white at `ERROR_SHOWN`."""
    return np.clip(np.abs(cube - truth).mean(axis=2) / ERROR_SHOWN, 0, 1)


def picture_row(item: dict[str, Any], result: Tensor) -> list[np.ndarray]:
    """Return bicubic, result, truth and both error maps of one scored image."""
    truth = item["high"].permute(1, 2, 0).numpy()
    bicubic = imresize(item["low"], size=(truth.shape[0], truth.shape[1])).permute(1, 2, 0).numpy()
    enlarged = result.permute(1, 2, 0).numpy()
    bands = display.shown_bands(item["region"].scene)
    limits = stretch(truth[..., bands])
    images = [colours(cube, bands, limits) for cube in (bicubic, enlarged, truth)]
    return images + [error_map(cube, truth) for cube in (bicubic, enlarged)]


def captions(score: PictureScore) -> list[str]:
    """The captions of the images of `picture_row`."""
    texts = [
        f"{of['sspsr']['PSNR (dB)']:.2f} dB, SAM {of['sspsr']['SAM (°)']:.2f}°, ERGAS {of['sspsr']['ERGAS']:.2f}"
        for of in (score.bicubic, score.network)
    ]
    return [*texts, score.name, f"white: {ERROR_SHOWN:g}", ""]


def draw_spectra(path: Path, scene: Scene, cubes: dict[str, np.ndarray], *, truth: np.ndarray | None = None) -> Path:
    """Draw the spectra of a few pixels in every cube, spread over the range of brightness of the first cube.

    Args:
        scene: the scene, for its wavelengths.
        cubes: name → `(H, W, bands)`, all of one size; a given truth is drawn first.
    """
    drawn = ({"truth": truth} if truth is not None else {}) | cubes
    styles = {"truth": {"color": "black", "linewidth": 1.8}}
    return display.draw_spectra(path, scene, drawn, reference=next(iter(drawn)), styles=styles)
