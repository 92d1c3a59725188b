"""Test pixels are never used for training or for the choice of weights; the exported weights are the best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import QUICK, Verb
from hcanet import load_model


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_model(folder / name).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(other[name], value) for name, value in one.items())


@pytest.fixture(scope="module")
def straight(scene: Path, verb: Verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol") / "run"
    # The first rate is far too high, so that a later validation is worse than an earlier one.
    verb("train", "--cube", scene, "--output", folder, *QUICK, "--validate-every", 1, "--learning-rate", 0.1)
    return folder


def validations(folder: Path) -> dict[int, float]:
    """Step → validation PSNR."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation_psnr"] for line in lines if "validation_psnr" in line}


def test_regions_share_no_pixel(straight: Path) -> None:
    regions = json.loads((straight / "regions.json").read_text())
    taken = np.zeros((44, 48), dtype=int)
    for split in ("train", "validation", "test"):
        for r in regions[split]:
            taken[r["top"] : r["top"] + r["height"], r["left"] : r["left"] + r["width"]] += 1
    assert taken.max() == 1 and len(regions["test"]) == 1


def test_nonsense_in_the_test_rows_changes_no_weight(
    straight: Path, scene: Path, verb: Verb, tmp_path: Path, undrawn: None
) -> None:
    cube = np.load(scene)
    cube[28:] = np.random.default_rng(0).random(cube[28:].shape) * 100
    np.save(tmp_path / "mine.npy", cube)
    flags = ("--cube", tmp_path / "mine.npy", "--output", tmp_path / "run")
    verb("train", *flags, *QUICK, "--validate-every", 1, "--learning-rate", 0.1)
    for name in ("model", "model_best"):
        assert same(weights(straight, name), weights(tmp_path / "run", name))
    # Scores that choose the weights come from other pixels than the scores of the result.
    assert validations(straight) == validations(tmp_path / "run")
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (straight, tmp_path / "run"))
    assert ours[0]["value"] != theirs[0]["value"]


def test_the_kept_weights_are_those_of_the_best_validation(
    straight: Path, scene: Path, verb: Verb, tmp_path: Path, undrawn: None
) -> None:
    found = validations(straight)
    best = max(found, key=lambda step: found[step])
    assert len(found) == 4 and best < 4, "the last validation must not be the best, else this shows nothing"
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--validate-every", 1, "--learning-rate", 0.1)
    verb("train", *flags, "--max-steps", best)
    assert same(weights(straight, "model_best"), weights(tmp_path, "model"))
    assert not same(weights(straight, "model_best"), weights(straight, "model"))
