"""Regions of scenes with values scaled to [0, 1], and the split of a single scene into three of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from common.hyperspectral import regions
from common.hyperspectral.scene import Scene
from essaformer.scaling import Scaling, scaled


@dataclass(frozen=True, eq=False)
class Region(regions.Region):
    """A rectangle of a scene.

    Attributes:
        divisor: the number by which the scene's values are divided, see `Scaling`.
    """

    divisor: float

    def values(self, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """Scaled values `(height, width, bands)` float32 in [0, 1] of a window inside the region."""
        rows = slice(self.top + top, self.top + top + (height or self.height - top))
        columns = slice(self.left + left, self.left + left + (width or self.width - left))
        return scaled(self.scene.cube[rows, columns], self.divisor)


Regions = dict[str, list[Region]]
"""Split ("train", "validation", "test") → its regions."""


def scene_region(scene: Scene, scaling: Scaling) -> Region:
    """Return a whole scene as one region."""
    return Region(scene, 0, 0, *scene.shape, scaling.divisor(scene.spectra(), scene.source or scene.name))


def single_scene(scene: Scene, scaling: Scaling) -> Regions:
    """Split one scene by rows: upper 48 % for training, next 12 % for validation, lower 40 % for test.

    The values of training and validation rows alone determine the divisor.

    Raises:
        UserError: less than 32 × 32 pixels hold data.
    """
    rows, columns = scene.extent  # a border without data belongs to no region
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if min(height, width) < 32:
        raise UserError(f"{scene.source or scene.name}: has {height} × {width} pixels; expected at least 32 × 32")
    # Multiples of 4, so that no pixel is lost at the usual scales. The split is by rows, because the right side of the
    # Pavia crop is open water, which does not show how good a method is.
    cut = round(0.6 * height / 4) * 4
    first = cut - max(round(0.12 * height / 4) * 4, 12)
    top, left = rows.start, columns.start
    divisor = scaling.divisor(scene.spectra(slice(top, top + cut)), scene.source or scene.name)
    return {
        "train": [Region(scene, top, left, first, width, divisor)],
        "validation": [Region(scene, top + first, left, cut - first, width, divisor)],
        "test": [Region(scene, top + cut, left, height - cut, width, divisor)],
    }


def cut_to_multiples(region: Region, scale: int) -> Region:
    """Return a region for validation or test, its sides cut to multiples of the scale.

    Raises:
        UserError: it is smaller than 11 × 11 pixels, or holds no data.
    """
    height, width = region.height // scale * scale, region.width // scale * scale
    if min(height, width) < 11:
        raise UserError(
            f"{region.scene.source or region.scene.name}: leaves only {region.height} × {region.width} pixels to "
            "validate or test on; expected at least 11 × 11, so a scene of about 32 × 32 or more"
        )
    found = Region(region.scene, region.top, region.left, height, width, region.divisor)
    if not found.valid.any():
        raise UserError(f"{region.scene.source or region.scene.name}: {found.name} is to be scored but holds no data")
    return found
