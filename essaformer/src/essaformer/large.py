"""Scenes larger than memory: the tiles of `tiling.py`, read and written window by window.

A window uses all tiles that contribute to it, so its values equal those of the same tiles on a scene in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.hyperspectral.layers import Layer
from common.hyperspectral.raster import Box
from common.hyperspectral.scene import Scene
from common.hyperspectral.streaming import Stream, tile_side, window_side
from essaformer.model import ESSAformer
from essaformer.scaling import Scaling, restored, scaled
from essaformer.tiling import check_bands, enlarge_tiled, tile_for_memory, tiling_for


def enlarge_raster(
    model: ESSAformer, input_: str, output: Path, scaling: Scaling, flags: Any,
    *, tile: int | None = None, precision: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Enlarge a GeoTIFF or ENVI scene of any size into a GeoTIFF.

    Args:
        flags: see `Stream`; half of `--memory` is for the network and half for a window.
        tile: side of the tiles; by default as large as memory allows.
        precision: type of autocast; None: float32.

    Raises:
        UserError: the scene has another number of bands, the memory is too small, or windows or output belong to
            another command.
    """
    stream = Stream(input_, output, model, flags)
    source, scale, bands = stream.source, model.scale, stream.source.bands
    check_bands(model, bands, input_)
    stored = source.dtype.itemsize

    def needed(side: int, tile: int) -> float:
        read = (side + 2 * tile) ** 2 * (2 * stored + 12 + 4 * scale**2)
        return bands * (read + 2 * stored * (side * scale) ** 2)

    half = int(stream.left / 2)
    tile = tile or tile_side(half, needed, tile_for_memory(model, half, *source.shape))
    side = window_side(half, lambda side: needed(side, tile))
    if not stream.begin(windows=side, tile=tile, scaling=[scaling.rule, scaling.value], precision=str(precision)):
        return
    share = {"maximum": 100.0, "percentile": scaling.value}.get(scaling.rule)
    reached = stream.once("reached", lambda: source.percentiles([share])[0] if share else 1.0)
    divisor = scaling.divisor(np.full((1, 1, 1), reached), input_)
    tiling = tiling_for(tile, scale)

    def compute(scene: Scene, box: Box, inner: Box) -> Sequence[np.ndarray]:
        low = torch.from_numpy(np.ascontiguousarray(scaled(scene.cube, divisor).transpose(2, 0, 1)))
        with torch.autocast(stream.device.type, precision, enabled=precision is not None):
            enlarged = enlarge_tiled(model, low, tile, places=tiling.within(box, source.shape))
        window = enlarged[:, *(slice(part.start * scale, part.stop * scale) for part in inner)].permute(1, 2, 0).numpy()
        return [np.stack([restored(row, divisor, source.dtype) for row in window])]

    layer = Layer(output, bands, source.dtype, source.output_no_data, scale)
    stream.run([layer], compute, tiling.reach, side)
