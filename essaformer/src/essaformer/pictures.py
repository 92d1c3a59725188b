"""Figures of results: before/after sheets, error maps, spectra of single pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from common.figures import save
from common.hyperspectral.scene import Scene
from essaformer.resize import imresize
from essaformer.scoring import PictureScore

ERROR_SHOWN = 0.1
"""Mean absolute error that error maps show as white; values range from 0 to 1."""
_TRUE_COLOUR = (640.0, 550.0, 460.0)


def shown_bands(scene: Scene) -> list[int]:
    """Return red, green and blue band: by wavelength, else the scene's own, else at 5/6, 1/2, 1/6 of the spectrum."""
    if scene.wavelengths is not None:
        return [int(np.abs(scene.wavelengths - wanted).argmin()) for wanted in _TRUE_COLOUR]
    known = scene.composite_bands
    return list(known) if known and max(known) < scene.bands else [scene.bands * part // 6 for part in (5, 3, 1)]


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
    bands = shown_bands(item["region"].scene)
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


def draw_spectra(
    path: Path, scene: Scene, cubes: dict[str, np.ndarray], *, truth: np.ndarray | None = None, pixels: int = 4
) -> Path:
    """Draw the spectra of a few pixels in every cube, one panel per pixel.

    Args:
        scene: the scene, for its wavelengths.
        cubes: name → `(H, W, bands)`, all of one size; the truth is drawn first when it is given.
        pixels: how many pixels, spread over the range of brightness of the first cube.
    """
    drawn = ({"truth": truth} if truth is not None else {}) | cubes
    reference = next(iter(drawn.values()))
    order = np.argsort(reference.mean(axis=2), axis=None)
    places = order[((np.arange(pixels) + 0.5) / pixels * len(order)).astype(int)]
    axis = np.arange(scene.bands) if scene.wavelengths is None else scene.wavelengths
    figure = Figure(figsize=(4.2 * pixels, 3.4), dpi=100, layout="constrained")
    for panel, place in zip(figure.subplots(1, pixels, squeeze=False)[0], places, strict=True):
        row, column = np.unravel_index(place, reference.shape[:2])
        for name, cube in drawn.items():
            style: dict[str, Any] = {"color": "black", "linewidth": 1.8} if name == "truth" else {"linewidth": 1.1}
            panel.plot(axis, cube[row, column], label=name, **style)
        panel.set(title=f"row {row}, column {column}", xlabel="band" if scene.wavelengths is None else "nm")
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    return save(figure, path)
