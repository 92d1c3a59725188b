"""The scripts as a user runs them: every verb, kill and resume, two processes, and wrong inputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from amgcfn.presets import PRESETS
from amgcfn.scoring import rows
from common.config import from_command_line
from common.hyperspectral.classification.scores import score
from common.hyperspectral.classification.splits import make_split
from support.scripts import run_script

PROJECT = Path(__file__).parents[1]
FAST = ["--pixels-per-superpixel", "40", "--ratio", "0.05", "--validation", "0.05", "--validate-every", "4"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> list[str]:
    """A scene of 30 × 26 pixels, 6 bands and three classes on disk, as flags."""
    folder = tmp_path_factory.mktemp("scene")
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :26]
    labels = 1 + (rows // 10 + columns // 13) % 3
    spectra = generator.uniform(500, 3000, (4, 6))
    cube = spectra[labels] + 60 * generator.standard_normal((30, 26, 6))
    labels[:2] = 0
    np.save(folder / "cube.npy", cube.astype(np.int16))
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    return ["--cube", str(folder / "cube.npy"), "--labels", str(folder / "labels.npy")]


def _train(*arguments: str | Path, **keywords) -> subprocess.CompletedProcess[str]:
    return run_script(PROJECT / "train.py", *FAST, *arguments, **keywords)


@pytest.fixture(scope="module")
def trained(scene, tmp_path_factory) -> tuple[Path, str]:
    """A finished run of three seeds, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    done = _train(*scene, "--output", folder, "--epochs", "20", "--seeds", "1", "2", "3")
    return folder, done.stdout


def _same_weights(first: Path, second: Path) -> bool:
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _values(folder: Path, name: str = "results.json") -> dict[str, tuple[float, float]]:
    rows = json.loads((folder / name).read_text(encoding="utf-8"))
    return {row["metric"]: (row["value"], row.get("std")) for row in rows}


def test_training_writes_one_table_over_all_seeds(trained):
    folder, printed = trained
    values = _values(folder)
    assert set(values) == {"OA", "AA", "kappa"}
    accuracies = [json.loads((folder / f"seed_{seed}" / "scores.json").read_text())["OA"] for seed in (1, 2, 3)]
    assert values["OA"] == pytest.approx((np.mean(accuracies), np.std(accuracies)))
    assert printed.count("| measured") == 1
    row = json.loads((folder / "results.json").read_text(encoding="utf-8"))[0]
    assert row["seeds"] == [1, 2, 3] and "amgcfn/train.py" in row["command"]
    for name in ("graph.png", "curves.png", "map.png"):
        assert (folder / "seed_1" / "figures" / name).stat().st_size > 1000


def test_seeds_are_really_applied(trained):
    folder, _ = trained
    splits = [np.load(folder / f"seed_{seed}" / "model" / "split.npz")["train"] for seed in (1, 2)]
    assert not np.array_equal(*splits)
    assert not _same_weights(folder / "seed_1" / "model", folder / "seed_2" / "model")


