"""Scenes larger than memory: groups of bands and tiles as in `denoising.py`, read and written window by window.

A window takes all tiles that have a share in it, so its values are those that the same tiles give a scene in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.hyperspectral.raster import Box, Layer
from common.hyperspectral.scene import Scene
from common.hyperspectral.streaming import Stream, reach_of_tiles, tile_side, tiles_within, window_side
from hcanet.denoising import band_groups, denoise, released_mix, tile_for_memory, tile_starts
from hcanet.model import HCANet
from hcanet.scenes import Scaling, limits
from hcanet.writing import restored


def denoise_raster(
    model: HCANet, input_: str, output: Path, scaling: Scaling, flags: Any, *, tile: int | None, trained: int
) -> None:
    """Denoise a GeoTIFF or ENVI scene of any size into a GeoTIFF.

    Args:
        flags: see `Stream`; half of `--memory` is for the network and half for a window.
        tile: side of the tiles; None for `trained` in released mode, else what memory allows.
        trained: the training size.

    Raises:
        UserError: fewer bands than the network, too little memory, or windows of another command.
    """
    stream = Stream(input_, output, model, flags)
    source, bands = stream.source, stream.source.bands
    band_groups(bands, model.bands)
    stored = source.dtype.itemsize

    def needed(side: int, tile: int) -> float:
        read = (side + 2 * tile) ** 2 * (bands * (2 * stored + 12) + 8 * model.bands)
        return read + side**2 * bands * (24 + 2 * stored)

    limit = tile_for_memory(model, max(int(stream.left / 2), 0), *source.shape)
    size = tile or (trained if released_mix(model) else tile_side(stream.left / 2, needed, limit))
    batch = max(1, min(limit, 2 * size) ** 2 // size**2)
    side = window_side(stream.left / 2, lambda side: needed(side, size))
    stream.begin(windows=side, tile=size, batch=batch, scaling=scaling)
    ends = stream.once("limits", lambda: source.percentiles((0, 100) if scaling == "minmax" else (99.9, 99.9)))
    offset, divisor = limits(np.array(ends)[None, :, None], np.ones((1, 2), dtype=bool), scaling, input_)

    def starts(length: int) -> list[int]:
        return tile_starts(length, size, size // 4)

    def compute(scene: Scene, box: Box, inner: Box) -> Sequence[np.ndarray]:
        noisy = (np.moveaxis(scene.cube, -1, 0).astype(np.float32) - np.float32(offset)) / np.float32(divisor)
        rows, columns = (
            [start - read.start for start in tiles_within(starts(length), size, read)]
            for length, read in zip(source.shape, box, strict=True)
        )
        denoised = denoise(model, torch.from_numpy(noisy), size, batch=batch, places=(rows, columns)).numpy()
        window = replace(scene, cube=scene.cube[inner], valid=scene.valid[inner])
        return [restored(denoised[:, *inner], offset, divisor, window)]

    layer = Layer(output, bands, source.dtype, source.output_no_data)
    stream.run([layer], compute, reach_of_tiles(starts, size), side)
