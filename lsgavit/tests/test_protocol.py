"""Splits and scores from outside: parts are disjoint, test labels change no weight, the best weights are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training import SMALL, load_trainer, train, write_scenes

from lsgavit import load_model
from lsgavit.data import PreparedScene, find_scene
from lsgavit.presets import Config

PARTS = ("train", "validation", "test")
WITH_CHOICE = {"validation": 0.15, "patience": 3, "epochs": 6, "learning_rate": 0.03}


@pytest.fixture
def scenes(tmp_path: Path) -> dict[str, Any]:
    return write_scenes(tmp_path)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_trainer(monkeypatch)


@pytest.fixture
def labels(scenes: dict[str, Any], tmp_path: Path) -> np.ndarray:
    del scenes
    with np.load(tmp_path / "one.npz") as file:
        return file["labels"]


def parts(run: Path) -> dict[str, set[int]]:
    """Return the pixels of each part that the run recorded."""
    with np.load(run / "model" / "split.npz") as file:
        return {part: set(file[part].tolist()) for part in PARTS}


def answers(run: Path, pixels: set[int], scenes: dict[str, Any]) -> np.ndarray:
    """Classes that the exported network gives single windows, without the trainer's scoring."""
    sample = PreparedScene.load(run / "model", find_scene(Config(**SMALL | scenes)))
    model = load_model(run / "model")
    windows = sample.windows(model.image_size)
    with torch.no_grad():
        return (model(windows[torch.tensor(sorted(pixels))]).argmax(dim=1) + 1).numpy()


@pytest.mark.parametrize(
    "flags", [{}, {"split": "disjoint", "window": 3}, WITH_CHOICE], ids=["random", "blocks", "held"]
)
def test_parts_are_disjoint_and_written_down(
    flags: dict[str, Any], trainer: ModuleType, scenes: dict[str, Any], labels: np.ndarray, tmp_path: Path
) -> None:
    train(trainer, tmp_path / "run", scenes | flags)
    found = parts(tmp_path / "run")
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    assert set.union(*found.values()) <= set(np.flatnonzero(labels).tolist())
    assert found["train"] and found["test"]
    assert bool(found["validation"]) == ("validation" in flags)
    if "split" not in flags:
        assert set.union(*found.values()) == set(np.flatnonzero(labels).tolist())
        return
    places = {part: np.array([divmod(pixel, labels.shape[1]) for pixel in sorted(found[part])]) for part in PARTS[::2]}
    apart = np.abs(places["train"][:, None] - places["test"]).max(axis=-1)
    assert apart.min() >= 3  # windows of 3 × 3 pixels share none


@pytest.mark.parametrize("flags", [{"ema": 0.5, "augmentation": True}, WITH_CHOICE], ids=["last", "chosen"])
def test_nonsense_in_the_test_labels_changes_no_weight(
    flags: dict[str, Any], trainer: ModuleType, scenes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = train(trainer, tmp_path / "sound", scenes | flags)
    draw = PreparedScene.draw

    def with_nonsense(*arguments: Any) -> PreparedScene:
        sample = draw(*arguments)
        spoilt = sample.scene.require_labels().copy()
        spoilt.flat[sample.split.test] = 1 + np.random.default_rng(0).integers(3, size=len(sample.split.test))
        return replace(sample, scene=replace(sample.scene, labels=spoilt))

    monkeypatch.setattr(trainer.PreparedScene, "draw", with_nonsense)
    spoilt = train(trainer, tmp_path / "spoilt", scenes | flags)
    scores = [json.loads((tmp_path / run / "scores.json").read_text())["OA"] for run in ("sound", "spoilt")]
    assert scores[0] != scores[1]
    for name, value in sound.items():
        assert torch.equal(spoilt[name], value), f"{name} depends on labels of test pixels"


def test_the_kept_weights_are_those_of_the_best_line(
    trainer: ModuleType, scenes: dict[str, Any], labels: np.ndarray, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(trainer, run, scenes | WITH_CHOICE)
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    recorded = [line["validation_oa"] for line in lines if "validation_oa" in line]
    assert len(set(recorded)) > 1
    assert recorded[-1] < max(recorded), "choose flags whose last epoch is not the best"
    pixels = parts(run)["validation"]
    right = answers(run, pixels, scenes) == labels.flat[sorted(pixels)]
    assert 100 * right.mean() == pytest.approx(max(recorded))


def test_patience_ends_the_training(trainer: ModuleType, scenes: dict[str, Any], tmp_path: Path) -> None:
    train(trainer, tmp_path / "run", scenes | WITH_CHOICE | {"patience": 1, "epochs": 20})
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    recorded = [line["validation_oa"] for line in lines if "validation_oa" in line]
    assert recorded[:-1] == sorted(set(recorded[:-1])), "each was better than the one before"
    assert recorded[-1] <= max(recorded[:-1])
    assert (tmp_path / "run" / "scores.json").exists()


def test_scores_are_those_of_the_exported_weights_on_the_test_pixels(
    trainer: ModuleType, scenes: dict[str, Any], labels: np.ndarray, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(trainer, run, scenes | {"epochs": 6, "ema": 0.5, "learning_rate": 0.003})
    pixels = parts(run)["test"]
    true, found = labels.flat[sorted(pixels)], answers(run, pixels, scenes)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (true - 1, found - 1), 1)
    share = confusion / confusion.sum()
    chance = share.sum(axis=0) @ share.sum(axis=1)
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert scores["OA"] == pytest.approx(100 * np.trace(share))
    assert scores["AA"] == pytest.approx(100 * (np.diag(share) / share.sum(axis=1)).mean())
    assert scores["kappa"] == pytest.approx(100 * (np.trace(share) - chance) / (1 - chance))


def test_averaged_weights_are_the_exported_and_scored_ones(
    trainer: ModuleType, scenes: dict[str, Any], tmp_path: Path
) -> None:
    def largest(weights: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        return max((weights[name] - other[name]).abs().max().item() for name in weights if weights[name].ndim)

    last = train(trainer, tmp_path / "last", scenes)
    averaged = train(trainer, tmp_path / "averaged", scenes | {"ema": 0.9})
    barely = train(trainer, tmp_path / "barely", scenes | {"ema": 1e-9})
    assert largest(last, barely) < 1e-6 < largest(last, averaged)
