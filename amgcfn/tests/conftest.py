"""A scene small enough to train on within a second, and the trainer as a module."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from amgcfn.presets import Config
from common.hyperspectral.scene import Scene, make_scene

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_scene() -> Scene:
    """30 × 24 pixels, 5 bands, three classes that overlap, two rows unlabelled."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :24]
    labels = 1 + (rows // 10 + columns // 12) % 3
    cube = generator.uniform(500, 3000, (4, 5))[labels] + 700 * generator.standard_normal((30, 24, 5))
    labels[:2] = 0
    return make_scene("tiny", cube.round().clip(0).astype(np.int16), labels)


@pytest.fixture(scope="session")
def scene_files(tiny_scene, tmp_path_factory) -> tuple[str, str]:
    """The tiny scene on disk: cube and labels."""
    folder = tmp_path_factory.mktemp("scene")
    np.save(folder / "cube.npy", tiny_scene.cube)
    np.save(folder / "labels.npy", tiny_scene.labels.astype(np.uint8))
    return str(folder / "cube.npy"), str(folder / "labels.npy")


@pytest.fixture
def tiny_config(scene_files, tmp_path) -> Config:
    """A few epochs of one seed, with a learning rate at which the best epoch is not the last one."""
    return Config(
        cube=scene_files[0], labels=scene_files[1], output=tmp_path / "run", seeds=(1,), epochs=6, validate_every=1,
        learning_rate=0.02, ratio=0.05, validation=0.1, pixels_per_superpixel=40,
    )  # fmt: skip


@pytest.fixture
def train(monkeypatch) -> Callable[[Config], Path]:
    """Run the trainer's `main` in this process, without images; returns the run's folder."""
    torch.set_num_threads(1)
    script = SimpleNamespace(**runpy.run_path(str(PROJECT / "train.py")))
    inside = script.main.__wrapped__.__globals__
    for name in ("draw_graph", "save", "curves", "sheet", "confusion_figure", "composite"):
        monkeypatch.setitem(inside, name, lambda *arguments, **keywords: None)

    def run(config: Config, **changes: object) -> Path:
        config = replace(config, **changes)
        monkeypatch.setitem(inside, "from_command_line", lambda *_: config)
        script.main.__wrapped__()
        assert config.output is not None
        return config.output

    return run


def weights(model_folder: Path) -> dict[str, torch.Tensor]:
    """The exported tensors of a model folder."""
    return load_file(model_folder / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two networks are the same to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
