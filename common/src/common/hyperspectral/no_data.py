"""Pixels without data: borders of a turned scene, clouds cut out, lines that a sensor lost.

Such a pixel holds a declared value (a GeoTIFF's, an ENVI header's, or `--no-data`), NaN or infinity. It takes
part in no statistics, no training and no score, and is without data in every output. Networks see the nearest
spectrum that is there instead, so that nothing rings at the border of a hole.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def valid_pixels(cube: np.ndarray, no_data: float | None) -> np.ndarray:
    """Return where a cube `(H, W, bands)` holds data, `(H, W)` bool.

    A pixel is without data when one of its bands is NaN, infinite or the declared value. Zero can also be
    measured, so a declared zero has to stand in all bands.
    """
    valid = np.ones(cube.shape[:2], dtype=bool)
    value = _in_type(no_data, cube.dtype)
    for row, line in enumerate(cube):  # row by row, so that no mask of the whole cube is made
        if cube.dtype.kind == "f":
            valid[row] &= np.isfinite(line).all(axis=1)
        if value is not None:
            equal = line == value
            valid[row] &= ~(equal.any(axis=1) if value else equal.all(axis=1))
    return valid


def filled(cube: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the cube with the nearest valid spectrum in every pixel without data; itself when all are valid."""
    if valid.all():
        return cube
    rows, columns = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    result = cube.copy()
    result[~valid] = cube[rows[~valid], columns[~valid]]
    return result


def value_for(dtype: np.dtype, declared: float | None) -> float | int:
    """Return what pixels without data hold in an output of this type.

    The declared value where the type can hold it, else NaN, else the type's smallest value.
    """
    value = _in_type(declared, dtype)
    if value is not None:
        return value.item()
    return float("nan") if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _in_type(value: float | None, dtype: np.dtype) -> np.generic | None:
    """The declared value as the cube's type stores it; None when it cannot."""
    if value is None or np.isnan(value):
        return None
    if dtype.kind == "f":
        return dtype.type(value)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is None or value != int(value) or not limits.min <= value <= limits.max:
        return None
    return dtype.type(int(value))
