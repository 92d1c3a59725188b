"""MATLAB's `imresize(A, ..., "bicubic")` with antialiasing, for NumPy arrays and torch tensors.

Every protocol reduces images with this function, and it gives the "bicubic" row of every table. The kernel is Keys'
with a = −0.5. To reduce an image, it is stretched by 1/scale (antialiasing). The weights of every output pixel sum to
one. Beyond the border the image is mirrored with its edge pixel repeated. `torch.nn.functional.interpolate` has
another kernel (a = −0.75) or other borders.

Resizing is separable and linear, so each axis is one matrix: `rows @ image @ columnsᵀ`.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def imresize(picture: Array, scale: float | None = None, *, size: tuple[int, int] | None = None) -> Array:
    """Resize the last two axes.

    Args:
        picture: `(..., H, W)`, floating or integer (which becomes float64); at least one pixel.
        scale: any factor above 0; the result has `ceil(scale · H)` rows, as in MATLAB.
        size: rows and columns of the result, instead of `scale`; the factors of both axes may then differ.

    Returns:
        `(..., H', W')` in the image's floating type. Bicubic interpolation overshoots: values may leave the range.

    Raises:
        ValueError: neither or both of `scale` and `size` are given, or one is not positive.
    """
    if (scale is None) == (size is None):
        raise ValueError("give either scale or size")
    height, width = picture.shape[-2:]
    if scale is not None:
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        size = math.ceil(height * scale), math.ceil(width * scale)
    assert size is not None
    if min(size) < 1 or min(height, width) < 1:
        raise ValueError(f"expected at least one pixel on every side, got {height} × {width} → {size[0]} × {size[1]}")
    rows = weights(height, size[0], scale or size[0] / height)
    columns = weights(width, size[1], scale or size[1] / width)
    if isinstance(picture, np.ndarray):
        floating = picture if picture.dtype.kind == "f" else picture.astype(np.float64)
        return rows.astype(floating.dtype) @ floating @ columns.astype(floating.dtype).T
    return _apply(picture, torch.tensor(rows), torch.tensor(columns))


def enlarge_bicubic(picture: Tensor, factor: int) -> Tensor:
    """Return `imresize(picture, factor)` for a whole factor, in a form that compiles and exports for any size."""
    height, width = picture.shape[-2:]
    if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return imresize(picture, float(factor))
    return _apply(picture, *(matrix(side, side * factor, float(factor)) for side in (height, width)))


def _apply(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columnsᵀ in the image's floating type, computed in float32 at least."""
    if not picture.is_floating_point():
        picture = picture.double()
    wide = picture.float() if picture.element_size() < 4 else picture
    # Without autocast, which would compute the bicubic image in half precision.
    with torch.autocast(picture.device.type, enabled=False):
        return (rows.to(wide) @ wide @ columns.to(wide).T).to(picture.dtype)


@functools.lru_cache(maxsize=64)
def weights(length: int, new_length: int, scale: float) -> np.ndarray:
    """Return the read-only matrix `(new_length, length)`, float64, that resizes one axis; see `matrix`."""
    found = matrix(length, new_length, scale).numpy()
    found.flags.writeable = False
    return found


def matrix(length: int, new_length: int, scale: float) -> Tensor:
    """Return the matrix `(new_length, length)`, float64, that resizes one axis.

    Output pixel i (from 1) lies at `u = i / scale + (1 − 1/scale) / 2` of the input.
    """
    stretch = min(scale, 1.0)
    support = 4 / stretch
    centres = torch.arange(1, new_length + 1, dtype=torch.float64) / scale + 0.5 * (1 - 1 / scale)
    left = (centres - support / 2).floor()
    taps = left[:, None] + torch.arange(math.ceil(support) + 2)
    values = stretch * bicubic(stretch * (centres[:, None] - taps))
    values = values / values.sum(dim=1, keepdim=True)
    # 1 2 … n n … 2 1, repeated as often as a kernel wider than the image needs it.
    place = (taps.long() - 1) % (2 * length)
    mirrored = torch.where(place < length, place, 2 * length - 1 - place)
    return torch.zeros(new_length, length, dtype=torch.float64).scatter_add(1, mirrored, values)


def bicubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = −0.5, zero beyond 2."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))
