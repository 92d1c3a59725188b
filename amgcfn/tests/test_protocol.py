"""Splits, the choice of weights and the scores, checked independently of the trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import amgcfn.data
from amgcfn import load_model
from amgcfn.data import PreparedScene
from amgcfn.strips import classify_scene
from common.hyperspectral.classification.splits import labels_sha256, per_class_split
from conftest import same, weights


@pytest.fixture
def model(train, tiny_config) -> Path:
    """The model folder of a run on the tiny scene."""
    return train(tiny_config) / "seed_1" / "model"


def _split(model: Path) -> dict[str, np.ndarray]:
    with np.load(model / "split.npz") as stored:
        return {part: stored[part] for part in ("train", "validation", "test")}


def _logits(model: Path, scene) -> np.ndarray:
    return classify_scene(load_model(model), scene.cube, PreparedScene.load(model, scene).graph)[0].numpy()


def test_parts_are_disjoint_and_hold_every_labelled_pixel(model, tiny_scene):
    parts = _split(model)
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together)
    np.testing.assert_array_equal(np.sort(together), np.flatnonzero(tiny_scene.labels))
    for label in (1, 2, 3):
        of_class = np.count_nonzero(tiny_scene.labels == label)
        assert np.count_nonzero(tiny_scene.labels.flat[parts["train"]] == label) == np.ceil(0.05 * of_class)
    assert len(parts["validation"]) == int(0.1 * np.count_nonzero(tiny_scene.labels))


@pytest.mark.parametrize("part", ["test", "validation"])
def test_nonsense_in_labels_that_do_not_train(part, train, tiny_config, tiny_scene, monkeypatch):
    tmp_path = tiny_config.output.parent
    split = per_class_split(tiny_scene.labels, ratio=0.05, validation=0.1, seed=1)
    monkeypatch.setattr(
        amgcfn.data, "per_class_split", lambda labels, **_: replace(split, labels_sha256=labels_sha256(labels))
    )
    labels = tiny_scene.labels.copy()
    pixels = getattr(split, part)
    labels.flat[pixels] = 1 + labels.flat[pixels] % 3  # every one of them wrong
    np.save(tmp_path / "nonsense.npy", labels)
    right = train(tiny_config)
    wrong = train(tiny_config, labels=str(tmp_path / "nonsense.npy"), output=tmp_path / "wrong")
    kept = [weights(folder / "seed_1" / "model") for folder in (right, wrong)]
    trained = [sorted((folder / "seed_1" / "checkpoints").iterdir())[-1] for folder in (right, wrong)]
    states = [torch.load(folder / "state.pt", weights_only=True)["model"] for folder in trained]
    assert same(*states)
    assert same(*kept) == (part == "test")
    scores = [json.loads((folder / "seed_1" / "scores.json").read_text()) for folder in (right, wrong)]
    assert scores[0]["OA"] != scores[1]["OA"]


def test_kept_weights_are_those_of_the_best_recorded_line(model, tiny_scene):
    lines = [json.loads(line) for line in (model.parent / "metrics.jsonl").read_text().splitlines()]
    recorded = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(recorded) == 6 and min(recorded) < recorded[-1]
    pixels = _split(model)["validation"]
    classes = torch.from_numpy(tiny_scene.labels.flat[pixels] - 1)
    loss = F.cross_entropy(torch.from_numpy(_logits(model, tiny_scene)[pixels]), classes, reduction="sum").item()
    assert loss == pytest.approx(min(recorded), rel=1e-4)


def test_components_are_those_of_the_training_pixels(model, tiny_scene):
    spectra = tiny_scene.cube.reshape(-1, 5)[_split(model)["train"]].astype(np.float64)
    _, _, directions = np.linalg.svd(spectra - spectra.mean(axis=0), full_matrices=False)
    found = PreparedScene.load(model, tiny_scene).components
    ours = found.apply(tiny_scene.cube).reshape(-1, 3)
    theirs = (tiny_scene.cube.reshape(-1, 5) - spectra.mean(axis=0)) @ directions[:3].T
    for one, other in zip(ours.T, theirs.T, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) == pytest.approx(1, abs=1e-5)


def test_scores_are_those_of_the_test_pixels(model, tiny_scene):
    pixels = _split(model)["test"]
    found, truth = _logits(model, tiny_scene)[pixels].argmax(axis=1) + 1, tiny_scene.labels.flat[pixels]
    accuracy = (found == truth).mean()
    each = np.mean([(found == truth)[truth == label].mean() for label in (1, 2, 3)])
    chance = sum((found == label).mean() * (truth == label).mean() for label in (1, 2, 3))
    expected = {"OA": accuracy, "AA": each, "kappa": (accuracy - chance) / (1 - chance)}
    scores = json.loads((model.parent / "scores.json").read_text())
    rows = json.loads((model.parents[1] / "results.json").read_text())
    for name, value in expected.items():
        assert scores[name] == pytest.approx(100 * value)
    assert {row["metric"]: row["value"] for row in rows} == pytest.approx({k: 100 * v for k, v in expected.items()})
    assert f"/{len(pixels)} train/validation/test" in rows[0]["split"]
