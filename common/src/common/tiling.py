"""Run a network on images and scenes of any size in bounded memory: overlapping tiles, blended without seams.

    tiling = Tiling(side=64, overlap=16)
    result = tiled(network, image, tiling.over(image.shape[1:]))

Where tiles overlap, each tile's weights rise from its border inwards. At every pixel the weights of all tiles sum to
one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.networks.weights import finite

Ramp = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(distance of each pixel from a border of the tile, overlap of each tile at that border, side of a tile) → weights.

All in output pixels: `(side,)` and `(tiles, 1)` → `(tiles, side)` or `(side,)`. At the image's border the overlap is 0.
"""


class Span(NamedTuple):
    """The part of an axis that a tile covers.

    Attributes:
        start, stop: the input pixels that the tile reads.
        weights: weights of the tile's output pixels, up to the end of the axis.
    """

    start: int
    stop: int
    weights: Tensor


Places = Sequence[Sequence[Span]]  # along rows and along columns


def raised_cosine(distances: np.ndarray, shared: np.ndarray, _: int) -> np.ndarray:
    """0 in the outer quarter of the overlap, where the result shows the tile's border, and 1 in the inner quarter."""
    share = distances / np.maximum(shared, 0.1)  # without overlap the weights are one everywhere
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(2 * share - 0.5, 0, 1))


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size: the smallest number that covers an axis, evenly spaced.

    Attributes:
        side: side of a tile in input pixels; a shorter axis is covered by one tile.
        overlap: least overlap of neighbouring tiles in input pixels, below `side`.
        ramp: how the weights rise from a tile's border.
        scale: output pixels per input pixel.
        multiple: tiles begin and end at multiples of this number, and so do `side` and `overlap`. The caller pads an
            axis to the next multiple; the result has the axis's own length.
    """

    side: int
    overlap: int
    ramp: Ramp = raised_cosine
    scale: int = 1
    multiple: int = 1

    def over(self, shape: Sequence[int]) -> Places:
        """Return the tiles that cover an image of `shape` (rows, columns)."""
        return [self.along(length) for length in shape]

    def along(self, length: int) -> Sequence[Span]:
        """Return the tiles that cover an axis.

        Raises:
            ValueError: several tiles are needed, and the overlap is not below their side.
        """
        return _along(self, length)

    def reach(self, window: slice, length: int) -> slice:
        """Return the part of an axis that must be read to compute `window`: all tiles that contribute to it."""
        some = [span for span in self.along(length) if span.start < window.stop and span.stop > window.start]
        return slice(some[0].start, some[-1].stop)

    def within(self, box: Sequence[slice], shape: Sequence[int]) -> Places:
        """Return the tiles inside `box`, the part of an image that was read, in coordinates relative to its corner."""

        def inside(read: slice, length: int) -> list[Span]:
            some = [span for span in self.along(length) if read.start <= span.start and span.stop <= read.stop]
            return [Span(start - read.start, stop - read.start, weights) for start, stop, weights in some]

        return [inside(read, length) for read, length in zip(box, shape, strict=True)]


@functools.lru_cache(maxsize=16)  # every window of a scene needs the same two axes
def _along(tiling: Tiling, length: int) -> Sequence[Span]:
    overlap, scale, multiple = tiling.overlap, tiling.scale, tiling.multiple
    padded, count = -(-length // multiple) * multiple, 1
    side = min(tiling.side, padded)
    if padded > side:
        if not 0 <= overlap < side:
            raise ValueError(f"overlap must be below the side of a tile, got {overlap} and {side}")
        count = -(-(padded - overlap) // (side - overlap))
    steps = (padded - side) // multiple
    starts = np.array([round(i * steps / max(count - 1, 1)) * multiple for i in range(count)])
    shared = np.array([0, *(starts[:-1] + side - starts[1:]), 0])[:, None] * scale
    distances = np.arange(side * scale) + 0.5
    pixels = starts[:, None] * scale + np.arange(side * scale)
    ramps = np.ones(pixels.shape) * tiling.ramp(distances, shared[:-1], side * scale)
    ramps *= tiling.ramp(distances[::-1], shared[1:], side * scale)
    weights = torch.from_numpy(ramps / np.bincount(pixels.ravel(), ramps.ravel())[pixels]).float()
    return [Span(i, i + side, one[: (length - i) * scale]) for i, one in zip(starts.tolist(), weights, strict=True)]


@torch.inference_mode()
def tiled(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    places: Places,
    *,
    scale: int = 1,
    batch: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Run a network tile by tile; only one batch of tiles is on the device at a time.

    Args:
        network: `(n, C, h, w)` → `(n, C, h · scale, w · scale)`.
        image: `(C, H, W)` on the CPU.
        places: the tiles, from a `Tiling` of the same scale.
        batch: tiles per forward pass.
        device: the network's device.
        progress: called after each tile with the number of input pixels that it completed.

    Returns:
        `(C, H · scale, W · scale)` float32 on the CPU.

    Raises:
        UserError: the network returned infinite or undefined values.
    """
    result = torch.zeros(len(image), *(spans[-1].start * scale + len(spans[-1].weights) for spans in places))
    spots = list(product(*places))
    for first in range(0, len(spots), batch):
        chosen = spots[first : first + batch]
        tiles = torch.stack([image[:, down.start : down.stop, across.start : across.stop] for down, across in chosen])
        outputs = finite(network(tiles.to(device)).float().cpu())
        for (down, across), output in zip(chosen, outputs, strict=True):
            rows, columns = len(down.weights), len(across.weights)
            top, left = down.start * scale, across.start * scale
            weights = down.weights[:, None] * across.weights
            result[:, top : top + rows, left : left + columns] += output[:, :rows, :columns] * weights
            if progress:
                progress(round(float(down.weights.sum() * across.weights.sum()) / scale**2))
    return result
