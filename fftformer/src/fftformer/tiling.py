"""Pictures of any size through FFTformer within the memory: the tiles of `common.tiling`, and how large they may be.

FFTformer works on 8x8 patches at a quarter of the resolution, so a tile sees the patches that the
whole picture would show it only when it begins and ends at multiples of 32 pixels. Pictures are
continued by reflection to such a size at the right and bottom, as the published evaluation does.

If an output pixel depends on no pixel farther away than `overlap / 4`, the result is exactly that of
the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from common.errors import UserError
from common.tiling import Tiling, tiled
from fftformer.fast import strips
from fftformer.model import MULTIPLE, FFTformer, pad_to_multiple

OVERLAP = 64
"""Default overlap of two tiles in pixels."""
BYTES_PER_PIXEL = 270
"""Peak memory of a forward pass, per pixel and channel `dim` of the first level, outside `strips`.

Measured on CPU as growth of the resident set, tiles of 256 to 640 pixels: up to 268 in float32
(the released configuration, dim 48: 12.9 kB per pixel) and 182 under bfloat16 autocast.
"""
BYTES_PER_PIXEL_IN_STRIPS = 60
"""The same where `strips` works, on a CPU without autocast: 57 for dim 48."""
BYTES_OF_STRIPS = 80 * 2**20
"""What the strips at work take besides, whatever the picture's size."""


def restore_tiled(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    tile: int | tuple[int, int],
    overlap: int = OVERLAP,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Restore one picture tile by tile.

    Only one tile is on the device at a time; on the host there are the picture and its result.

    Args:
        model: `(1, 3, h, w)` to the same shape, for h and w that are multiples of 32.
        image: `(3, H, W)`, any size, on the host.
        tile: largest height and width of a tile in pixels, multiples of 32. A picture that fits
            into one is restored whole; otherwise tiles are made as small as their number allows.
        overlap: of neighbouring tiles, a multiple of 32 below `tile`; some neighbours share more.
        device: of the model.
        progress: told after each tile how many pixels of the picture it completed.

    Returns:
        `(3, H, W)` float32 on the host.

    Raises:
        ValueError: `tile` or `overlap` is not such a multiple.
        UserError: the network returned infinite or undefined values.
    """
    tile = (tile, tile) if isinstance(tile, int) else tile
    height, width = image.shape[1:]
    whole = height <= tile[0] and width <= tile[1]
    if any(side % MULTIPLE for side in (*tile, overlap)) or not (whole or 0 <= overlap < min(tile)):
        raise ValueError(f"tile and overlap must be multiples of {MULTIPLE}, overlap < tile; got {tile}, {overlap}")

    places = []
    for length, largest in zip(image.shape[1:], tile, strict=True):
        # As few tiles as possible, and these as small as possible, so that little is computed twice.
        side = next(side for _, side in _sides(length, overlap) if side <= largest)
        places.append(Tiling(side, overlap, multiple=MULTIPLE).along(length))
    return tiled(model, pad_to_multiple(image[None])[0], places, device=device, progress=progress)


def tile_for_memory(model: FFTformer, budget: int, height: int, width: int, overlap: int = OVERLAP) -> tuple[int, int]:
    """Choose the tiles that restore a picture with the least work within a memory budget.

    Args:
        budget: bytes for the network's weights and all it computes for one tile; the interpreter,
            its libraries (0.6 GB) and the picture come on top.
        height, width: of the picture in pixels.

    Returns:
        (height, width) for `restore_tiled`.

    Raises:
        UserError: not even tiles of twice the overlap fit.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    best: tuple[int, tuple[int, int]] | None = None
    down, across = (
        [(count, side) for count, side in _sides(length, overlap) if count == 1 or side >= 2 * overlap]
        for length in (height, width)
    )
    for count_rows, rows in down:
        for count_columns, columns in across:
            work = count_rows * count_columns * rows * columns
            if weights + peak_bytes(model, rows * columns) <= budget and (best is None or work < best[0]):
                best = work, (rows, columns)
    if best is None:
        (_, rows), (_, columns) = down[-1], across[-1]
        needed = (weights + peak_bytes(model, rows * columns)) / 2**20
        raise UserError(
            f"--memory of {budget / 2**20:.0f} MiB is too small for this network: "
            f"tiles of {rows}x{columns} pixels need {needed:.0f} MiB"
        )
    return best[1]


def peak_bytes(model: FFTformer, pixels: int) -> int:
    """Peak memory of a forward pass on a tile, on the model's device and under the autocast in force."""
    stem = model.patch_embed
    whole_maps = BYTES_PER_PIXEL * stem.out_channels * pixels
    if not strips.possible(stem.weight):
        return whole_maps
    return min(whole_maps, BYTES_PER_PIXEL_IN_STRIPS * stem.out_channels * pixels + BYTES_OF_STRIPS)


def _sides(length: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Each number of tiles for one axis, and the side that they need."""
    padded = _round_up(length)
    for count in range(1, padded // MULTIPLE + 1):
        yield count, _round_up(-(-(padded + (count - 1) * overlap) // count))


def _round_up(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
