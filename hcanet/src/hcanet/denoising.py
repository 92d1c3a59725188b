"""A whole scene through a network of few bands: groups of bands, overlapping tiles.

In released mode the local branch reads memory in an order that depends on height and width, so the network gives its
best on the size it was trained on: tiles of that size are the default there. With `local_mix="pixel"` tiles only
save memory.
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
    """Pairs (first band of a pass, first band of its result that is kept); the last pass covers the last bands.

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
    """Square tiles that overlap by a quarter; the weights of each fall linearly in the quarters at its borders."""
    return Tiling(tile, tile // 4, _linear)


def _linear(distances: np.ndarray, _: np.ndarray, side: int) -> np.ndarray:
    return np.minimum(distances / (side / 4), 1)


def bytes_per_pixel(model: HCANet) -> int:
    """Memory of a forward pass per pixel of one group; at width 32 6.4 kB were measured, for which this gives 6.6."""
    return 4 * (model.bands * 4 + 24 * 2 * model.dim)


def tile_for_memory(model: HCANet, memory: int, height: int, width: int) -> int:
    """The side of tiles that fit; the longer side where the whole image does."""
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
        model: in evaluation mode; the image goes to its device group by group.
        image: values as in training; as many bands as the network or more.
        tile: side of square tiles, blended where they overlap by a quarter; None for the whole image at once.
        batch: tiles per forward pass.
        progress: called after every tile with the number of pixels that it completed, anew for each group.
        places: of the tiles, where the image is a part of a scene.

    Returns:
        `(bands, H, W)` float32 on the CPU.

    Raises:
        UserError: fewer bands than the network, or it returned values that are not finite.
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
    """What `denoise` does, through the eigen-images of the image where the network was trained on them.

    Args:
        preparation: of the network.
        valid: `(H, W)` bool, the pixels of which the eigen-images are computed; all by default.
    """
    if not preparation.eigen_images:
        return denoise(model, image, tile, batch=batch, progress=progress)
    images, space = eigen_images(
        image.double().numpy(), preparation.eigen_images, outliers=preparation.outliers, valid=valid
    )
    found = denoise(model, torch.from_numpy(images), tile, batch=batch, progress=progress)
    return torch.from_numpy(space.back(found.double().numpy())).float()
