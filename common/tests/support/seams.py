"""Whether the borders of tiles show."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

TOLERANCE = 1.5
"""So many times a step elsewhere is the largest step at the border of a tile."""


def seams(tiled: Tensor, whole: Tensor, borders: tuple[Collection[int], Collection[int]]) -> float:
    """Largest step of the difference at borders of tiles, over the largest elsewhere.

    A step is the mean of one channel over 16 pixels along a row or column: texture cancels, an edge does not.

    Args:
        tiled, whole: `(C, H, W)`.
        borders: first rows and first columns behind a border.
    """
    at_borders, elsewhere = [], []
    for axis, first in enumerate(borders, start=1):
        steps = (tiled - whole).diff(dim=axis).movedim(axis, 0)
        steps = steps[..., : steps.shape[2] // 16 * 16].unflatten(2, (-1, 16)).mean(dim=3).abs().amax(dim=(1, 2))
        border = torch.zeros(len(steps), dtype=torch.bool)
        border[[place - 1 for place in first]] = True
        at_borders.append(steps[border].max())
        elsewhere.append(steps[~border].max())
    return float(max(at_borders) / max(elsewhere))
