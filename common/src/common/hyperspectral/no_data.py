"""Pixels without data, for example borders of a rotated scene, removed clouds and lost lines.

Such a pixel holds NaN, infinity, or the value that a GeoTIFF, an ENVI header or `--no-data` declares. It takes no part
in statistics, training and scores, and has no data in any output. Networks get the nearest spectrum with data in its
place, so that they show no artefacts at the border of a hole.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from common.errors import UserError

_LARGE = 1e30


def valid_pixels(cube: np.ndarray, no_data: float | None) -> np.ndarray:
    """Return where a cube `(H, W, bands)` holds data, `(H, W)` bool.

    A pixel is without data when one of its bands is NaN, infinite or the declared value. Zero can also be
    a measured value, so a declared zero counts only if all bands hold it.
    """
    valid = np.ones(cube.shape[:2], dtype=bool)
    for row, line in enumerate(cube):  # row by row, so that no mask of the whole cube is made
        if cube.dtype.kind == "f":
            valid[row] &= np.isfinite(line).all(axis=1)
        if no_data is not None:
            equal = is_declared(line, no_data)
            valid[row] &= ~(equal.all(axis=1) if no_data == 0 else equal.any(axis=1))
    return valid


def check_size(cube: np.ndarray, valid: np.ndarray, source: str) -> None:
    """Refuse numbers too large to be measurements, which overflow in statistics: an undeclared no-data value.

    Raises:
        UserError: such a number is found; names the largest.
    """
    if cube.dtype.kind != "f" or cube.dtype.itemsize < 4:
        return
    for line, inside in zip(cube, valid, strict=True):
        largest = max(line[inside].max(), -line[inside].min()) if inside.any() else 0
        if largest > _LARGE:
            value = line[inside].flat[np.abs(line[inside]).argmax()]
            raise UserError(
                f"{source}: holds {value:g}, which is no measured value; if it marks pixels without data, use --no-data"
            )


def is_declared(values: np.ndarray, no_data: float) -> np.ndarray:
    """Return where values equal the declared one, compared in the values' own type; NaN equals NaN."""
    if np.isnan(no_data):
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    wanted = in_type(no_data, values.dtype)
    if wanted is None:
        return np.zeros(values.shape, dtype=bool)
    if values.dtype == np.float64 and abs(no_data) > _LARGE:
        # The value may be float32's smallest number in eight digits, which float64 reads as another number.
        with np.errstate(over="ignore"):
            return values.astype(np.float32) == np.float32(no_data)
    return values == wanted


def filled(cube: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the cube with the nearest valid spectrum in every pixel without data; itself when all are valid."""
    if valid.all():
        return cube
    rows, columns = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    result = cube.copy()
    result[~valid] = cube[rows[~valid], columns[~valid]]
    return result


def extent_of(valid: np.ndarray) -> tuple[slice, slice]:
    """Return the smallest rectangle, rows and columns, that holds all valid pixels; there is at least one."""
    rows, columns = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def value_for(dtype: np.dtype, declared: float | None) -> float | int:
    """Return the value of pixels without data in an output of this type.

    The declared value where the type can hold it, else NaN, else the type's smallest value.
    """
    value = None if declared is None or np.isnan(declared) else in_type(declared, dtype)
    if value is not None:
        return value.item()
    return float("nan") if dtype.kind == "f" else int(np.iinfo(dtype).min)


def in_type(value: float, dtype: np.dtype) -> np.generic | None:
    """Return a value converted to a type; None if the type cannot hold it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is None or not math.isfinite(value) or value != int(value) or not limits.min <= value <= limits.max:
        return None
    return dtype.type(int(value))


def note_on(no_data: float | None, dtype: np.dtype) -> tuple[str, ...]:
    """Return a sentence if a type cannot hold the no-data value that the file declares, else nothing."""
    if no_data is None or math.isnan(no_data) or in_type(no_data, dtype) is not None:
        return ()
    return (f"the file declares {no_data:g} for pixels without data, which {dtype} numbers cannot be: name another",)


def as_number(text: str) -> float | int:
    """Return a number from a file's text; whole numbers as int, because a float cannot hold all 64-bit integers.

    Raises:
        ValueError: the text is not a number.
    """
    try:
        return int(text)
    except ValueError:
        return float(text)
