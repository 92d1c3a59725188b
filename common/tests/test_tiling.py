"""Tiles: they cover an axis with as few as possible, their weights sum to one, and a window finds its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.tiling import Tiling, raised_cosine, tiled


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(
    ("length", "side", "overlap", "multiple"),
    [
        (20, 16, 4, 1),
        (33, 32, 16, 1),
        (7, 24, 4, 1),
        (90, 24, 22, 1),
        (99, 32, 0, 1),
        (330, 128, 64, 32),
        (129, 96, 64, 32),
    ],
)
def test_tiles_cover_an_axis(length: int, side: int, overlap: int, multiple: int, scale: int) -> None:
    spans = Tiling(side, overlap, scale=scale, multiple=multiple).along(length)
    padded = -(-length // multiple) * multiple
    assert spans[0].start == 0 and spans[-1].stop == padded
    assert all(span.start % multiple == 0 and span.stop - span.start == min(side, padded) for span in spans)
    shared = [one.stop - following.start for one, following in itertools.pairwise(spans)]
    assert all(pixels >= overlap for pixels in shared)
    assert not shared or max(shared) - min(shared) <= multiple, "evenly spread"
    assert len(spans) == 1 or (len(spans) - 1) * (side - overlap) + overlap < padded, "one tile less does not suffice"
    total = torch.zeros(length * scale)
    for span in spans:
        assert (span.weights >= 0).all()
        total[span.start * scale :][: len(span.weights)] += span.weights
    torch.testing.assert_close(total, torch.ones(length * scale))


def test_a_raised_cosine_is_zero_where_a_border_shows() -> None:
    weights = raised_cosine(np.arange(20) + 0.5, np.array([[16]]), 20)[0]
    assert (weights[:4] == 0).all() and (weights[12:] == 1).all() and (np.diff(weights[3:13]) > 0).all()
    assert weights[4:12] + weights[11:3:-1] == pytest.approx(1)
    assert (raised_cosine(np.arange(20) + 0.5, np.array([[0]]), 20) == 1).all()


def test_one_tile_needs_no_overlap_and_several_need_one_below_their_side() -> None:
    assert len(Tiling(8, 8).along(8)) == 1
    for overlap in (8, -1):
        with pytest.raises(ValueError, match=f"overlap must be below the side of a tile, got {overlap} and 8"):
            Tiling(8, overlap).along(9)


@pytest.mark.parametrize("batch", [1, 4])
def test_an_enlarging_network_tile_by_tile(batch: int) -> None:
    image, seen, sizes = torch.rand(2, 50, 23), [], []

    def network(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=3, mode="nearest")

    places = Tiling(12, 4, scale=3).over((50, 23))
    result = tiled(network, image, places, scale=3, batch=batch, progress=seen.append)
    torch.testing.assert_close(result, F.interpolate(image[None], scale_factor=3, mode="nearest")[0])
    assert sum(size[0] for size in sizes) == len(seen) == 6 * 3 and set(sizes[:-1]) == {(batch, 2, 12, 12)}
    assert sum(seen) == pytest.approx(50 * 23, abs=len(seen))
    with pytest.raises(UserError, match="mixed-precision no"):
        tiled(lambda x: x / 0, image, Tiling(12, 4).over((50, 23)))


def test_what_is_read_for_a_window() -> None:
    tiling = Tiling(8, 2)  # tiles from 0, 6, 12, 18
    assert tiling.reach(slice(8, 12), 26) == slice(6, 14)
    assert tiling.reach(slice(7, 13), 26) == slice(0, 20)
    assert tiling.reach(slice(0, 5), 5) == slice(0, 5)
    rows, columns = tiling.within((slice(6, 20), slice(0, 5)), (26, 5))
    assert [span[:2] for span in rows] == [(0, 8), (6, 14)] and [span[:2] for span in columns] == [(0, 5)]
    torch.testing.assert_close(rows[0].weights, tiling.along(26)[1].weights)
