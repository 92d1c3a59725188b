"""Run the trainer in this process, on a scene of 20 × 20 pixels and without figures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from torch import Tensor

from common.hyperspectral.synthetic import synthetic_scene
from lsgavit.data import find_scene
from lsgavit.presets import Config
from support.scripts import load_script

NO_DATA = 0.0
SMALL = {"components": 4, "window": 5, "ratio": 0.15, "batch_size": 16, "epochs": 1, "seeds": (), "log_every": 1}


def write_scenes(folder: Path) -> dict[str, Any]:
    """Two scenes with as many bands as rows and columns; the flags that name the first."""
    for name, seed in (("one", 0), ("two", 1)):
        scene = synthetic_scene(20, 20, bands=20, num_classes=3, seed=seed)
        cube, labels = scene.cube.astype(np.float32), scene.labels
        cube[9, 9:11] = NO_DATA  # measured values, unless declared to be none
        np.savez(folder / f"{name}.npz", cube=cube, labels=labels, merged=np.where(labels == 3, 2, labels))
    return {"cube": f"{folder}/one.npz:cube", "labels": f"{folder}/one.npz:labels", "band_axis": "last"}


def load_trainer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`train.py` as a module that draws nothing."""
    module = load_script(Path(__file__).parents[1] / "train.py")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name in ("sheet", "confusion_figure"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(module, "save", lambda _, path: (path.parent.mkdir(exist_ok=True), path.touch()))
    monkeypatch.setattr(module, "curves", lambda *_: None)
    return module


def train(module: ModuleType, folder: Path, flags: dict[str, Any]) -> dict[str, Tensor]:
    """Train one seed in `folder`; the exported weights."""
    config = Config(**{**SMALL, **flags, "output": folder})
    forget_launcher()
    try:
        module.train(config, find_scene(config), alone=True)
    finally:
        forget_launcher()
    return load_file(folder / "model" / "model.safetensors")


def forget_launcher() -> None:
    """accelerate allows only one precision per process, unless its state is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
