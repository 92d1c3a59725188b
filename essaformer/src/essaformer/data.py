"""Training patches and evaluation images: the low-resolution input is made from the high-resolution truth.

Scenes stay in memory in their files' type, because the patches of a scene overlap. A patch is scaled, flipped or
rotated, and reduced by MATLAB's `imresize` when it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from essaformer.regions import Region
from essaformer.resize import imresize


class TrainingPatches(Dataset[dict[str, Tensor]]):
    """Square patches on a grid, in eight flips and rotations; patches that contain pixels without data are left out.

    Args:
        regions: the regions of the training split.
        crop: side of a high-resolution patch in pixels, a multiple of `scale`.
        stride: distance between patches in pixels; with 1 every position is a patch.
        scale: factor of the super-resolution.
        seed: seed of every random choice.

    Item `(epoch, index)`:
        `{"low": (bands, crop / scale, crop / scale), "high": (bands, crop, crop)}`, float32, truth in [0, 1].

    Raises:
        ValueError: crop, stride or scale do not fit together.
        UserError: a region is smaller than a patch, no patch is without holes, or regions differ in bands.
    """

    def __init__(self, regions: Sequence[Region], crop: int, stride: int, scale: int, seed: int) -> None:
        if crop < scale or crop % scale or stride < 1:
            raise ValueError(f"crop must be a multiple of scale {scale}, stride at least 1; got {crop} and {stride}")
        check_bands(regions)
        self.crop, self.scale, self.seed = crop, scale, seed
        self.windows: list[tuple[Region, int, int]] = []
        for region in regions:
            if min(region.height, region.width) < crop:
                raise UserError(
                    f"{region.scene.source or region.scene.name}: the training region has {region.height} × "
                    f"{region.width} pixels, too few for a crop of {crop}; lower --crop"
                )
            places = [range(0, side - crop + 1, stride) for side in (region.height, region.width)]
            self.windows += [
                (region, top, left)
                for top in places[0]
                for left in places[1]
                if region.valid[top : top + crop, left : left + crop].all()
            ]
        if not self.windows:
            raise UserError(
                f"{regions[0].scene.source or regions[0].scene.name}: every training patch of {crop} × {crop} pixels "
                "holds pixels without data; lower --crop or --stride"
            )

    @property
    def bands(self) -> int:
        """Number of bands of every patch."""
        return self.windows[0][0].scene.bands

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        region, top, left = self.windows[index]
        patch = region.values(top, left, self.crop, self.crop).transpose(2, 0, 1)
        down, across, transpose = np.random.default_rng([self.seed, epoch, index]).integers(2, size=3)
        patch = patch[:, :: -1 if down else 1, :: -1 if across else 1]
        high = np.ascontiguousarray(patch.swapaxes(1, 2) if transpose else patch)
        return {"low": torch.from_numpy(imresize(high, 1 / self.scale)), "high": torch.from_numpy(high)}


class EvaluationPictures(Dataset[dict[str, Any]]):
    """Whole regions for scoring.

    Item `index`:
        `{"name": str, "region": Region, "low": (bands, h, w), "high": (bands, H, W)}`, float32; pixels without
        data hold the nearest spectrum, and `region.valid` is false for them.
    """

    def __init__(self, regions: Sequence[Region], scale: int) -> None:
        check_bands(regions)
        self.regions, self.scale = list(regions), scale

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        region = self.regions[index]
        high = np.ascontiguousarray(region.values().transpose(2, 0, 1))
        low = imresize(high, 1 / self.scale)
        return {"name": region.name, "region": region, "low": torch.from_numpy(low), "high": torch.from_numpy(high)}


def check_bands(regions: Sequence[Region]) -> None:
    """Refuse scenes with different numbers of bands.

    Raises:
        UserError: two scenes differ; names the first two.
    """
    first = regions[0].scene
    for region in regions[1:]:
        if region.scene.bands != first.bands:
            raise UserError(
                f"{region.scene.source or region.scene.name}: has {region.scene.bands} bands but "
                f"{first.source or first.name} has {first.bands}; one network needs one number of bands"
            )
