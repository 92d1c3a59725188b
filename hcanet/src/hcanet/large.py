"""Scenes larger than memory: groups of bands and tiles as in `denoising.py`, read and written window by window.

A window uses all tiles that contribute to it, so its values equal those of the same tiles on a scene in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from common.errors import UserError
from common.hyperspectral.layers import Layer
from common.hyperspectral.raster import Box, boxes
from common.hyperspectral.scene import Scene
from common.hyperspectral.streaming import Stream, around, halo, tile_side, window_side
from hcanet.checkpoints import Preparation
from hcanet.denoising import band_groups, denoise, released_mix, tile_for_memory, tiling
from hcanet.eigen import EigenSpace
from hcanet.model import HCANet
from hcanet.scaling import restored
from hcanet.scenes import Scaling, limits


def denoise_raster(
    model: HCANet, input_: str, output: Path, scaling: Scaling, flags: Any, *, tile: int | None,
    preparation: Preparation,
) -> None:  # fmt: skip
    """Denoise a GeoTIFF or ENVI scene of any size into a GeoTIFF.

    Args:
        flags: see `Stream`; half of `--memory` is for the network and half for a window.
        tile: side of the tiles; None: the training size for the released local branch, else as memory allows.
        preparation: the preparation of the network's folder.

    Raises:
        UserError: the scene has fewer bands than the network, the memory is too small, windows or output belong to
            another command, or the network needs the replacement of outliers in the whole scene.
    """
    if preparation.outliers and preparation.eigen_images:
        raise UserError(
            "this network needs outliers to be replaced, for which the scene must fit in memory; raise --memory"
        )
    stream = Stream(input_, output, model, flags)
    source, bands = stream.source, stream.source.bands
    band_groups(bands, model.bands)
    rank, stored = preparation.eigen_images, source.dtype.itemsize
    made = 12 + 40 * (rank > 0)  # bytes of copies per value; eigen-images are computed in float64

    def needed(side: int, tile: int) -> float:
        read = (side + 2 * tile) ** 2 * (bands * (2 * stored + made) + 8 * model.bands)
        return read + side**2 * bands * (24 + 2 * stored)

    limit = tile_for_memory(model, max(int(stream.left / 2), 0), *source.shape)
    size = tile or (preparation.tile if released_mix(model) else tile_side(stream.left / 2, needed, limit))
    batch = max(1, min(limit, 2 * size) ** 2 // size**2)
    side = window_side(stream.left / 2, lambda side: needed(side, size))
    if not stream.begin(windows=side, tile=size, batch=batch, scaling=scaling):
        return
    ends = stream.once("limits", lambda: source.percentiles((0, 100) if scaling == "minmax" else (99.9, 99.9)))
    offset, divisor = limits(np.array(ends)[None, :, None], np.ones((1, 2), dtype=bool), scaling, input_)

    def noisy(scene: Scene) -> np.ndarray:
        return (np.moveaxis(scene.cube, -1, 0).astype(np.float32) - np.float32(offset)) / np.float32(divisor)

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray, Box]]:
        for part in tqdm(boxes(source.shape, 128), unit="block", desc="eigen-images"):
            box, inner = around(halo(1), part, source.shape)
            scene = source.read(box)
            if scene.valid[inner].any():
                yield noisy(scene), scene.valid, inner

    def eigen_space() -> dict[str, list[Any]]:
        return {name: value.tolist() for name, value in vars(EigenSpace.of_pieces(pieces(), bands, rank)).items()}

    space = None
    if rank:
        space = EigenSpace(**{name: np.array(value) for name, value in stream.once("eigen", eigen_space).items()})

    tiles = tiling(size)

    def compute(scene: Scene, box: Box, inner: Box) -> Sequence[np.ndarray]:
        image = noisy(scene)
        if space:
            image = space.project(image.astype(np.float64))
        places = tiles.within(box, source.shape)
        denoised = denoise(model, torch.from_numpy(image), batch=batch, places=places).numpy()
        denoised = denoised[:, *inner]
        if space:
            denoised = space.back(denoised.astype(np.float64)).astype(np.float32)
        window = replace(scene, cube=scene.cube[inner], valid=scene.valid[inner])
        return [restored(denoised, offset, divisor, window)]

    layer = Layer(output, bands, source.dtype, source.output_no_data)
    stream.run([layer], compute, tiles.reach, side)
