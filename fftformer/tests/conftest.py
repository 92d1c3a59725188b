"""Fixtures of several test files: pairs of images, and scripts that are called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import common.figures
from fftformer import model
from support.scripts import run_here

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """A function that runs a script of the project in this process: name, arguments → exit status."""
    return lambda script, *arguments: run_here(PROJECT / script, *arguments)


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and three test pairs of different sizes in the layout input/target."""
    root = tmp_path_factory.mktemp("pairs")
    photograph = data.astronaut()
    sizes = {"train": [(48, 64)] * 5, "test": [(40, 56), (64, 48), (33, 35)]}
    for split, shapes in sizes.items():
        for number, (height, width) in enumerate(shapes):
            sharp = photograph[40 * number : 40 * number + height, 180 : 180 + width]
            blurred = (sharp.astype(float) + np.roll(sharp, 2, axis=1)) / 2
            for folder, image in (("target", sharp), ("input", blurred.astype(np.uint8))):
                path = root / split / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return root


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, pairs_folder: Path, call: Callable[..., int]) -> Callable[..., Path]:
    """Train a very small network for a few steps in this process; returns the run's folder."""
    small = {"dim": 8, "num_blocks": (1, 1, 1), "num_refinement_blocks": 1}
    monkeypatch.setitem(model._VARIANTS, "fftformer_tiny", small)
    monkeypatch.setitem(model._VARIANTS, "fftformer", small | {"num_blocks": (1, 1, 2)})

    def no_sheet(_: object, __: object, path: Path, *___: object) -> Path:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        return path

    monkeypatch.setattr(common.figures, "comparison_sheet", no_sheet)
    monkeypatch.setattr(common.figures, "curves", lambda *_: None)

    def run(output: Path, *arguments: object, root: Path = pairs_folder, status: int = 0) -> Path:
        command = ["--preset", "gopro_released", "--data-root", root, "--output", output, "--model", "fftformer_tiny"]
        command += ["--crop", 32, "--batch-size", 2, "--workers", 0, "--save-every", 0, "--log-every", 1]
        command += ["--iterations", 5, "--max-steps", 3]
        assert call("train.py", *command, *arguments) == status
        return output

    return run
