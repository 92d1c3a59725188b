"""Measure whether the borders of tiles are visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.tiling import Places, Tiling, tiled

TOLERANCE = 1.5
"""Limit for the largest step at the border of a tile, as a multiple of the largest step elsewhere."""


def seams(network: Callable[[Tensor], Tensor], image: Tensor, tiling: Tiling) -> tuple[float, float]:
    """Measure steps at the borders of tiles, in the difference from the result without tiles.

    A step is the mean of one channel over 16 pixels along a row or column: texture cancels, an edge does not.

    Returns:
        The largest step at borders divided by the largest elsewhere, and the mean step at borders divided by that of
        the same tiles without blending.
    """
    plain = replace(tiling, ramp=lambda distances, _, __: np.ones_like(distances))
    with torch.inference_mode():
        whole = network(image[None])[0]
    blended, unblended = (
        _steps(tiled(network, image, places, scale=tiling.scale) - whole, places, tiling.scale)
        for places in (tiling.over(image.shape[1:]), plain.over(image.shape[1:]))
    )
    at_borders, elsewhere = blended
    return float(at_borders.max() / elsewhere.max()), float(at_borders.mean() / unblended[0].mean())


def _steps(difference: Tensor, places: Places, scale: int) -> tuple[Tensor, Tensor]:
    """Return all steps at borders, and all elsewhere."""
    at_borders, elsewhere = [], []
    for axis, spans in enumerate(places, start=1):
        steps = difference.diff(dim=axis).movedim(axis, 0)
        steps = steps[..., : steps.shape[2] // 16 * 16].unflatten(2, (-1, 16)).mean(dim=3).abs()
        border = torch.zeros(difference.shape[axis] + 1, dtype=torch.bool)
        border[[edge * scale for span in spans for edge in (span.start, span.stop)]] = True
        border = border[1:-1]
        at_borders.append(steps[border].flatten())
        elsewhere.append(steps[~border].flatten())
    return torch.cat(at_borders), torch.cat(elsewhere)
