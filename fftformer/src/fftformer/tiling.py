"""Pictures of any size through a network of bounded memory: overlapping tiles, blended without seams.

FFTformer works on 8x8 patches at a quarter of the resolution, so a tile sees the patches that the
whole picture would show it only when it begins and ends at multiples of 32 pixels. Pictures are
continued by reflection to such a size at the right and bottom, as the published evaluation does.

Where two tiles overlap, each has weight zero in the quarter at its own edge, and the weights of
both follow a raised cosine in the middle half. If an output pixel depends on no pixel farther
away than `overlap / 4`, the result is exactly that of the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.networks.weights import finite
from fftformer.fast import strips
from fftformer.model import MULTIPLE, FFTformer

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


@torch.inference_mode()
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
        model: `(1, 3, h, w)` to the same shape, for any h and w.
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

    def restore(part: Tensor) -> Tensor:
        return finite(model(part[None].to(device))[0].float().cpu())

    if whole:
        result = restore(image)
        if progress:
            progress(height * width)
        return result
    result = torch.zeros(image.shape, dtype=torch.float32)
    rows, columns = _spans(height, tile[0], overlap), _spans(width, tile[1], overlap)
    for top, row_source, row_weights in rows:
        strip = image[:, row_source]
        for left, column_source, column_weights in columns:
            restored = restore(strip[:, :, column_source])[:, : len(row_weights), : len(column_weights)]
            bottom, right = top + len(row_weights), left + len(column_weights)
            result[:, top:bottom, left:right] += restored * row_weights[:, None] * column_weights
            if progress:
                # Weights sum to one everywhere, so these add up to the picture's area.
                progress(round(float(row_weights.sum()) * float(column_weights.sum())))
    return result


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
    for count_rows, rows in _sides(height, overlap):
        for count_columns, columns in _sides(width, overlap):
            work = count_rows * count_columns * rows * columns
            if weights + peak_bytes(model, rows * columns) <= budget and (best is None or work < best[0]):
                best = work, (rows, columns)
    if best is None:
        (_, rows), (_, columns) = _sides(height, overlap)[-1], _sides(width, overlap)[-1]
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


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, Tensor, Tensor]]:
    """Cover one axis with tiles.

    Returns:
        For each tile its start, the pixels it reads (reflected at the end) and the weights of
        those of its pixels that lie in the picture; over all tiles the weights sum to one.
    """
    padded = _round_up(length)
    # As few tiles as possible, and these as small as possible, so that little is computed twice.
    count = max(1, -(-(padded - overlap) // (tile - overlap)))
    size = _side(padded, count, overlap)
    starts = [min(i * (size - overlap), padded - size) for i in range(count)]
    spans, total = [], torch.zeros(length, dtype=torch.float64)
    for start in starts:
        inside = torch.arange(start, min(start + size, length))
        weights = torch.ones(len(inside), dtype=torch.float64)
        if start > 0:
            weights *= _ramp(inside - start, overlap)
        if start + size < padded:
            weights *= _ramp(start + size - 1 - inside, overlap)
        total[inside] += weights
        spans.append((start, _reflect(torch.arange(start, start + size), length), inside, weights))
    return [(start, source, (weights / total[inside]).float()) for start, source, inside, weights in spans]


def _sides(length: int, overlap: int) -> list[tuple[int, int]]:
    """All (number of tiles, side of a tile) for one axis, down to sides of twice the overlap."""
    padded, sides = _round_up(length), []
    for count in range(1, padded // MULTIPLE + 1):
        side = _side(padded, count, overlap)
        if count > 1 and side < 2 * overlap:
            break
        sides.append((count, side))
    return sides


def _side(padded: int, count: int, overlap: int) -> int:
    return _round_up(-(-(padded + (count - 1) * overlap) // count))


def _round_up(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def _ramp(distance: Tensor, overlap: int) -> Tensor:
    """Weight at a distance from a tile's inner edge: 0 for a quarter of the overlap, then up to 1."""
    position = (distance + 0.5 - overlap / 4) / max(overlap / 2, 1)
    return 0.5 - 0.5 * torch.cos(np.pi * position.double().clamp(0, 1))


def _reflect(positions: Tensor, length: int) -> Tensor:
    """Continue an axis by reflection without repeating its last pixel, as often as needed."""
    if length == 1:
        return torch.zeros_like(positions)
    period = 2 * (length - 1)
    positions = positions % period
    return torch.minimum(positions, period - positions)
