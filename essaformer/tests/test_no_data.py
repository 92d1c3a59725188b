"""A scene with pixels without data gives, elsewhere, the result of the scene without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import make_scene, open_scene
from essaformer import create_model, imresize
from essaformer.checkpoints import save_scaling
from essaformer.data import TrainingPatches
from essaformer.metrics import METRICS, score
from essaformer.scaling import Scaling
from essaformer.scenes import load_regions

TOP, LEFT, RIGHT = 6, 3, 5
SMALL = ["--preset", "demo", "--dim", "16", "--crop", "16", "--stride", "8", "--batch-size", "4", "--max-steps", "2"]


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    smooth = imresize(np.random.default_rng(0).random((4, 12, 12)), size=(60, 48)).transpose(1, 2, 0)
    return np.clip(smooth * 3000 + 200, 0, 4000).astype(np.float32)


def bordered(cube: np.ndarray, value: float = -9999) -> np.ndarray:
    return np.pad(cube, ((TOP, 0), (LEFT, RIGHT), (0, 0)), constant_values=value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_scaling(Scaling("maximum"), folder)
    create_model("essaformer_small", bands=4, dim=16, scale=2).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["tif", "hdr", "nan.npy", "flag.npy", "int.tif"])
def test_the_enlarged_scene_has_the_same_border(form: str, checkpoint: Path, cube: np.ndarray, verb, tmp_path: Path):
    value = np.nan if form == "nan.npy" else -9999.0
    kind = np.int16 if form == "int.tif" else np.float32
    np.save(tmp_path / "plain.npy", cube.astype(kind))
    wide = bordered(cube, value).astype(kind)
    suffix = form.rpartition(".")[2]
    source, output = tmp_path / f"wide.{suffix}", tmp_path / f"large.{suffix}"
    if suffix == "tif":
        write_geotiff(source, wide, no_data=-9999)
    elif suffix == "hdr":
        source.with_suffix(".img").write_bytes(wide.transpose(2, 0, 1).tobytes())
        size = f"samples = {wide.shape[1]}\nlines = {wide.shape[0]}\nbands = 4\n"
        source.write_text(f"ENVI\n{size}data type = 4\ninterleave = bsq\ndata ignore value = -9999\n")
    else:
        np.save(source, wide)
    flags = ["--no-data", "-9999"] if form == "flag.npy" else []
    done = verb("predict", "--checkpoint", checkpoint, "--input", source, "--output", output, *flags)
    assert "hold no data and are left out" in done.stdout and "below 0" not in done.stdout
    verb("predict", "--checkpoint", checkpoint, "--input", tmp_path / "plain.npy", "--output", tmp_path / "small.npy")
    found, plain = read_array(output, (3,)), np.load(tmp_path / "small.npy")
    assert found.values.dtype == kind
    np.testing.assert_array_equal(found.values, bordered_large(plain, value))
    if suffix in ("tif", "hdr"):
        assert found.no_data == -9999
    else:
        assert open_scene(output, no_data=-9999).valid.sum() == plain.shape[0] * plain.shape[1]


def bordered_large(plain: np.ndarray, value: float) -> np.ndarray:
    return np.pad(plain, ((2 * TOP, 0), (2 * LEFT, 2 * RIGHT), (0, 0)), constant_values=value)


def test_a_hole_stays_a_hole_and_is_not_scored(checkpoint: Path, cube: np.ndarray, verb, tmp_path: Path) -> None:
    truth = imresize(cube.transpose(2, 0, 1), size=(120, 96)).transpose(1, 2, 0).astype(np.float32)
    holed, wrong = cube.copy(), truth.copy()
    holed[20:24, 30:34, 1] = np.nan
    wrong[40:48, 60:68] = 1e6  # nonsense where the input has no data
    for name, array in {"plain": cube, "holed": holed, "truth": truth, "wrong": wrong}.items():
        np.save(tmp_path / f"{name}.npy", array)
    lines = {}
    for name, against in (("plain", "truth"), ("holed", "truth"), ("holed", "wrong")):
        output = tmp_path / f"{name}_{against}.npy"
        files = ["--input", tmp_path / f"{name}.npy", "--truth", tmp_path / f"{against}.npy", "--output", output]
        done = verb("predict", "--checkpoint", checkpoint, *files)
        lines[name, against] = [line for line in done.stdout.splitlines() if line.startswith("bicubic: ")]
    assert len(lines["holed", "wrong"]) == 1
    assert lines["holed", "wrong"] == lines["holed", "truth"] != lines["plain", "truth"]
    found, plain = np.load(tmp_path / "holed_truth.npy"), np.load(tmp_path / "plain_truth.npy")
    hole = np.zeros((120, 96), dtype=bool)
    hole[40:48, 60:68] = True
    np.testing.assert_array_equal(np.isnan(found).all(axis=2), hole)
    assert np.isfinite(found[~hole]).all()
    near = np.zeros_like(hole)
    near[34:54, 54:74] = True  # bicubic's reach of two pixels of the input, and one to spare
    np.testing.assert_allclose(found[~near], plain[~near], rtol=0, atol=0.02 * 3000)
    assert np.abs(found[near & ~hole]).max() < 4000  # no ringing


def test_reduced_again_the_border_is_where_it_was(checkpoint: Path, cube: np.ndarray, verb, tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", cube)
    np.save(tmp_path / "wide.npy", bordered(cube, np.nan))
    lines = []
    for name in ("plain", "wide"):
        files = ["--input", tmp_path / f"{name}.npy", "--output", tmp_path / f"{name}_again.npy"]
        done = verb("predict", "--checkpoint", checkpoint, *files, "--reduce")
        lines.append([line for line in done.stdout.splitlines() if "(sspsr)" in line])
    assert len(lines[0]) == 2 and lines[0] == lines[1]
    plain, wide = (np.load(tmp_path / f"{name}_again.npy") for name in ("plain", "wide"))
    np.testing.assert_array_equal(wide, bordered(plain, np.nan))


@pytest.mark.parametrize("flag", [[], ["--no-data", "-9999"]])
def test_training_and_scores_are_those_of_the_scene_without_border(
    flag: list[str], cube: np.ndarray, verb, tmp_path: Path
) -> None:
    np.save(tmp_path / "plain.npy", cube)
    if flag:
        np.save(tmp_path / "wide.npy", bordered(cube))
    else:
        write_geotiff(tmp_path / "wide.tif", bordered(cube), no_data=-9999)
    wide = tmp_path / ("wide.npy" if flag else "wide.tif")
    for name, source, flags in (("plain", tmp_path / "plain.npy", []), ("wide", wide, flag)):
        verb("train", *SMALL, "--cube", source, *flags, "--output", tmp_path / name)
        verb("evaluate", "--checkpoint", tmp_path / name / "model")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("plain", "wide")]
    assert weights[0] == weights[1]
    for file in ("results.json", "evaluation/results.json"):
        rows = [json.loads((tmp_path / name / file).read_text()) for name in ("plain", "wide")]
        assert [row["value"] for row in rows[0]] == [row["value"] for row in rows[1]]


def test_patches_with_holes_do_not_train(cube: np.ndarray, tmp_path: Path) -> None:
    holed = cube.copy()
    holed[10, 20, 0] = np.nan
    np.save(tmp_path / "holed.npy", holed)
    regions = load_regions("", None, Scaling("maximum"), 2, cube=str(tmp_path / "holed.npy"))
    patches = TrainingPatches(regions["train"], 8, 4, 2, seed=0)
    inside = [(top, left) for _, top, left in patches.windows if top <= 10 < top + 8 and left <= 20 < left + 8]
    assert len(patches) == 5 * 11 - 4 and not inside
    holed[::9, ::9] = np.nan
    np.save(tmp_path / "holed.npy", holed)
    full_of_holes = load_regions("", None, Scaling("maximum"), 2, cube=str(tmp_path / "holed.npy"))["train"]
    with pytest.raises(UserError, match="every training patch of 24 × 24 pixels holds pixels without data"):
        TrainingPatches(full_of_holes, 24, 4, 2, seed=0)
    with pytest.raises(UserError, match="--no-data is only for your own scene"):
        load_regions("demo", None, Scaling("maximum"), 2, no_data=0)


@pytest.mark.parametrize("protocol", ["sspsr", "mcnet"])
def test_scores_of_the_pixels_with_data(protocol, cube: np.ndarray) -> None:
    truth = cube / 4000
    predicted = truth + 0.02 * np.random.default_rng(1).standard_normal(truth.shape)
    valid = np.ones(truth.shape[:2], dtype=bool)
    valid[:, 30:] = False
    expected = score(predicted[:, :30], truth[:, :30], 2, protocol)
    predicted[:, 30:] = 7
    found = score(predicted, truth, 2, protocol, valid)
    for metric in METRICS:
        assert found[metric] == pytest.approx(expected[metric], rel=1e-6)


def test_the_divisor_is_that_of_the_pixels_with_data(cube: np.ndarray) -> None:
    scene = make_scene("x", bordered(cube), no_data=-9999)
    for scaling in (Scaling("maximum"), Scaling("percentile", 90)):
        assert scaling.divisor(scene.spectra()) == scaling.divisor(cube)
