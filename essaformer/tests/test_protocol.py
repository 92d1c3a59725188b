"""Splits and scores seen from outside: test pixels do not change the training, and the best weights are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.results import read_rows
from essaformer import imresize, load_model
from essaformer.metrics import score

FLAGS = (
    "--preset", "jasper_ridge_x2", "--dim", 4, "--crop", 12, "--batch-size", 2, "--workers", 0, "--log-every", 1,
    "--iterations", 4, "--validate-every", 1, "--learning-rate", 0.05,
)  # fmt: skip


def scene(folder: Path, nonsense: str | None = None) -> Path:
    """60 rows: 24 for training, 12 for validation, 24 for test; optionally with nonsense in one of these parts."""
    cube = np.random.default_rng(0).integers(1, 4000, (60, 40, 4)).astype(np.uint16)
    parts = {"train": slice(0, 24), "validation": slice(24, 36), "test": slice(36, None)}
    if nonsense:
        cube[parts[nonsense]] = np.random.default_rng(9).integers(1, 65_000, cube[parts[nonsense]].shape)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "scene.npy", cube)
    return folder / "scene.npy"


@pytest.fixture(scope="module")
def run(verb, tmp_path_factory: pytest.TempPathFactory):
    def call(nonsense: str | None) -> Path:
        folder = tmp_path_factory.mktemp(nonsense or "sound")
        verb("train", "--cube", scene(folder, nonsense), "--output", folder / "run", *FLAGS, draws=False)
        return folder / "run"

    return call


@pytest.fixture(scope="module")
def sound(run) -> Path:
    return run(None)


def same(one: Path, other: Path) -> bool:
    theirs = load_model(other).state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in load_model(one).state_dict().items())


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_written_regions_share_no_row(sound: Path) -> None:
    regions = json.loads((sound / "regions.json").read_text())
    rows = [
        row
        for name in ("train", "validation", "test")
        for r in regions[name]
        for row in range(r["top"], r["top"] + r["height"])
    ]
    assert len(rows) == len(set(rows)) == 60
    assert [regions[name][0]["top"] for name in ("train", "validation", "test")] == [0, 24, 36]


def test_nonsense_in_the_test_region_changes_no_weight(run, sound: Path) -> None:
    other = run("test")
    assert same(sound / "model", other / "model") and same(sound / "model_best", other / "model_best")
    assert read_rows(sound / "results.json")[0].value != read_rows(other / "results.json")[0].value


def test_nonsense_in_the_validation_region_changes_the_choice_only(verb, sound: Path) -> None:
    """The scene's percentile is computed from training and validation rows, so a constant is used here."""
    constant = ("--scaling", "constant", "--scaling-value", 4000)
    folders = []
    for nonsense in (None, "validation"):
        folder = sound.parent / f"constant_{nonsense}"
        verb("train", "--cube", scene(folder, nonsense), "--output", folder / "run", *FLAGS, *constant, draws=False)
        folders.append(folder / "run")
    assert same(folders[0] / "model", folders[1] / "model")
    psnr = [[line["validation_psnr"] for line in lines(folder) if "validation_psnr" in line] for folder in folders]
    assert psnr[0] != psnr[1]


def test_the_kept_weights_are_those_of_the_best_line(sound: Path) -> None:
    """Scored again, by hand, on the validation region."""
    recorded = {line["step"]: line["validation_psnr"] for line in lines(sound) if "validation_psnr" in line}
    assert len(recorded) == 4 and max(recorded.values()) != recorded[4], "the last step must not be the best one"
    assert psnr_of(sound / "model_best", sound, 24, 36) == pytest.approx(max(recorded.values()), abs=1e-4)
    assert psnr_of(sound / "model", sound, 24, 36) == pytest.approx(recorded[4], abs=1e-4)


def test_the_rows_are_those_of_the_test_region(sound: Path) -> None:
    row = next(row for row in read_rows(sound / "results.json") if row.metric == "PSNR (dB)")
    assert row.preset == "jasper_ridge_x2"
    assert row.value == pytest.approx(psnr_of(sound / "model", sound, 36, 60), abs=1e-4)


def psnr_of(model: Path, run_folder: Path, top: int, bottom: int) -> float:
    """PSNR (sspsr) of rows top:bottom, computed independently of the trainer."""
    cube = np.load(run_folder.parent / "scene.npy").astype(np.float64)
    divisor = np.percentile(cube[:36], 99.9)
    truth = np.clip(cube[top:bottom] / divisor, 0, 1).astype(np.float32)
    low = imresize(truth.transpose(2, 0, 1), 0.5)
    with torch.no_grad():
        enlarged = load_model(model)(torch.from_numpy(low)[None])[0].permute(1, 2, 0).numpy()
    return score(enlarged, truth, 2)["PSNR (dB)"]
