"""A tiny labelled scene on disk, and the flags that train on it within seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.hyperspectral.synthetic import synthetic_scene

CROPS = (3301010101, 3302020202, 99_000_000_001)
"""Class codes beyond 16 and 32 bits, as in crop catalogues."""


@pytest.fixture(scope="session")
def scene_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.npz"
    scene = synthetic_scene(26, 22, bands=8, num_classes=3)
    np.savez(path, cube=scene.cube, labels=scene.labels, crops=np.array([0, *CROPS])[scene.labels])
    return path


@pytest.fixture(scope="session")
def flags(scene_file: Path) -> list[str]:
    own = ["--cube", f"{scene_file}:cube", "--labels", f"{scene_file}:crops"]
    sizes = ["--components", "6", "--window", "5", "--ratio", "0.2", "--batch-size", "16"]
    return [*own, *sizes, "--epochs", "2", "--save-every", "2", "--log-every", "2"]
