"""The rivals learn and use the splits that they report, and HybridSN is the published network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.hyperspectral.classification.splits import per_class_split
from common.hyperspectral.synthetic import synthetic_scene
from common.results import read_rows
from rivals import HybridSN, hybridsn, spectra
from support.data import real_data
from support.scripts import call_script

SCRIPT = Path(__file__).parents[1] / "compare.py"
FAST = ("--epochs", "2", "--components", "13", "--seeds", "1", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def scene():
    return synthetic_scene(40, 36, bands=20, num_classes=3)


def spectra_of(scene, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scene.cube.reshape(-1, scene.bands)[pixels].astype(float), scene.labels.reshape(-1)[pixels]


def test_hybridsn_has_the_published_parameters() -> None:
    assert sum(p.numel() for p in HybridSN().parameters()) == 5_122_176
    assert HybridSN(15, 9, 6)(torch.rand(2, 15, 9, 9)).shape == (2, 6)
    for components, window in ((12, 25), (30, 7), (30, 24)):
        with pytest.raises(ValueError, match="HybridSN needs"):
            HybridSN(components, window)


@pytest.mark.parametrize("method", [spectra.svm, spectra.forest])
@pytest.mark.parametrize("ratio", [0.001, 0.05])
def test_spectra_are_classified(method, ratio: float, scene) -> None:
    """Far better than the most frequent class, even if a class is too small for cross-validation."""
    split = per_class_split(scene.labels, ratio=ratio, seed=0)
    found = method(*spectra_of(scene, split.train), spectra_of(scene, split.test)[0], 0)
    truth = spectra_of(scene, split.test)[1]
    assert (found == truth).mean() > (0.1 if ratio == 0.001 else 0.2) + np.bincount(truth).max() / len(truth)


def test_hybridsn_learns_from_training_pixels_only(scene) -> None:
    """Labels of test pixels change nothing."""
    split = per_class_split(scene.labels, ratio=0.05, seed=0)
    arguments = (13, 9, 20, 0, torch.device("cpu"))
    found, truth = hybridsn.classify(scene, split, *arguments), scene.labels.flat[split.test]
    assert (found == truth).mean() > 0.3 + np.bincount(truth).max() / len(truth)
    trained = np.isin(np.arange(scene.labels.size).reshape(scene.labels.shape), split.train)
    blind = replace(scene, labels=np.where(trained, scene.labels, 1))
    assert (hybridsn.classify(blind, split, *arguments) == found).all()


def test_the_script_writes_one_row_per_method_and_metric(scene, tmp_path: Path) -> None:
    np.savez(tmp_path / "scene.npz", cube=scene.cube, labels=scene.labels)
    own = ("--cube", f"{tmp_path}/scene.npz:cube", "--labels", f"{tmp_path}/scene.npz:labels", "--output", tmp_path)
    for split in ("random", "per_class", "disjoint"):
        done = call_script(SCRIPT, *own, *FAST, "--split", split, "--methods", "svm", "hybridsn")
        rows = read_rows(tmp_path / "results.json")
        assert [(row.preset, row.metric) for row in rows] == [
            (method, metric) for method in ("SVM, spectra alone", "HybridSN") for metric in ("OA", "AA", "kappa")
        ]
        assert all(row.seeds == [1, 2] and row.std is not None and 0 <= row.value <= 100 for row in rows)
        assert (", 0 % of test windows" in rows[0].split) == (split == "disjoint")
        assert f"{rows[0].value:.2f}" in done.stdout


@pytest.mark.parametrize("dataset", ["salinas_a", "houston2018_crop"])
@pytest.mark.parametrize("split", ["random", "disjoint"])
def test_the_splits_are_those_of_the_scene_classifiers(
    dataset: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that LSGA-ViT's trainer wrote describe the same pixels: sizes, blocks, overlap over three seeds."""
    monkeypatch.setattr(spectra, "svm", lambda _, __, others, ___: np.ones(len(others), int))
    flags = ("--dataset", dataset, "--data-root", real_data(dataset), "--split", split)
    call_script(SCRIPT, *flags, "--methods", "svm", "--output", tmp_path)
    name = dataset if split == "random" else f"{dataset}_disjoint"
    theirs = read_rows(SCRIPT.parents[1] / f"lsgavit/results/{name}.json")
    assert [row.split for row in read_rows(tmp_path / "results.json")] == [row.split for row in theirs]


def test_bad_input_ends_in_one_sentence(tmp_path: Path) -> None:
    for wrong, message in (
        (("--split", "fixed"), "belongs to a published scene"),
        (("--dataset", "salinas_b"), "is unknown; choose one of"),
        (("--methods", "hybridsn", "--window", "8"), "needs at least 13 components and an odd window"),
        (("--seeds",), "at least one value"),
    ):
        done = call_script(SCRIPT, *wrong, "--data-root", tmp_path, "--output", tmp_path, status=2)
        assert message in done.stderr and "Traceback" not in done.stderr
