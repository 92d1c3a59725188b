"""Restoring images of any size in tiles, and choosing the size of the tiles for a memory budget.

FFTformer works on 8x8 patches at a quarter of the resolution. The patches of a tile are those of the whole image only
if the tile begins and ends at multiples of 32 pixels. Images are padded to such a size by reflection at the right and
the bottom, as in the published evaluation.

If no output pixel depends on pixels farther away than `overlap / 4`, the result equals that of the whole image.
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
"""Peak memory of a forward pass without `strips`, in bytes per pixel and per channel of the first level (`dim`).

Measured on a CPU as growth of the resident memory, with tiles of 256 to 640 pixels: up to 268 in float32 (12.9 kB per
pixel for the released configuration, dim 48) and 182 under bfloat16 autocast.
"""
BYTES_PER_PIXEL_IN_STRIPS = 60
"""The same with `strips`, which are used on a CPU without autocast; measured 57 for dim 48."""
BYTES_OF_STRIPS = 80 * 2**20
"""Additional memory of the strips in bytes; it does not depend on the size of the image."""


def restore_tiled(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    tile: int | tuple[int, int],
    overlap: int = OVERLAP,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Restore one image tile by tile.

    Only one tile at a time is on the device. The image and the result are in the CPU's memory.

    Args:
        model: `(1, 3, h, w)` → the same shape, for h and w that are multiples of 32.
        image: `(3, H, W)`, any size, in the CPU's memory.
        tile: largest height and width of a tile in pixels, multiples of 32. An image that fits into one tile is
            restored as a whole. Otherwise there are as few tiles as possible, and they are as small as possible.
        overlap: overlap of neighbouring tiles in pixels, a multiple of 32 below `tile`; some tiles overlap more.
        device: device of the model.
        progress: called after each tile with the number of finished pixels since the last call.

    Returns:
        `(3, H, W)` float32, in the CPU's memory.

    Raises:
        ValueError: `tile` or `overlap` is not a multiple of 32, or the overlap is too large.
        UserError: the network returned infinite values or NaN.
    """
    tile = (tile, tile) if isinstance(tile, int) else tile
    height, width = image.shape[1:]
    whole = height <= tile[0] and width <= tile[1]
    if any(side % MULTIPLE for side in (*tile, overlap)) or not (whole or 0 <= overlap < min(tile)):
        raise ValueError(f"tile and overlap must be multiples of {MULTIPLE}, overlap < tile; got {tile}, {overlap}")

    places = []
    for length, largest in zip(image.shape[1:], tile, strict=True):
        # As few tiles as possible, and as small as possible, so that few pixels are computed twice.
        side = next(side for _, side in _sides(length, overlap) if side <= largest)
        places.append(Tiling(side, overlap, multiple=MULTIPLE).along(length))
    return tiled(model, pad_to_multiple(image[None])[0], places, device=device, progress=progress)


def tile_for_memory(model: FFTformer, budget: int, height: int, width: int, overlap: int = OVERLAP) -> tuple[int, int]:
    """Choose the size of the tiles that needs the least work within a memory budget.

    Args:
        model: the network.
        budget: bytes for the weights and for all that is computed for one tile. Python with its libraries (0.6 GB)
            and the image need further memory.
        height, width: of the image in pixels.
        overlap: overlap of neighbouring tiles in pixels.

    Returns:
        (height, width) of a tile, for `restore_tiled`.

    Raises:
        UserError: the budget is too small even for tiles of twice the overlap.
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
    """Peak memory in bytes of a forward pass for a tile, on the model's device and under the current autocast."""
    stem = model.patch_embed
    whole_maps = BYTES_PER_PIXEL * stem.out_channels * pixels
    if not strips.possible(stem.weight):
        return whole_maps
    return min(whole_maps, BYTES_PER_PIXEL_IN_STRIPS * stem.out_channels * pixels + BYTES_OF_STRIPS)


def _sides(length: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Possible numbers of tiles along one axis, and the side of a tile in pixels for each number."""
    padded = _round_up(length)
    for count in range(1, padded // MULTIPLE + 1):
        yield count, _round_up(-(-(padded + (count - 1) * overlap) // count))


def _round_up(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
