"""A scene with a border without data gives, inside the border, the result of the scene without the border."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.stored import Georeference
from lsgavit.data import SPLIT, find_scene
from lsgavit.presets import Config
from support.scripts import call_script

PROJECT = Path(__file__).parents[1]
TOP, LEFT = 5, 4
SIZES = ["--components", "6", "--window", "5", "--ratio", "0.2", "--batch-size", "16", "--log-every", "5"]
SHORT = [*SIZES, "--epochs", "4", "--learning-rate", "0.003", "--seeds", "1"]
PLACE = Georeference({33550: (2.0, 2.0, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 3e6, 0.0)})


@pytest.fixture(scope="module")
def runs(scene_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on the scene as it is and on the scene in a border that its file declares, or the flag names."""
    folder = tmp_path_factory.mktemp("no_data")
    with np.load(scene_file) as file:
        cube, labels = file["cube"].astype(np.float32), file["labels"]
    wide = np.pad(cube, ((TOP, 0), (LEFT, 0), (0, 0)), constant_values=-9999)
    wide[TOP + 3, LEFT + 7, 2] = -9999  # a single band of a single pixel
    marks = np.pad(labels, ((TOP, 0), (LEFT, 0)))
    marks[0, 0], marks[TOP + 3, LEFT + 7] = 2, 1  # labels without data
    inside = labels.copy()
    inside[3, 7] = 0
    np.savez(folder / "plain.npz", cube=cube, labels=inside)
    write_geotiff(folder / "wide.tif", wide, PLACE, no_data=-9999)
    np.savez(folder / "wide.npz", cube=wide, labels=marks)
    for name, source, flags in (
        ("plain", f"{folder}/plain.npz:cube", []),
        ("declared", f"{folder}/wide.tif", []),
        ("named", f"{folder}/wide.npz:cube", ["--no-data", "-9999"]),
    ):
        marked = f"{folder}/{'plain' if name == 'plain' else 'wide'}.npz:labels"
        done = call_script(
            PROJECT / "train.py", "--cube", source, "--labels", marked, *flags, *SHORT, "--output", folder / name
        )
        assert ("pixels" in done.stdout and "hold no data" in done.stdout) == (name != "plain")
        assert ("2 labelled pixels hold no data" in done.stdout) == (name != "plain")
    return folder


def model(runs: Path, name: str) -> Path:
    return runs / name / "seed_1" / "model"


def test_the_split_and_the_components_are_those_of_the_scene_without_border(runs: Path) -> None:
    plain, declared, named = (model(runs, name) for name in ("plain", "declared", "named"))
    for part in ("train", "validation", "test"):
        expected, found, again = (np.load(folder / SPLIT)[part] for folder in (plain, declared, named))
        rows, columns = np.divmod(expected, 22)
        np.testing.assert_array_equal(found, (rows + TOP) * (22 + LEFT) + columns + LEFT)
        np.testing.assert_array_equal(again, found)
    assert (declared / "model.safetensors").read_bytes() == (named / "model.safetensors").read_bytes()
    expected, found = (np.load(folder / "components.npz") for folder in (plain, declared))
    # One pixel of 572 is missing, so the components are close, not equal.
    np.testing.assert_allclose(found["offset"], expected["offset"], rtol=5e-3)
    assert str(found["fitted_on"]) == "571 pixels"
    scores = [json.loads((runs / name / "seed_1" / "scores.json").read_text())["OA"] for name in ("plain", "declared")]
    assert scores[0] > 70
    assert scores[1] > scores[0] - 10  # the border as data leaves 25 %


def test_the_map_is_exactly_without_data_there_and_the_same_elsewhere(runs: Path, tmp_path: Path) -> None:
    for name, source in (("plain", runs / "plain.npz:cube"), ("wide", runs / "wide.tif")):
        arguments = ["--checkpoint", model(runs, "plain"), "--input", source, "--output", tmp_path / name]
        call_script(PROJECT / "predict.py", *arguments)
    probabilities, wide = (np.load(tmp_path / name / "probabilities.npy") for name in ("plain", "wide"))
    classes = np.load(tmp_path / "wide" / "classes.npy")
    hole = np.ones(classes.shape, dtype=bool)
    hole[TOP:, LEFT:] = False
    hole[TOP + 3, LEFT + 7] = True
    np.testing.assert_array_equal(classes == 0, hole)
    np.testing.assert_array_equal(np.isnan(wide).all(axis=2), hole)
    assert not np.isnan(wide[~hole]).any()
    # Windows of 5 × 5 that meet no pixel without data.
    away = np.zeros((26, 22), dtype=bool)
    away[2:, 2:] = True
    away[1:6, 5:10] = False
    np.testing.assert_allclose(wide[TOP:, LEFT:][away], probabilities[away], atol=1e-5)
    stored = read_array(tmp_path / "wide" / "classes.tif", (2,))
    assert stored.no_data == 0 and stored.georeference is not None
    np.testing.assert_array_equal(stored.values, classes)


def test_scores_leave_them_out(runs: Path) -> None:
    name = "named"
    done = call_script(PROJECT / "evaluate.py", "--checkpoint", runs / name)
    assert "hold no data" in done.stdout
    trained, again = (
        [row["value"] for row in json.loads((runs / name / file).read_text())]
        for file in ("results.json", "evaluation.json")
    )
    assert again == trained
    confusion = np.array(json.loads((runs / name / "seed_1" / "scores.json").read_text())["confusion"])
    assert confusion.sum() == len(np.load(model(runs, name) / SPLIT)["test"])


def test_a_run_told_that_nan_is_no_data_goes_on(runs: Path, tmp_path: Path) -> None:
    own = ["--cube", f"{runs}/plain.npz:cube", "--labels", f"{runs}/plain.npz:labels", "--no-data", "nan"]
    run = [PROJECT / "train.py", *own, *SHORT, "--save-every", "1", "--output", tmp_path]
    call_script(*run, "--max-steps", "1")
    assert re.search(r" 1 of \d+ updates to go", call_script(*run, "--max-steps", "2").stdout)


@pytest.mark.parametrize("flag", [{"no_data": 0.0}, {"labels": "gt.mat"}, {"band_axis": "first"}])
def test_flags_of_an_own_scene_need_one(flag) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(flag)).replace('_', '-')} is only for your own scene"):
        find_scene(Config(**flag))
