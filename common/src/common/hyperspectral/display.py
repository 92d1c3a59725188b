"""Display of scenes: the bands of false-colour images, and spectra of a few pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.figures import save
from common.hyperspectral.scene import Scene


def shown_bands(scene: Scene) -> list[int]:
    """Return the red, green and blue band for images of a scene.

    The bands are those nearest to 640, 550 and 460 nm; without wavelengths the scene's composite bands, else those at
    5/6, 1/2 and 1/6 of the spectrum.
    """
    if scene.wavelengths is not None:
        return [int(np.abs(scene.wavelengths - wavelength).argmin()) for wavelength in (640.0, 550.0, 460.0)]
    known = scene.composite_bands
    return list(known) if known and max(known) < scene.bands else [scene.bands * part // 6 for part in (5, 3, 1)]


def draw_spectra(
    path: Path,
    scene: Scene,
    cubes: Mapping[str, np.ndarray],
    *,
    reference: str,
    styles: Mapping[str, Mapping[str, Any]],
    pixels: int = 4,
) -> Path:
    """Draw the spectra of a few pixels in every cube, one panel per pixel.

    Args:
        scene: the scene, for its wavelengths.
        cubes: name → `(H, W, bands)`, all of one size.
        reference: name of the cube over whose range of brightness the pixels are spread.
        styles: name → matplotlib's keywords of a line; other lines have a width of 1.2.
        pixels: number of pixels.
    """
    brightness = cubes[reference].mean(axis=2)
    order = np.argsort(brightness, axis=None)
    places = order[((np.arange(pixels) + 0.5) / pixels * len(order)).astype(int)]
    axis = np.arange(scene.bands) if scene.wavelengths is None else scene.wavelengths
    figure = Figure(figsize=(4.2 * pixels, 3.4), dpi=100, layout="constrained")
    for panel, place in zip(figure.subplots(1, pixels, squeeze=False)[0], places, strict=True):
        row, column = np.unravel_index(place, brightness.shape)
        for name, cube in cubes.items():
            panel.plot(axis, cube[row, column], label=name, **styles.get(name, {"linewidth": 1.2}))
        panel.set(title=f"row {row}, column {column}", xlabel="band" if scene.wavelengths is None else "nm")
        panel.grid(alpha=0.3)
    figure.axes[0].legend()
    return save(figure, path)
