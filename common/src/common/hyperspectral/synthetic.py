"""A synthetic labelled scene, for demonstrations, tests and measurements of memory.

The steps of its making:

1. Regions: random centres, each with a class, and every pixel belongs to the nearest centre; a smooth displacement
   makes the borders irregular. A given label map is kept, and its unlabelled pixels get the nearest class.
2. Spectra: each class has a smooth curve over 400–1000 nm, a sum of a few broad peaks. Classes come in pairs: the
   second has the first one's curve with one peak slightly lower, so only an average over the noise separates them.
3. Linear mixing: the map of each class is blurred, so that classes mix over two or three pixels at borders, and every
   pixel gets a random share (up to 45 %) of another random class.
4. Illumination: a smooth field times a random factor per pixel, common to all bands.
5. Noise: Gaussian, independent per pixel and band, relative to the mean signal.
6. Scaling to integers of 16 bits, as sensors deliver.

Labels cover the regions except where classes mix at a border. Steps 3 to 5 make single pixels ambiguous, while
neighbours mostly share a class, so a classifier of windows is clearly better than a classifier of single pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from common.errors import UserError
from common.hyperspectral.scene import Scene


def synthetic_scene(
    height: int = 128,
    width: int = 128,
    *,
    bands: int = 60,
    num_classes: int = 8,
    seed: int = 0,
    noise: float = 0.06,
    variation: float = 1.0,
    labels: np.ndarray | None = None,
) -> Scene:
    """Make a scene; the same arguments give the same scene.

    Args:
        height, width: in pixels; replaced by the labels' size when those are given.
        num_classes: replaced by the labels' when those are given.
        noise: standard deviation relative to the mean signal.
        variation: factor of the random differences between pixels of one class (brightness, share of another class);
            0 for pure classes under smooth light.
        labels: `(H, W)`, 0 unlabelled, classes 1..K: make a cube for this ground truth, for
            example that of Pavia University.

    Returns:
        A scene with wavelengths and a uint16 cube `(H, W, bands)` of values up to about 10,000.

    Raises:
        UserError: fewer than two classes, or fewer than 64 pixels per class.
    """
    rng = np.random.default_rng(seed)
    if labels is not None:
        height, width = labels.shape
        num_classes = int(labels.max())
    if num_classes < 2 or height * width < 64 * num_classes:
        raise UserError(
            f"{num_classes} classes on {height} × {width} pixels; expected at least 2, and 64 pixels for each"
        )
    if labels is None:
        regions = _regions(height, width, num_classes, rng)
    else:
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        regions = labels[tuple(nearest)]
    wavelengths = np.linspace(400.0, 1000.0, bands)
    spectra = _spectra(wavelengths, num_classes, rng)
    shares = np.stack(
        [ndimage.gaussian_filter((regions == k).astype(np.float32), 0.9) for k in range(1, num_classes + 1)], axis=-1
    )
    if labels is None:
        labels = np.where(shares.max(axis=-1) > 0.8, regions, 0)
    light = np.maximum(1 + 0.25 * _smooth_field(height, width, min(height, width) / 5, rng), 0.3)
    cube = np.empty((height, width, bands), dtype=np.uint16)
    level = noise * spectra.mean()
    for row in range(height):  # row by row: at Pavia University's size a float copy takes 85 MB more
        foreign = rng.uniform(0, 0.45 * variation, (width, 1))
        mixed = (1 - foreign) * shares[row] + foreign * np.eye(num_classes)[rng.integers(num_classes, size=width)]
        signal = (mixed @ spectra) * (light[row] * rng.normal(1, 0.05 * variation, width))[:, None]
        signal += level * rng.standard_normal((width, bands))
        cube[row] = np.clip(np.rint(10_000 * signal), 0, 65_535)
    names = tuple(f"material {chr(64 + k) if k <= 26 else k}" for k in range(1, num_classes + 1))
    return Scene(
        "synthetic",
        cube,
        labels.astype(np.int64),
        names,
        tuple(range(1, num_classes + 1)),
        wavelengths,
        source=f"synthetic scene, seed {seed}",
    )


def _regions(height: int, width: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Class map `(H, W)`, 1..K, of cells with irregular borders; every class has at least two cells."""
    cells = max(3 * num_classes, height * width // 500)
    classes = rng.permutation(np.arange(cells) % num_classes) + 1
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    rows += 4 * _smooth_field(height, width, 5, rng)
    columns += 4 * _smooth_field(height, width, 5, rng)
    best = np.full((height, width), np.inf)
    regions = np.zeros((height, width), dtype=np.int64)
    for label, (r, c) in zip(classes, rng.uniform((0, 0), (height, width), (cells, 2)), strict=True):
        distance = (rows - r) ** 2 + (columns - c) ** 2
        nearer = distance < best
        regions[nearer], best[nearer] = label, distance[nearer]
    return regions


def _spectra(wavelengths: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Reflectances `(K, bands)` between about 0.1 and 0.8."""
    spectra = []
    for k in range(num_classes):
        if k % 2 == 0:
            centres, widths = rng.uniform(380, 1020, 5), rng.uniform(40, 160, 5)
            heights = rng.uniform(0.05, 0.35, 5)
        else:
            heights = heights * np.where(np.arange(5) == rng.integers(5), 0.75, 1.0)
        bumps = heights * np.exp(-(((wavelengths[:, None] - centres) / widths) ** 2))
        spectra.append(0.12 + bumps.sum(axis=1))
    return np.array(spectra)


def _smooth_field(height: int, width: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random field with correlation length `scale`, zero mean, unit variance."""
    field = ndimage.gaussian_filter(rng.standard_normal((height, width)), scale, mode="wrap")
    return (field - field.mean()) / field.std()
