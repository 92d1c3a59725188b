"""The scripts as a user runs them: training, resume, two processes, evaluation, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from common.results import read_rows
from fftformer import create_model, export_released, load_model
from fftformer.data import EvaluationPairs
from fftformer.layouts import find_pairs
from fftformer.losses import fourier_l1
from fftformer.presets import PRESETS
from support.data import real_data
from support.parallel import first_update
from support.scripts import run_script

PROJECT = Path(__file__).parents[1]
QUICK = ("--model", "fftformer_tiny", "--crop", 32, "--batch-size", 2, "--workers", 0, "--ema", 0.9, "--log-every", 1)


@pytest.fixture(scope="session")
def trained(call: Callable[..., int], pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "straight"
    assert call("train.py", *command(pairs_folder, folder, "--max-steps", 6)) == 0
    return folder


def command(root: Path, output: Path, *arguments: object) -> list[object]:
    return ["--preset", "gopro_released", "--data-root", root, "--output", output, *QUICK, *arguments]


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_model(folder / name).state_dict()


def test_an_interrupted_run_exports_the_same_weights(
    call: Callable[..., int], trained: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    for flags in (("--max-steps", 3), ("--max-steps", 6, "--workers", 1)):
        assert call("train.py", *command(pairs_folder, tmp_path, *flags)) == 0
    ours, straight = weights(tmp_path), weights(trained)
    assert all(torch.equal(ours[name], value) for name, value in straight.items())


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "model", "figures", "checkpoints", "tensorboard"}
    assert expected <= {path.name for path in trained.iterdir()}
    resolved = json.loads((trained / "config.json").read_text())
    assert resolved["config"]["learning_rate"] == 1e-3 and resolved["config"]["crop"] == 32
    assert resolved["versions"]["torch"] == torch.__version__.split("+")[0]
    rows = {row.metric: row for row in read_rows(trained / "results.json")}
    assert set(rows) == {"PSNR (dB)", "SSIM (3-D)", "SSIM (2-D)"}
    assert all(row.command and row.device and row.definition for row in rows.values())
    pictures = list((trained / "figures").glob("*.png"))
    assert {"restored.png", "curves.png"} <= {path.name for path in pictures}
    assert all(min(Image.open(path).size) > 100 for path in pictures)


def test_two_processes_learn_what_one_learns_with_twice_the_batch(pairs_folder: Path, tmp_path: Path) -> None:
    """The global batches are the same, so the gradients differ only by rounding; only one process writes."""
    flags = ("--max-steps", 2, "--validation-pictures", 1, "--clip", 100)
    two = first_update(PROJECT / "train.py", *command(pairs_folder, tmp_path / "two", *flags), processes=2)
    one = first_update(PROJECT / "train.py", *command(pairs_folder, tmp_path / "one", *flags, "--batch-size", 4))
    assert two.distance(one) < 1e-5 and two.unused == 0
    assert two.flags == {"broadcast_buffers"}  # torch's default, as in the release
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_metrics_of_two_processes_count_every_image_once(
    call: Callable[..., int], trained: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    """Three images on two processes: no image may count twice."""
    flags = ("--checkpoint", trained / "model", "--data-root", pairs_folder, "--output")
    assert call("evaluate.py", *flags, tmp_path / "1") == 0
    run_script(PROJECT / "evaluate.py", *flags, tmp_path / "2", processes=2)
    one, two = (read_rows(tmp_path / str(n) / "results.json") for n in (1, 2))
    assert [row.value for row in one] == pytest.approx([row.value for row in two], abs=1e-9)
    lines = (tmp_path / "2/pictures.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "0", "1", "2"]
    values = [float(line.split(",")[2]) for line in lines[1:]]
    assert one[0].value == pytest.approx(np.mean(values), abs=1e-4)


def test_evaluate_reads_the_authors_file_too(
    call: Callable[..., int], pairs_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save({"params": export_released(create_model("fftformer_tiny"))}, tmp_path / "released.pth")
    arguments = ("--checkpoint", tmp_path / "released.pth", "--data-root", pairs_folder, "--save-pictures")
    assert call("evaluate.py", *arguments, "--output", tmp_path / "out") == 0
    said = capfd.readouterr().out
    assert "PSNR (dB)" in said and "blurred input" in said
    assert Image.open(tmp_path / "out/restored/2.png").size == (35, 33)
    assert read_rows(tmp_path / "out/results.json")[0].preset == "released"


def test_training_lowers_the_loss(train: Callable[..., Path], tmp_path: Path) -> None:
    train(tmp_path, "--iterations", 60, "--max-steps", 40, "--clip", 1.0, "--validate-every", 20)
    losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [line["pixel_loss"] for line in losses if "pixel_loss" in line]
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])


def test_the_spectral_loss_is_the_released_one() -> None:
    output, target = torch.rand(2, 3, 9, 12), torch.rand(2, 3, 9, 12)
    spectra = [torch.view_as_real(torch.fft.fft2(image)) for image in (output, target)]
    assert fourier_l1(output, target).item() == pytest.approx(F.l1_loss(*spectra).item(), rel=1e-5)


def test_presets_are_the_published_experiments() -> None:
    released, paper, realblur = (PRESETS[name]() for name in ("gopro_released", "gopro_paper", "realblur_j"))
    assert (released.crop, released.batch_size, released.iterations, released.optimizer) == (128, 8, 300_000, "adamw")
    assert (released.learning_rate, released.weight_decay, released.betas) == (1e-3, 1e-3, (0.9, 0.9))
    assert (paper.crop, paper.iterations, paper.optimizer) == (256, 600_000, "adam")
    assert (realblur.crop, realblur.batch_size, realblur.learning_rate) == (256, 2, 4e-4)


@pytest.mark.parametrize("problem", ["missing", "half", "truncated", "sizes"])
def test_bad_folders_are_refused_before_the_first_step(
    train: Callable[..., Path], pairs_folder: Path, tmp_path: Path, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    if problem != "missing":
        shutil.copytree(pairs_folder, root)
    victim = root / "train/input/2.png"
    if problem == "half":
        victim.unlink()
    elif problem == "truncated":
        victim.write_bytes(victim.read_bytes()[:20])
    elif problem == "sizes":
        Image.fromarray(np.zeros((48, 60, 3), np.uint8)).save(victim)
    train(tmp_path / "run", root=root, status=2)
    said = capfd.readouterr().err
    assert "Traceback" not in said and str(root) in said.strip().splitlines()[-1]
    assert not (tmp_path / "run/checkpoints").exists()


def test_another_model_s_checkpoint_is_refused(
    call: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert call("evaluate.py", "--checkpoint", tmp_path / "other.pth") == 2
    said = capfd.readouterr().err
    assert "another model" in said and "Traceback" not in said


def test_a_diverging_run_stops_with_the_step(
    train: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ("--iterations", 30, "--max-steps", 30, "--clip", 1e9, "--learning-rate", 1e18)
    train(tmp_path, *flags, status=2)
    said = capfd.readouterr().err
    assert "training diverged at step" in said and "Traceback" not in said


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "prepare.py", "benchmark.py"])
def test_help_is_worth_reading(call: Callable[..., int], script: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(script, "--help") == 0
    said = capfd.readouterr().out
    assert f"fftformer/{script}" in said and len(said.splitlines()) > 15


def test_a_real_gopro_pair_is_read_and_scored(tmp_path: Path) -> None:
    folder = real_data("gopro_pairs")
    (item,) = [EvaluationPairs(find_pairs(folder))[0]]
    assert item["sharp"].shape == (3, 720, 1280)
    from fftformer.metrics import psnr

    assert psnr(item["blurred"], item["sharp"]) == pytest.approx(24.05, abs=0.01)
