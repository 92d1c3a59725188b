"""The scripts as a user runs them: training, resuming, two processes, evaluation, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.results import read_rows
from essaformer import create_model, load_model
from essaformer.losses import sspsr_loss, total_variation
from essaformer.metrics import METRICS
from essaformer.presets import PRESETS
from support.parallel import first_update
from support.scripts import run_script

PROJECT = Path(__file__).parents[1]
QUICK = ("--dim", 4, "--crop", 12, "--batch-size", 2, "--workers", 0, "--log-every", 1, "--iterations", 4)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "mine.npy"
    # Waves of five pixels: bicubic flattens them, a network soon learns to raise them again.
    rows, columns = np.mgrid[:40, :48]
    waves = 0.5 + 0.2 * np.sin(0.4 * np.pi * rows + 0.03 * columns) + 0.2 * np.sin(0.4 * np.pi * columns + 1)
    np.save(path, (2000 * waves[..., None] * np.linspace(0.4, 1, 5)).astype(np.uint16))
    return path


@pytest.fixture(scope="session")
def train(verb):
    def call(scene: Path, output: Path, *arguments: object, status: int = 0, draws: bool = False):
        return verb("train", *flags(scene, output, *arguments), status=status, draws=draws)

    return call


@pytest.fixture(scope="session")
def trained(train, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "straight"
    train(scene, folder, draws=True)
    return folder


def flags(scene: Path, output: Path, *arguments: object) -> list[object]:
    return ["--preset", "abu_x2", "--cube", scene, "--output", output, *QUICK, *arguments]


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_model(folder / name).state_dict()


def test_an_interrupted_run_exports_the_same_weights(train, trained: Path, scene: Path, tmp_path: Path) -> None:
    train(scene, tmp_path, "--max-steps", 2, "--save-every", 1)
    run_script(PROJECT / "train.py", *flags(scene, tmp_path, "--workers", 1, "--save-every", 1))  # a process of its own
    ours, straight = weights(tmp_path), weights(trained)
    assert all(torch.equal(ours[name], value) for name, value in straight.items())


def test_resuming_the_released_form_draws_the_same_dropout(train, scene: Path, tmp_path: Path) -> None:
    released = ("--model", "essaformer", "--gradient-checkpointing")
    train(scene, tmp_path / "straight", *released)
    train(scene, tmp_path / "killed", *released, "--max-steps", 2)
    train(scene, tmp_path / "killed", *released)
    ours, straight = weights(tmp_path / "killed"), weights(tmp_path / "straight")
    assert all(torch.equal(ours[name], value) for name, value in straight.items())


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "regions.json", "model", "model_best", "figures"}
    assert expected <= {path.name for path in trained.iterdir()}
    assert json.loads((trained / "config.json").read_text())["config"]["dim"] == 4
    regions = json.loads((trained / "regions.json").read_text())
    assert [(r["top"], r["left"], r["height"], r["width"]) for r in regions["train"]] == [(0, 0, 12, 48)]
    rows = read_rows(trained / "results.json")
    assert [row.metric for row in rows] == [*METRICS] * 4
    assert [row.preset for row in rows[:12]] == ["abu_x2"] * 6 + ["bicubic"] * 6
    assert rows[0].definition.startswith("sspsr") and rows[-1].definition.startswith("mcnet")
    pictures = list((trained / "figures").glob("*.png"))
    assert {"test.png", "curves.png"} <= {path.name for path in pictures}
    assert all(min(Image.open(path).size) > 100 for path in pictures)


def test_two_processes_learn_what_one_learns_with_twice_the_batch(scene: Path, tmp_path: Path) -> None:
    """Same global batches, so the same gradients up to the order of summation, and one writer."""
    # The variant's last layer starts from zeros, which would keep gradients from all others.
    without_zeros = ("--global-residual", False, "--max-steps", 2)
    two = first_update(PROJECT / "train.py", *flags(scene, tmp_path / "two", *without_zeros), processes=2)
    one = first_update(PROJECT / "train.py", *flags(scene, tmp_path / "one", *without_zeros, "--batch-size", 4))
    assert two.distance(one) < 1e-5 and two.unused == 0 and two.flags == {"broadcast_buffers"}
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_evaluate_finds_what_the_run_was_to_be_tested_on(trained: Path, tmp_path: Path) -> None:
    done = run_script(PROJECT / "evaluate.py", "--checkpoint", trained / "model", "--output", tmp_path, processes=2)
    assert "| bicubic" in done.stdout and "mcnet" in done.stdout
    ours, theirs = (read_rows(folder / "results.json") for folder in (tmp_path, trained))
    assert [row.value for row in ours] == pytest.approx([row.value for row in theirs], rel=1e-5)
    assert {"pictures.png", "spectra.png"} <= {path.name for path in tmp_path.iterdir()}


def test_training_beats_bicubic_on_what_it_has_seen(train, scene: Path, tmp_path: Path) -> None:
    train(
        scene,
        tmp_path,
        "--dim",
        8,
        "--iterations",
        120,
        "--learning-rate",
        4e-3,
        "--validate-every",
        120,
        "--log-every",
        10,
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    psnr = {row.preset: row.value for row in read_rows(tmp_path / "results.json")[:12] if row.metric == "PSNR (dB)"}
    assert psnr["abu_x2"] > psnr["bicubic"] + 0.5


def test_the_objective_by_hand() -> None:
    output = torch.zeros(1, 2, 2, 2)
    output[0, 1] = 1.0
    output[0, 0, 0, 0] = 2.0
    spatial, spectral = total_variation(output)
    # Differences down: (2, 0, 0, 0) of 4 values; across the same; along the spectrum: (−1, 1, 1, 1).
    assert (spatial.item(), spectral.item()) == (pytest.approx(2.0), pytest.approx(1.0))
    loss = sspsr_loss(output, torch.zeros_like(output), 0.1, 0.01)
    assert loss.item() == pytest.approx(6 / 8 + 0.2 + 0.01)


def test_presets_are_the_published_recipe() -> None:
    chikusei, eight, pavia = (PRESETS[name]() for name in ("chikusei_x4", "chikusei_x8", "pavia_centre_x4"))
    assert (chikusei.learning_rate, chikusei.epochs, chikusei.batch_size) == (1e-4, 40, 32)
    assert (chikusei.crop, chikusei.stride, chikusei.spatial_tv, chikusei.spectral_tv) == (64, 32, 1e-3, 1e-3)
    assert (eight.scale, eight.crop, eight.stride) == (8, 128, 64)
    assert (pavia.scaling, pavia.scaling_value) == ("constant", 8_000)
    small = create_model(PRESETS["abu_x2"]().model, bands=205, scale=2)
    assert small.global_residual and small.encode_up.dropout == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dim", 10), "multiple of 4 for scale 2"),
        (("--crop", 13), "multiple of scale 2"),
        (("--crop", 44), "too few for a crop of 44"),
        (("--scale", 5), "expected one of 2, 3, 4, 8"),
        (("--order", 3), "order 0, 1 or 2"),
        (("--scaling", "percentile", "--scaling-value", 120), "--scaling-value 120: expected a percentile"),
        (("--dropout", 1), "--dropout 1.0: expected"),
    ],
)
def test_wrong_flags_are_refused_before_the_first_step(
    train, arguments: tuple, message: str, scene: Path, tmp_path: Path
) -> None:
    done = train(scene, tmp_path, *arguments, status=2)
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_weights_of_another_network_are_refused(train, verb, scene: Path, trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.random.default_rng(0).random((40, 48, 7)))
    weights = ("--weights", trained / "model")
    done = train(tmp_path / "other.npy", tmp_path / "run", *weights, status=2)
    assert "has 7 bands but the checkpoint was trained on 5" in done.stderr
    for flag, value, found in (("--dim", 8, "dim 4"), ("--order", 2, "order 1"), ("--scale", 4, "scale 2")):
        done = train(scene, tmp_path / "run", *weights, flag, value, status=2)
        assert f"has {found} but {flag} or the preset says {value}" in done.stderr
    arguments = ("--checkpoint", trained / "model", "--cube", tmp_path / "other.npy")
    done = verb("evaluate", *arguments, status=2)
    assert "has 7 bands but the checkpoint was trained on 5" in done.stderr


def test_bands_first_is_told_in_training_and_scoring(train, verb, trained: Path, scene: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.npy"
    np.save(first, np.load(scene).transpose(2, 0, 1))
    train(first, tmp_path / "run", "--band-axis", "first")
    ours, straight = weights(tmp_path / "run"), weights(trained)
    assert all(torch.equal(ours[name], value) for name, value in straight.items())
    verb("evaluate", "--checkpoint", tmp_path / "run", "--output", tmp_path / "scores", "--tile", 9)
    rows = read_rows(tmp_path / "scores/results.json")
    assert len(rows) == 24 and all(" in tiles of 9; protocol " in row.split for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "gpu"), "--device gpu: no such device"),
        (("--tile", 0), "--tile 0: expected a number above 0"),
        (("--memory", "4"), "--memory 4: expected a size with a unit"),
    ],
)
def test_wrong_flags_of_scoring_are_one_sentence(verb, arguments: tuple, message: str, trained: Path) -> None:
    done = verb("evaluate", "--checkpoint", trained, *arguments, status=2)
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "convert.py", "benchmark.py"])
def test_help_is_worth_reading(verb, script: str) -> None:
    done = verb(script.removesuffix(".py"), "--help")
    assert f"essaformer/{script}" in done.stdout and len(done.stdout.splitlines()) > 10
