"""Denoise a whole scene with a network of few bands, in groups of bands and overlapping tiles.

The released local branch reads memory in an order that depends on height and width, so the network works best at the
size on which it was trained; tiles of that size are the default for it. With `local_mix="pixel"` tiles only save
memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.tiling import Places, Tiling, tiled
from hcanet.checkpoints import Preparation
from hcanet.eigen import eigen_images
from hcanet.model import HCANet


def band_groups(total: int, size: int) -> list[tuple[int, int]]:
    """Return pairs (first band of a group, first band of its result that is used); the last group ends the scene.

    Raises:
        UserError: the scene has fewer bands than the network.
    """
    if total < size:
        raise UserError(f"the scene has {total} bands but the network needs {size}; train one with --bands {total}")
    groups = [(start, start) for start in range(0, total - size + 1, size)]
    if total % size:
        groups.append((total - size, total - total % size))
    return groups


def tiling(tile: int) -> Tiling:
    """Return square tiles that overlap by a quarter; a tile's weights fall linearly in the quarters at its borders."""
    return Tiling(tile, tile // 4, _linear)


def _linear(distances: np.ndarray, _: np.ndarray, side: int) -> np.ndarray:
    return np.minimum(distances / (side / 4), 1)


def bytes_per_pixel(model: HCANet) -> int:
    """Return the bytes of a forward pass per pixel of one group. Measured at width 32: 6.4 kB (estimate 6.6)."""
    return 4 * (model.bands * 4 + 24 * 2 * model.dim)


def tile_for_memory(model: HCANet, memory: int, height: int, width: int) -> int:
    """Return the side of the largest tiles that fit into memory; if the whole image fits, its longer side."""
    side = int((memory / bytes_per_pixel(model)) ** 0.5) // 4 * 4
    return max(height, width) if side**2 >= height * width else max(side, 16)


def released_mix(model: HCANet) -> bool:
    """Whether a local branch depends on the size of the image."""
    return any(getattr(module, "local_mix", "") == "released" for module in model.modules())


def denoise(
    model: HCANet,
    image: Tensor,
    tile: int | None = None,
    *,
    batch: int = 1,
    progress: Callable[[int], object] | None = None,
    places: Places | None = None,
) -> Tensor:
    """Denoise `(bands, H, W)`.

    Args:
        model: in evaluation mode; the image is moved to its device group by group.
        image: values as in training; at least as many bands as the network.
        tile: side of square tiles, which overlap by a quarter and are blended; None: the whole image at once.
        batch: tiles per forward pass.
        progress: called after every tile with the number of pixels that it completed, for each group.
        places: the tiles, if the image is a part of a scene.

    Returns:
        `(bands, H, W)` float32 on the CPU.

    Raises:
        UserError: the image has fewer bands than the network, or the network returned values that are not finite.
    """
    groups = band_groups(len(image), model.bands)
    places = places or tiling(tile or max(image.shape[1:])).over(image.shape[1:])
    device = next(model.parameters()).device
    result = torch.empty(image.shape, dtype=torch.float32)
    for first, taken in groups:
        group = image[first : first + model.bands].float()
        restored = tiled(model, group, places, batch=batch, device=device, progress=progress)
        result[taken : first + model.bands] = restored[taken - first :]
    return result


def denoise_scene(
    model: HCANet,
    image: Tensor,
    preparation: Preparation,
    tile: int | None = None,
    *,
    batch: int = 1,
    progress: Callable[[int], object] | None = None,
    valid: np.ndarray | None = None,
) -> Tensor:
    """Denoise `(bands, H, W)` by `denoise`; if the network was trained on eigen-images, through these.

    Args:
        preparation: the preparation of the network's folder.
        valid: `(H, W)` bool, the pixels from which the eigen-images are computed; by default all.
    """
    if not preparation.eigen_images:
        return denoise(model, image, tile, batch=batch, progress=progress)
    images, space = eigen_images(
        image.double().numpy(), preparation.eigen_images, outliers=preparation.outliers, valid=valid
    )
    found = denoise(model, torch.from_numpy(images), tile, batch=batch, progress=progress)
    return torch.from_numpy(space.back(found.double().numpy())).float()
