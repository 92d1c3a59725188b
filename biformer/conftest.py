"""Fixtures of several test files: small data for the three trainers, and trainers that are called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from biformer import pictures, variants
from biformer.detection import demo as detection_demo
from biformer.detection import pictures as detection_pictures
from biformer.photographs import demo_pictures
from biformer.segmentation import photographs as segmentation_demo
from biformer.segmentation import pictures as segmentation_pictures
from common import figures
from support.scripts import call_script

PROJECT = Path(__file__).parent
SMALL = {"depths": (1, 1, 1, 1), "dims": (32, 64, 128, 256)}
SCRIPTS = {"classification": "train.py", "segmentation": "segmentation/train.py", "detection": "detection/train.py"}
FLAGS = {
    "classification": (
        *("--preset", "imagenet_tiny", "--image-size", 32, "--num-regions", 2, "--batch-size", 2, "--epochs", 2),
        *("--warmup-epochs", 1, "--cooldown-epochs", 0, "--repeats", 1, "--learning-rate", 0.5, "--ema", 0.9),
    ),
    "segmentation": (
        *("--preset", "upernet_small", "--model", "biformer_tiny", "--head-width", 8, "--image-size", 32),
        *("--num-regions", 2, "--batch-size", 2, "--iterations", 8, "--warmup-iterations", 2),
        *("--learning-rate", 1e-2, "--validate-every", 0),
    ),
    "detection": (
        *("--preset", "mask_rcnn_small", "--model", "biformer_tiny", "--num-regions", 2, "--channels", 8),
        *("--short-side", 64, "--long-side", 96, "--regions-per-picture", 8, "--batch-size", 2, "--epochs", 4),
        *("--mixed-precision", "no", "--warmup-steps", 2, "--learning-rate", 0.05, "--validate-epochs", 99),
    ),
}
"""Flags for three updates of the published recipe with few small images."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small data set for each task, in its published layout."""
    root = tmp_path_factory.mktemp("data")
    for split, found, count in zip(("train", "val"), demo_pictures(4, 2), (4, 2), strict=True):
        for name in ("brick", "cat", "grass"):
            first = list(found.names).index(f"{'train' if split == 'train' else 'test'}/{name}/0")
            (root / "classes" / split / name).mkdir(parents=True)
            for number in range(count):
                found.read(first + number)[0].save(root / "classes" / split / name / f"{number}.png")
    return {
        "classification": root / "classes",
        "segmentation": segmentation_demo.write_demo(root / "scenes", training=6, validation=2),
        "detection": detection_demo.write_demo(root / "coco", training=6, validation=2),
    }


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> Callable[..., Path]:
    """Train a small network of a task for three updates in this process; returns the run's folder."""
    monkeypatch.setitem(variants._VARIANTS, "biformer_tiny", SMALL)
    monkeypatch.setitem(variants._VARIANTS, "biformer_small", SMALL | {"depths": (1, 1, 2, 1)})

    def no_sheet(*arguments: object, **_: object) -> Path:
        path = next(each for each in arguments[::-1] if isinstance(each, Path))
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        return path

    for module, name in (
        (pictures, "prediction_sheet"),
        (pictures, "routing_sheet"),
        (segmentation_pictures, "prediction_sheet"),
        (detection_pictures, "detection_sheet"),
    ):
        monkeypatch.setattr(module, name, no_sheet)
    monkeypatch.setattr(figures, "curves", lambda *_: None)

    def run(task: str, output: Path, *arguments: object, root: Path | None = None, status: int = 0) -> Path:
        command = ["--data-root", root or folders[task], "--output", output, *FLAGS[task], "--workers", 0]
        command += ["--max-steps", 3, "--save-every", 0, "--log-every", 1]
        call_script(PROJECT / SCRIPTS[task], *command, *arguments, status=status)
        return output

    return run


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in COCO's layout."""
    return detection_demo.write_demo(tmp_path_factory.mktemp("coco"), training=6, validation=4)
