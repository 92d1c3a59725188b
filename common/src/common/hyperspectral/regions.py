"""Rectangles of scenes, into which projects cut a data set for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from common.hyperspectral.scene import Scene


@dataclass(frozen=True, eq=False)
class Region:
    """A rectangle of a scene. A project's subclass adds how the values are scaled.

    Attributes:
        scene: the whole scene, in its file's type.
        top, left, height, width: in pixels.
    """

    scene: Scene
    top: int
    left: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The scene's name, with the rectangle unless it is the whole scene; for messages and results."""
        if (self.height, self.width) == self.scene.shape:
            return self.scene.name
        return f"{self.scene.name} {self.top}:{self.top + self.height},{self.left}:{self.left + self.width}"

    @property
    def valid(self) -> np.ndarray:
        """Where the region holds data, `(height, width)` bool."""
        return self.scene.valid[self.top : self.top + self.height, self.left : self.left + self.width]


def describe(regions: Mapping[str, Sequence[Region]]) -> dict[str, list[dict[str, Any]]]:
    """Return the regions of each split as values for JSON: scene, file, rectangle and scaling."""
    return {
        split: [
            {"scene": region.scene.name, "source": region.scene.source}
            | {field.name: getattr(region, field.name) for field in fields(region) if field.name != "scene"}
            for region in found
        ]
        for split, found in regions.items()
    }
