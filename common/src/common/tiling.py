"""Pictures and scenes of any size through a network of bounded memory: overlapping tiles, blended without seams.

    tiling = Tiling(side=64, overlap=16)
    result = tiled(network, image, tiling.over(image.shape[1:]))

Where tiles overlap, the weights of each rise from its border inwards; at every pixel those of all tiles sum to one.
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
"""(distances from a border of a tile, what tiles share with their neighbours there, their side) → weights.

In output pixels: `(side,)` and `(tiles, 1)` → `(tiles, side)` or `(side,)`. Nothing is shared at the image's border.
"""


class Span(NamedTuple):
    """What a tile covers of an axis.

    Attributes:
        start, stop: what it reads.
        weights: of its output pixels, as far as they lie on the axis.
    """

    start: int
    stop: int
    weights: Tensor


Places = Sequence[Sequence[Span]]  # along rows and along columns


def raised_cosine(distances: np.ndarray, shared: np.ndarray, _: int) -> np.ndarray:
    """Zero in the outer quarter of what is shared, because a network's border shows there; one in the inner quarter."""
    share = distances / np.maximum(shared, 0.1)  # one everywhere where nothing is shared
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(2 * share - 0.5, 0, 1))


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size: as few as cover an axis, evenly spread.

    Attributes:
        side: of a tile in pixels of the input; a shorter axis is one tile.
        overlap: of neighbours, below `side`; some share more.
        ramp: of the weights.
        scale: output pixels per pixel of the input.
        multiple: tiles begin and end at multiples of it, `side` and `overlap` are such. An axis that is none is
            continued by the caller up to one; its result is not.
    """

    side: int
    overlap: int
    ramp: Ramp = raised_cosine
    scale: int = 1
    multiple: int = 1

    def over(self, shape: Sequence[int]) -> Places:
        """Cover an image of so many rows and columns."""
        return [self.along(length) for length in shape]

    def along(self, length: int) -> Sequence[Span]:
        """Cover an axis; a ValueError where one tile does not suffice and the overlap is not below the side."""
        return _along(self, length)

    def reach(self, window: slice, length: int) -> slice:
        """What of an axis has to be read for a part of it: all tiles that have a share in that."""
        some = [span for span in self.along(length) if span.start < window.stop and span.stop > window.start]
        return slice(some[0].start, some[-1].stop)

    def within(self, box: Sequence[slice], shape: Sequence[int]) -> Places:
        """The tiles that lie within what was read of an image, counted from its corner."""

        def inside(read: slice, length: int) -> list[Span]:
            some = [span for span in self.along(length) if read.start <= span.start and span.stop <= read.stop]
            return [Span(start - read.start, stop - read.start, weights) for start, stop, weights in some]

        return [inside(read, length) for read, length in zip(box, shape, strict=True)]


@functools.lru_cache(maxsize=16)  # every window of a scene asks for the same two axes
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
        image: `(C, H, W)` on the host.
        places: of the tiles, from a `Tiling` of the same scale.
        device: of the network.
        progress: told after each tile how many pixels of the input it completed.

    Returns:
        `(C, H · scale, W · scale)` float32 on the host.

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
