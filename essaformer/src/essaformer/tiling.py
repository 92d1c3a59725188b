"""Scenes of any size through a network of bounded memory: overlapping tiles, blended without seams.

ESSA attends to all of a tile, so a tile's result depends, weakly, on what else is in it: with larger tiles more
of the scene is compared, and the result moves towards that of the whole scene. It is exact only where the scene
is one tile. The blend is smooth, so a seam cannot show, but two tile sizes give slightly different numbers
(the README states by how much).

Sizes here are those of the low-resolution input. Towards a neighbour the outer quarter of an overlap has weight
zero, because a convolution's border shows there, and the middle half a raised cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.networks.weights import finite
from essaformer.model import ESSAformer

OVERLAP = 16
"""Default overlap of two tiles, in pixels of the input."""
SMALLEST = 24
"""Smallest side of a tile that is chosen, in pixels of the input."""


@torch.inference_mode()
def enlarge_tiled(
    model: ESSAformer,
    low: Tensor,
    tile: int,
    overlap: int | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    places: tuple[Sequence[tuple[int, Tensor]], Sequence[tuple[int, Tensor]]] | None = None,
) -> Tensor:
    """Enlarge one scene tile by tile.

    Only one tile is on the model's device at a time; on the host there are the scene and its result.

    Args:
        low: `(bands, h, w)`, any size, on the host.
        tile: largest side of a tile; a scene that fits into one is enlarged whole.
        overlap: of neighbouring tiles, below `tile`; some neighbours share more. By default `OVERLAP`, in small
            tiles half of a tile.
        progress: told after each tile how many input pixels of the scene it completed.
        places: of the tiles along rows and columns, see `spans`, where `low` is a part of a scene.

    Returns:
        `(bands, h · scale, w · scale)` float32 on the host.

    Raises:
        ValueError: the tile is empty, or the overlap is not below it.
        UserError: the scene has another number of bands, or the network returned values that are not finite.
    """
    check_bands(model, low.shape[0])
    height, width = low.shape[1:]
    whole = max(height, width) <= tile
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if tile < 1 or (not whole and not 0 <= overlap < tile):
        raise ValueError(f"overlap must be below the tile, got {overlap} and {tile}")
    device, scale = next(model.parameters()).device, model.scale
    result = torch.zeros(low.shape[0], height * scale, width * scale)
    down, across = places or [spans(side, tile, overlap, scale) for side in (height, width)]
    for top, row_weights in down:
        for left, column_weights in across:
            rows, columns = len(row_weights) // scale, len(column_weights) // scale
            part = low[None, :, top : top + rows, left : left + columns].to(device)
            enlarged = finite(model(part)[0].float().cpu())
            there = result[:, top * scale : (top + rows) * scale, left * scale : (left + columns) * scale]
            there += enlarged * (row_weights[:, None] * column_weights)
            if progress:
                # Weights sum to one everywhere, so these add up to the scene's area.
                progress(round(float(row_weights.sum() * column_weights.sum()) / scale**2))
    return result


def check_bands(model: ESSAformer, bands: int, source: str = "the scene") -> None:
    """Refuse a scene for which the network was not trained.

    Raises:
        UserError: naming both numbers of bands.
    """
    if bands != model.bands:
        raise UserError(
            f"{source}: has {bands} bands but the checkpoint was trained on {model.bands}; "
            "take a checkpoint of the same sensor, or train one on this scene with --cube"
        )


def tile_for_memory(model: ESSAformer, budget: int, height: int, width: int) -> int:
    """The largest tile, up to the scene itself, whose forward pass fits the budget.

    Args:
        budget: bytes for the network's weights and all it computes for one tile; the interpreter, its
            libraries (0.6 GB), the scene and its result come on top.
        height, width: of the low-resolution scene.

    Raises:
        UserError: not even tiles of `SMALLEST` pixels fit.
    """
    fixed = fixed_bytes(model)
    largest = int(max(0, (budget - fixed) / bytes_per_pixel(model)) ** 0.5)
    smallest = min(SMALLEST, max(height, width))
    if largest < smallest:
        needed = (fixed + bytes_per_pixel(model) * smallest**2) / 2**20
        raise UserError(
            f"--memory leaves {max(budget, 0) / 2**20:.0f} MiB, which is too small for this network: "
            f"tiles of {smallest} × {smallest} pixels need {needed:.0f} MiB"
        )
    return min(largest, max(height, width))


def bytes_per_pixel(model: ESSAformer) -> int:
    """Peak memory of a forward pass per pixel of the input, in float32; see `fixed_bytes`."""
    return (64 * model.conv_first.out_channels + 20 * model.bands) * model.scale**2


def fixed_bytes(model: ESSAformer) -> int:
    """Memory that does not depend on the tile: weights, and what the libraries work in.

    Chosen so that `bytes_per_pixel` and the 32 MiB lie above the growth of the resident set that two forward passes
    showed on a CPU. Width 256, 128 bands, ×4, input of 4 × 4 pixels: 33 MiB (estimate 37), 16 × 16: 95 (106),
    32 × 32: 301 (328). Width 128, 64 bands, ×2, 24 × 24: 43 (53). Width 64, 31 bands, ×2, 24 × 24: 28 (42),
    96 × 96: 136 (198).
    """
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) + 32 * 2**20


def spans(length: int, tile: int, overlap: int, scale: int) -> list[tuple[int, Tensor]]:
    """Cover one axis with tiles.

    Returns:
        For each tile its start and the weights of its output pixels; over all tiles the weights sum to one.
    """
    if length <= tile:
        return [(0, torch.ones(length * scale))]
    count = -(-(length - overlap) // (tile - overlap))
    starts = np.linspace(0, length - tile, count).round().astype(int)
    total = np.zeros(length * scale)
    ramps = []
    for i, start in enumerate(starts):
        position = np.arange(tile * scale) + 0.5
        ramp = np.ones(tile * scale)
        if i > 0:
            ramp *= _rise(position / ((starts[i - 1] + tile - start) * scale))
        if i < count - 1:
            ramp *= _rise((tile * scale - position) / ((start + tile - starts[i + 1]) * scale))
        total[start * scale : (start + tile) * scale] += ramp
        ramps.append((int(start), ramp))
    return [
        (start, torch.from_numpy(ramp / total[start * scale : (start + tile) * scale]).float()) for start, ramp in ramps
    ]


def _rise(share: np.ndarray) -> np.ndarray:
    """0 up to a quarter of the overlap, 1 from three quarters on, a raised cosine between."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(2 * share - 0.5, 0, 1))