def test_the_smallest_validation_loss_is_kept(trained):
    folder, _ = trained
    lines = [json.loads(line) for line in (folder / "seed_1" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert len(losses) == 5
    checkpoint = sorted((folder / "seed_1" / "checkpoints").iterdir())[-1]
    assert json.loads((checkpoint / "progress.json").read_text())["best"] == pytest.approx(-min(losses))


def test_evaluate_repeats_the_training_table(trained):
    folder, _ = trained
    done = run_script(PROJECT / "evaluate.py", "--checkpoint", folder)
    assert _values(folder, "evaluation.json") == _values(folder)
    assert "| OA" in done.stdout and "Cohen's kappa" in done.stdout


def test_predict_by_strips_equals_the_whole_scene(trained, tmp_path):
    model = trained[0] / "seed_2" / "model"
    run_script(PROJECT / "predict.py", "--checkpoint", model, "--output", tmp_path / "whole")
    run_script(PROJECT / "predict.py", "--checkpoint", model, "--output", tmp_path / "strips", "--rows", "7")
    whole, strips = (np.load(tmp_path / name / "probabilities.npy") for name in ("whole", "strips"))
    assert whole.shape == (30, 26, 3)
    np.testing.assert_allclose(whole.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(strips, whole, atol=1e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "whole" / "classes.npy"), whole.argmax(axis=2) + 1)
    for name in ("map.png", "confidence.png", "graph.png"):
        assert (tmp_path / "whole" / name).stat().st_size > 1000


def test_predict_on_another_scene_builds_its_own_graph(trained, scene, tmp_path):
    cube = np.load(scene[1])
    np.save(tmp_path / "other.npy", cube[:20])
    run_script(
        PROJECT / "predict.py", "--checkpoint", trained[0] / "seed_1", "--input", tmp_path / "other.npy",
        "--output", tmp_path / "maps",
    )  # fmt: skip
    assert np.load(tmp_path / "maps" / "classes.npy").shape == (20, 26)


def test_kill_and_resume_is_bitwise_a_straight_run(trained, scene, tmp_path):
    arguments = [*FAST, *scene, "--output", str(tmp_path), "--epochs", "20", "--save-every", "3", "--seeds", "1", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(PROJECT / "train.py"), *arguments], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list((tmp_path / "seed_2" / "checkpoints").glob("step_*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "results.json").exists()
    run_script(PROJECT / "train.py", *arguments)
    for seed in (1, 2):
        assert _same_weights(tmp_path / f"seed_{seed}" / "model", trained[0] / f"seed_{seed}" / "model")
        scores = [folder / f"seed_{seed}" / "scores.json" for folder in (tmp_path, trained[0])]
        assert scores[0].read_text() == scores[1].read_text()


def test_two_processes_share_the_seeds_and_write_one_table(trained, scene, tmp_path):
    done = _train(*scene, "--output", tmp_path, "--epochs", "20", "--seeds", "1", "2", "3", processes=2)
    assert done.stdout.count("| measured") == 1
    assert _values(tmp_path) == _values(trained[0])
    for seed in (1, 2, 3):
        assert _same_weights(tmp_path / f"seed_{seed}" / "model", trained[0] / f"seed_{seed}" / "model")


def _refused(script: str, *arguments: str | Path) -> str:
    done = run_script(PROJECT / script, *arguments, status=2)
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_pixels_without_data_take_no_part_whatever_they_hold(scene, tmp_path):
    cube = np.load(scene[1]).astype(np.float32)
    hole = np.zeros((30, 26), dtype=bool)
    hole[:, 20:] = hole[12, 5] = True
    maps, weights = [], []
    for name, value, flags in (("nan", np.nan, []), ("declared", -9999.0, ["--no-data", "-9999"])):
        cube[hole] = value
        np.save(tmp_path / f"{name}.npy", cube)
        run = ["--cube", tmp_path / f"{name}.npy", *scene[2:], "--output", tmp_path / name, "--epochs", "4"]
        done = _train(*run, *flags, "--seeds", "1")
        assert f"{hole.sum()} pixels (23.2 %) hold no data" in done.stdout
        model = tmp_path / name / "seed_1" / "model"
        run_script(PROJECT / "predict.py", "--checkpoint", model, "--output", tmp_path / name / "maps")
        maps.append(np.load(tmp_path / name / "maps" / "classes.npy"))
        weights.append(model)
        split = np.load(model / "split.npz")
        assert not hole.ravel()[np.concatenate([split[part] for part in ("train", "validation", "test")])].any()
    assert _same_weights(*weights)
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(maps[0] == 0, hole)
    probabilities = np.load(tmp_path / "nan" / "maps" / "probabilities.npy")
    np.testing.assert_array_equal(np.isnan(probabilities).all(axis=2), hole)


def test_one_superpixel_is_refused(scene, tmp_path):
    assert "gives one superpixel" in _refused(
        "train.py", *scene, *FAST, "--pixels-per-superpixel", "1000", "--output", tmp_path
    )


def test_a_ratio_without_a_test_pixel_is_refused(scene, tmp_path):
    message = _refused("train.py", *scene, *FAST, "--ratio", "0.999", "--output", tmp_path)
    assert "without a test pixel" in message


def test_seeds_of_two_configurations_do_not_mix(scene, trained):
    message = _refused("train.py", *scene, *FAST, "--epochs", "21", "--seeds", "9", "--output", trained[0])
    assert "seed_1: holds a run with another configuration" in message


def test_no_validation_pixel_is_refused(scene, tmp_path):
    message = _refused("train.py", *scene, *FAST, "--validation", "0.0001", "--output", tmp_path)
    assert "--validation 0.0001" in message


def test_one_checkpoint_for_many_seeds_is_refused(scene, tmp_path):
    message = _refused("train.py", *scene, "--resume", tmp_path / "step_00000003", "--output", tmp_path)
    assert "names one seed's checkpoint" in message


def test_rows_do_not_replace_other_files(tmp_path):
    (tmp_path / "scene.npz").write_bytes(b"mine")
    message = _refused("evaluate.py", "--checkpoint", tmp_path, "--output", tmp_path / "scene.npz")
    assert "scene.npz: expected the name of a file for the rows, ending in .json" in message
    assert (tmp_path / "scene.npz").read_bytes() == b"mine"


def test_a_folder_without_model_is_refused(tmp_path):
    assert "holds no model" in _refused("evaluate.py", "--checkpoint", tmp_path)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "benchmark.py"])
def test_help_explains_every_flag(script):
    done = run_script(PROJECT / script, "--help")
    assert "--output" in done.stdout and "(default:" in done.stdout


def test_a_disjoint_split_keeps_its_distance_and_says_so(scene, tmp_path):
    done = _train(
        *scene, "--output", tmp_path, "--epochs", "4", "--seeds", "1", "--split", "disjoint", "--distance", "3"
    )
    split = np.load(tmp_path / "seed_1/model/split.npz")
    train, test = (np.stack(np.divmod(split[name], 26), axis=1) for name in ("train", "test"))
    apart = np.abs(train[:, None] - test[None]).max(axis=2)
    assert apart.min() >= 3
    assert "disjoint 5 %" in done.stdout
    assert "disjoint" in json.loads((tmp_path / "results.json").read_text())[0]["split"]


def test_rows_count_the_pixels_of_every_seed():
    labels = np.repeat([1, 2], 10).reshape(4, 5)
    pixels = np.arange(20)
    splits = [
        make_split(labels, ([pixels[:n]], [pixels[n : n + 2]], [pixels[n + 2 :]]), "drawn, seed 1") for n in (4, 8)
    ]
    runs = [score(labels.flat[one.test], labels.flat[one.test], 2) for one in splits]
    row = rows(runs, splits, "tiny", "demo", (1, 2))[0]
    assert row.split == "test; drawn, 6.0 ± 2.0/2/12.0 ± 2.0 train/validation/test"


@pytest.mark.parametrize("flag", ["--batch-size", "--workers", "--gradient-accumulation", "--mixed-precision"])
def test_flags_of_a_data_loader_do_not_exist(flag):
    value = "bf16" if flag == "--mixed-precision" else "2"
    with pytest.raises(SystemExit) as ended:
        from_command_line(PRESETS, "", [flag, value])
    assert ended.value.code == 2


def test_a_cube_with_as_many_bands_as_columns_needs_its_axis_and_codes_come_back(tmp_path):
    rows_, columns = np.mgrid[:26, :26]
    labels = 1 + (rows_ // 9 + columns // 13) % 3
    generator = np.random.default_rng(0)
    cube = generator.uniform(500, 3000, (4, 26))[labels] + 60 * generator.standard_normal((26, 26, 26))
    codes = np.array([0, 7, 3301010101, 2**40 + 1])
    np.save(tmp_path / "cube.npy", np.moveaxis(cube, 2, 0).astype(np.float32))
    np.save(tmp_path / "labels.npy", codes[labels])
    files = ["--cube", tmp_path / "cube.npy", "--labels", tmp_path / "labels.npy"]
    run = [*files, "--output", tmp_path / "run", "--epochs", "4", "--seeds", "1"]
    assert "--band-axis" in _refused("train.py", *FAST, *run)
    _train(*run, "--band-axis", "first")
    model = tmp_path / "run" / "seed_1" / "model"
    run_script(PROJECT / "predict.py", "--checkpoint", model, "--output", tmp_path / "maps")
    classes, probabilities = (np.load(tmp_path / "maps" / f"{name}.npy") for name in ("classes", "probabilities"))
    np.testing.assert_array_equal(classes, codes[1 + probabilities.argmax(axis=2)])
    # The same cube with its bands last is the same scene, so it gets the same map and the same scores.
    np.save(tmp_path / "last.npy", cube.astype(np.float32))
    for axis in ("last", "first"):
        source = tmp_path / ("last.npy" if axis == "last" else "cube.npy")
        other = ["--input", source, "--band-axis", axis, "--output", tmp_path / axis]
        run_script(PROJECT / "predict.py", "--checkpoint", model, *other)
        np.testing.assert_array_equal(np.load(tmp_path / axis / "classes.npy"), classes)
    moved = ["--cube", tmp_path / "last.npy", "--labels", tmp_path / "labels.npy", "--band-axis", "last"]
    run_script(PROJECT / "evaluate.py", "--checkpoint", tmp_path / "run", *moved)
    assert _values(tmp_path / "run", "evaluation.json") == _values(tmp_path / "run")


def test_an_existing_map_is_kept_unless_told(trained, tmp_path):
    arguments = ["predict.py", "--checkpoint", trained[0] / "seed_1", "--output", tmp_path]
    run_script(PROJECT / arguments[0], *arguments[1:])
    target = tmp_path / "classes.npy"
    target.write_bytes(b"mine")
    message = _refused(*arguments)
    assert "--existing replace" in message and "classes.npy: exists" in message
    run_script(PROJECT / arguments[0], *arguments[1:], "--existing", "skip")
    assert target.read_bytes() == b"mine"
    run_script(PROJECT / arguments[0], *arguments[1:], "--existing", "replace")
    assert np.load(target).shape == (30, 26)


@pytest.mark.parametrize("script", ["predict.py", "evaluate.py"])
@pytest.mark.parametrize(("flag", "value"), [("--memory", "4"), ("--memory", "nanG"), ("--device", "gpu")])
def test_sizes_and_devices_that_are_none_are_named(script, flag, value, trained, tmp_path):
    message = _refused(script, "--checkpoint", trained[0], "--output", tmp_path / "out.json", flag, value)
    assert f"{flag} {value}: " in message and "expected" in message
