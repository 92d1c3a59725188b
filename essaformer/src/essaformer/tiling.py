"""Enlarge scenes of any size in limited memory, with the tiles of `common.tiling`, and choose the size of the tiles.

ESSA attends to a whole tile, so the result at a pixel depends weakly on the rest of its tile. With larger tiles the
result approaches that of the whole scene; it is exact only if the scene is one tile. Tiles are blended smoothly, so no
seams are visible, but two tile sizes give slightly different values (the README states by how much).

Sizes here are those of the low-resolution input.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from common.errors import UserError
from common.tiling import Places, Tiling, tiled
from essaformer.model import ESSAformer

OVERLAP = 16
"""Default overlap of two tiles, in input pixels."""
SMALLEST = 24
"""Smallest side of a tile that `tile_for_memory` chooses, in input pixels."""


def enlarge_tiled(
    model: ESSAformer,
    low: Tensor,
    tile: int,
    overlap: int | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    places: Places | None = None,
) -> Tensor:
    """Enlarge one scene tile by tile.

    Only one tile is on the model's device at a time; the scene and its result stay on the CPU.

    Args:
        low: `(bands, h, w)`, any size, on the CPU.
        tile: largest side of a tile; a scene that fits into one is enlarged whole.
        overlap: least overlap of neighbouring tiles, below `tile`; by default `OVERLAP`, for small tiles half a tile.
        progress: called after each tile with the number of input pixels that it completed.
        places: the tiles, if `low` is a part of a scene.

    Returns:
        `(bands, h · scale, w · scale)` float32 on the CPU.

    Raises:
        ValueError: the overlap is not below the tile.
        UserError: the scene has another number of bands, or the network returned values that are not finite.
    """
    check_bands(model, low.shape[0])
    tiling = tiling_for(tile, model.scale, overlap)
    device = next(model.parameters()).device
    return tiled(model, low, places or tiling.over(low.shape[1:]), scale=model.scale, device=device, progress=progress)


def tiling_for(tile: int, scale: int, overlap: int | None = None) -> Tiling:
    """Return tiles of side `tile`; their overlap is by default `OVERLAP`, for small tiles half a tile."""
    return Tiling(tile, min(OVERLAP, tile // 2) if overlap is None else overlap, scale=scale)


def check_bands(model: ESSAformer, bands: int, source: str = "the scene") -> None:
    """Refuse a scene with another number of bands than the network was trained on.

    Raises:
        UserError: names both numbers.
    """
    if bands != model.bands:
        raise UserError(
            f"{source}: has {bands} bands but the checkpoint was trained on {model.bands}; "
            "take a checkpoint of the same sensor, or train one on this scene with --cube"
        )


def tile_for_memory(model: ESSAformer, budget: int, height: int, width: int) -> int:
    """Return the side of the largest tile, up to the whole scene, whose forward pass fits the budget.

    Args:
        budget: bytes for the network's weights and everything it computes for one tile. Interpreter and libraries
            (0.6 GB), the scene and its result need memory in addition.
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
    """Return the peak memory of a float32 forward pass in bytes per input pixel; see `fixed_bytes`."""
    return (64 * model.conv_first.out_channels + 20 * model.bands) * model.scale**2


def fixed_bytes(model: ESSAformer) -> int:
    """Return the bytes that do not depend on the tile: weights, and memory of the libraries.

    This estimate lies above the measured growth of resident memory in two forward passes on a CPU. Width 256, 128
    bands, ×4, input of 4 × 4 pixels: 33 MiB (estimate 37), 16 × 16: 95 (106), 32 × 32: 301 (328). Width 128, 64 bands,
    ×2, 24 × 24: 43 (53). Width 64, 31 bands, ×2, 24 × 24: 28 (42), 96 × 96: 136 (198).
    """
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) + 32 * 2**20
