"""Bring denoised values back to the type and range of the scene."""

from __future__ import annotations

import numpy as np

from common.hyperspectral.no_data import value_for
from common.hyperspectral.scene import Scene


def restored(values: np.ndarray, offset: float, divisor: float, scene: Scene) -> np.ndarray:
    """`(bands, H, W)` in [0, 1] → `(H, W, bands)` in the scene's type; integers are rounded and clipped, never wrapped.

    Pixels without data get the declared value again (NaN if a floating-point file declares none).
    """
    cube = np.moveaxis(values.astype(np.float64), 0, -1) * divisor + offset
    dtype = scene.cube.dtype
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        # float64 cannot hold the largest 64-bit integers: clip to the largest float below them.
        top = min(float(bounds.max), np.nextafter(2.0**63, 0)) if dtype.itemsize == 8 else float(bounds.max)
        cube = np.clip(np.rint(cube), float(bounds.min), top)
    cube = cube.astype(dtype)
    if not scene.valid.all():
        cube[~scene.valid] = value_for(dtype, scene.no_data)
    return cube
