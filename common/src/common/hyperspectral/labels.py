"""Class codes of label maps: from a file's codes to classes 1..K without gaps, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.errors import UserError


def in_codes(classes: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """Replace the classes 1..K of a map by their codes in the file; 0 stays 0.

    Returns:
        an array of the same shape, in the smallest type that NumPy, MATLAB, ENVI and GeoTIFF all support:
        uint8, uint16, uint32, then int64 (uint64 for codes that only fit there).
    """
    kind = np.min_scalar_type(max(codes))
    if kind == np.uint64 and max(codes) <= np.iinfo(np.int64).max:
        kind = np.dtype(np.int64)
    return np.array([0, *codes], dtype=kind)[classes]


def remap_labels(codes: np.ndarray, source: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Number class codes without gaps: the codes 1, 10..14 of Salinas-A become the classes 1..6.

    Returns:
        labels `(H, W)` int64 with 0 unlabelled, and the code of each class.

    Raises:
        UserError: codes are negative or not whole numbers, or no pixel is labelled.
    """
    if codes.ndim != 2:
        raise UserError(f"{source}: labels have shape {codes.shape}; expected (rows, columns)")
    found, inverse = np.unique(codes, return_inverse=True)
    if codes.dtype.kind == "f" and not (np.isfinite(found).all() and (found == np.rint(found)).all()):
        wrong = found[~np.isfinite(found) | (found != np.rint(found))][0]
        raise UserError(f"{source}: labels hold {wrong:g}; expected whole numbers, 0 for unlabelled pixels")
    if found[0] < 0:
        raise UserError(f"{source}: labels hold {found[0]:g}; expected codes from 0 (unlabelled) upwards")
    classes = tuple(int(code) for code in found if code > 0)
    if classes and classes[-1] > np.iinfo(np.uint64).max:
        raise UserError(f"{source}: labels hold {found[-1]:g}; expected class codes of at most 64 bits")
    if not classes:
        raise UserError(f"{source}: every label is 0, that is unlabelled; expected at least one labelled pixel")
    return inverse.reshape(codes.shape).astype(np.int64) + int(found[0] > 0), classes
