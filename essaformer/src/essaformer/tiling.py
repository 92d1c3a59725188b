"""Scenes of any size through ESSAformer within the memory: the tiles of `common.tiling`, and how large they may be.

ESSA attends to all of a tile, so a tile's result depends, weakly, on what else is in it: with larger tiles more
of the scene is compared, and the result moves towards that of the whole scene. It is exact only where the scene
is one tile. The blend is smooth, so a seam cannot show, but two tile sizes give slightly different numbers
(the README states by how much).

Sizes here are those of the low-resolution input.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from common.errors import UserError
from common.tiling import Places, Tiling, tiled
from essaformer.model import ESSAformer

OVERLAP = 16
"""Default overlap of two tiles, in pixels of the input."""
SMALLEST = 24
"""Smallest side of a tile that is chosen, in pixels of the input."""


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

    Only one tile is on the model's device at a time; on the host there are the scene and its result.

    Args:
        low: `(bands, h, w)`, any size, on the host.
        tile: largest side of a tile; a scene that fits into one is enlarged whole.
        overlap: of neighbouring tiles, below `tile`; some neighbours share more. By default `OVERLAP`, in small
            tiles half of a tile.
        progress: told after each tile how many input pixels of the scene it completed.
        places: of the tiles, where `low` is a part of a scene.

    Returns:
        `(bands, h · scale, w · scale)` float32 on the host.

    Raises:
        ValueError: the overlap is not below the tile.
        UserError: the scene has another number of bands, or the network returned values that are not finite.
    """
    check_bands(model, low.shape[0])
    tiling = tiling_for(tile, model.scale, overlap)
    device = next(model.parameters()).device
    return tiled(model, low, places or tiling.over(low.shape[1:]), scale=model.scale, device=device, progress=progress)


def tiling_for(tile: int, scale: int, overlap: int | None = None) -> Tiling:
    """Tiles of a side, and what neighbours share: by default `OVERLAP`, in small tiles half of a tile."""
    return Tiling(tile, min(OVERLAP, tile // 2) if overlap is None else overlap, scale=scale)


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
