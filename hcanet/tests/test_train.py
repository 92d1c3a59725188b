"""The commands as a user runs them: training, resuming, two processes, evaluation, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.results import read_rows
from conftest import QUICK, Verb
from hcanet import create_model, load_model
from hcanet.presets import PRESETS
from support.parallel import first_update

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def trained(scene: Path, verb: Verb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "straight"
    verb("train", "--cube", scene, "--output", folder, *QUICK, "--validate-every", 1)
    return folder


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_model(folder / name).state_dict()


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "regions.json", "model", "model_best", "figures"}
    assert expected <= {path.name for path in trained.iterdir()}
    stored = json.loads((trained / "model" / "preparation.json").read_text())
    assert stored == {"scaling": "percentile", "tile": 16, "eigen_images": 0, "outliers": False}
    rows = read_rows(trained / "results.json")
    assert {row.preset for row in rows} == {"demo", "noisy", "SVD rank 5 + NLM"}
    assert {row.dataset for row in rows} == {"mine, case1"}
    pictures = list((trained / "figures").glob("*.png"))
    assert {"test.png", "curves.png", "step_00000003.png"} <= {path.name for path in pictures}
    assert all(min(Image.open(path).size) > 100 for path in pictures)


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_exports_the_same_weights(trained: Path, scene: Path, verb: Verb, tmp_path: Path) -> None:
    """Stopped in the second stage, and continued with loading processes."""
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--validate-every", 1)
    verb("train", *flags, "--max-steps", 3, "--save-every", 1)
    verb("train", *flags, "--workers", 1, "--save-every", 1)
    for name in ("model", "model_best"):
        straight = weights(trained, name)
        assert all(torch.equal(weights(tmp_path, name)[key], value) for key, value in straight.items())


def test_two_processes_learn_what_one_learns_with_twice_the_batch(scene: Path, tmp_path: Path) -> None:
    """Same global batches and stages, so the same gradients up to the order of summation, and one writer."""
    flags = ("--cube", scene, *QUICK, "--gradient-weight", 0)
    two = first_update(PROJECT / "train.py", *flags, "--output", tmp_path / "two", "--batch-size", 1, processes=2)
    one = first_update(PROJECT / "train.py", *flags, "--output", tmp_path / "one")
    assert two.distance(one) < 1e-5 and two.unused == 0 and two.flags == {"broadcast_buffers"}
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


def test_evaluate_finds_what_the_run_was_to_be_tested_on(trained: Path, verb: Verb, tmp_path: Path) -> None:
    done = verb("evaluate", "--checkpoint", trained, trained / "model_best", "--output", tmp_path)
    assert "total variation per band" in done.stdout and "over 2 seeds" in done.stdout
    single = verb("evaluate", "--checkpoint", trained, "--output", tmp_path / "single", "--methods", "subspace")
    assert "tiles of 16" in single.stdout
    ours, theirs = (read_rows(folder / "results.json") for folder in (tmp_path / "single", trained))
    assert [row.value for row in ours] == pytest.approx([row.value for row in theirs], rel=1e-5)
    assert {"pictures.png", "spectra.png"} <= {path.name for path in tmp_path.iterdir()}


def test_evaluate_refuses_another_project_s_run(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "config.json").write_text('{"config": {"order": 2}}')
    (tmp_path / "model" / "config.json").write_text('{"architecture": "ESSAformer"}')
    (tmp_path / "model" / "model.safetensors").touch()
    done = verb("evaluate", "--checkpoint", tmp_path, status=2)
    assert "holds a ESSAformer, expected a HCANet" in done.stderr


def test_evaluate_takes_other_noise_and_whole_scenes(trained: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--checkpoint", trained, "--output", tmp_path, "--methods", "outliers", "--whole")
    done = verb("evaluate", *flags, "--cases", "gaussian", "complex", "--sigma", 20)
    found = read_rows(tmp_path / "results.json")
    assert {row.dataset for row in found} == {f"mine, {kind}" for kind in ("σ 20", "case1", "case2", "case3", "case4")}
    assert "whole scenes" in done.stdout and "whole scenes" in found[0].split
    noisy = next(row for row in found if row.preset == "noisy")
    assert noisy.value == pytest.approx(20 * np.log10(255 / 20), abs=0.3)


@pytest.mark.usefixtures("undrawn")
def test_training_beats_the_noisy_input(scene: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--iterations", 200, "--order", "gaussian", "--epochs", 1)
    verb("train", *flags, "--learning-rate", 5e-3, "--log-every", 10, "--validate-every", 100)
    psnr = {row.preset: row.value for row in read_rows(tmp_path / "results.json") if row.metric == "PSNR (dB)"}
    assert psnr["demo"] > psnr["noisy"] + 5


def test_presets_are_the_published_recipes() -> None:
    released, qrnn3d = (PRESETS[name]() for name in ("released_trainer", "qrnn3d"))
    assert (released.learning_rate, released.batch_size, released.crop, released.loss) == (2e-4, 10, 128, "l1")
    assert (released.gradient_weight, released.gradient_form, released.schedule) == (1e-3, "released", "halving")
    assert (released.order, released.epochs, released.restart) == (("case1", "case5"), (150, 150), False)
    assert (qrnn3d.order, qrnn3d.epochs) == (("gaussian", "blind", "complex"), (30, 20, 50))
    assert (qrnn3d.learning_rate, qrnn3d.batch_size, qrnn3d.crops, qrnn3d.loss) == (1e-3, 16, (64, 32, 32), "l2")
    assert create_model(PRESETS["abu"]().model).dim >= 31


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dim", 9), "dim even"),
        (("--crop", 44), "too few for a crop of 44"),
        (("--crop", 4), "at least 8 pixels"),
        (("--bands", 8, "--dim", 8), "has 7 bands, fewer than --bands 8"),
        (("--order", "guass"), "--order has 1 stages but --epochs 2 numbers"),
        (("--order", "guass", "case1"), "noise case guass does not exist"),
        (("--test-cases", "case6"), "noise case case6 does not exist"),
        (("--framework", "x"), "noise framework x does not exist"),
        (("--crops", 16, 12), "expected a divisor of --crop 16"),
        (("--model", "hcanet_huge"), "there are hcanet, hcanet_light"),
    ],
)
def test_wrong_flags_are_refused_before_the_first_step(
    arguments: tuple, message: str, scene: Path, verb: Verb, tmp_path: Path
) -> None:
    done = verb("train", "--cube", scene, "--output", tmp_path / "run", *QUICK, *arguments, status=2)
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_narrow_network_is_warned_of(scene: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--dim", 4, "--max-steps", 1)
    done = verb("train", *flags)
    assert "warning: a network of width 4 passes at least 33% of the white noise of 6 bands" in done.stdout


def test_weights_for_other_bands_are_refused(trained: Path, scene: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--weights", trained, "--bands", 5)
    assert "has 6 bands, this training needs 5" in verb("train", *flags, status=2).stderr


@pytest.mark.parametrize("script", ["train", "evaluate", "predict", "benchmark"])
def test_help_is_worth_reading(script: str, verb: Verb) -> None:
    done = verb(script, "--help")
    assert f"hcanet/{script}.py" in done.stdout and len(done.stdout.splitlines()) > 10
