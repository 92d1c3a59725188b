"""The segmentation scripts as a user runs them: training, resume, two processes, scores, labels, bad input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from biformer import create_model, export_released
from biformer.segmentation.data import open_scenes
from biformer.segmentation.model import load_segmenter
from biformer.segmentation.photographs import CLASSES, write_demo
from common import launch
from common.results import read_rows
from support.parallel import first_update
from support.scripts import Finished, call_script, run_script

TASK = Path(__file__).parents[1]
QUICK = ("--preset", "upernet_small", "--model", "biformer_tiny", "--head-width", 16, "--image-size", 32)
QUICK += ("--num-regions", 2, "--batch-size", 2, "--workers", 0, "--iterations", 4, "--warmup-iterations", 2)
QUICK += ("--validate-every", 4, "--log-every", 1, "--learning-rate", 1e-3, "--drop-path", 0.2)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and five validation scenes, so that two processes score different numbers of scenes."""
    return write_demo(tmp_path_factory.mktemp("data"), training=6, validation=5)


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four updates from ImageNet weights in the authors' form."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    torch.save({"model": export_released(create_model("biformer_tiny"))}, folder / "released.pth")
    train(data, folder / "straight", "--weights", folder / "released.pth")
    return folder / "straight"


def command(root: Path, output: Path, *arguments: object) -> list[object]:
    return ["--data-root", root, "--output", output, *QUICK, *arguments]


def train(root: Path, output: Path, *arguments: object, status: int = 0) -> Finished:
    return call_script(TASK / "train.py", *command(root, output, *arguments), status=status)


def parameters(folder: Path) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in load_segmenter(folder).parameters()])


def test_an_interrupted_run_exports_the_same_weights(trained: Path, data: Path, tmp_path: Path) -> None:
    """With augmentation, dropout and drop path; the number of loading processes may change."""
    weights = ("--weights", trained.parent / "released.pth")
    train(data, tmp_path, *weights, "--max-steps", 2)
    train(data, tmp_path, *weights, "--max-steps", 4, "--workers", 1)
    ours, straight = (load_segmenter(folder / "model").state_dict() for folder in (tmp_path, trained))
    assert all(torch.equal(ours[name], value) for name, value in straight.items())
    assert losses(tmp_path) == losses(trained) and len(losses(trained)) == 4


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "classes.csv", "model", "model_best", "figures"}
    assert expected | {"checkpoints", "tensorboard"} <= {path.name for path in trained.iterdir()}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([1e-9, 1e-3 * 0.75 * 0.5, 0.5e-3, 0.25e-3], rel=1e-4)
    assert any({"validation_mIoU", "validation_mAcc", "validation_aAcc"} <= set(line) for line in lines)
    rows = read_rows(trained / "results.json")
    assert [row.metric for row in rows] == ["mIoU", "mAcc", "aAcc"] and "5 images" in rows[0].split
    assert "whole image, shorter side 32" in rows[0].definition and rows[0].command and rows[0].published is None
    assert {"predictions.png", "curves.png"} <= {path.name for path in (trained / "figures").iterdir()}
    table = list(csv.DictReader((trained / "classes.csv").open()))
    assert [line["class"] for line in table] == list(CLASSES)
    assert sum(int(line["labelled pixels"]) for line in table) < 5 * 96 * 128
    model = load_segmenter(trained / "model")
    assert model.class_names == list(CLASSES) and (model.head_name, model.image_size) == ("upernet", 32)


def test_two_processes_learn_what_one_learns_by_accumulation(data: Path, tmp_path: Path) -> None:
    """Both halves of a global batch are normalised separately in both runs: equal gradients; one process writes."""
    plain = ("--drop-path", 0, "--dropout", 0, "--max-steps", 2)
    two = first_update(TASK / "train.py", *command(data, tmp_path / "two", *plain), processes=2)
    one = first_update(TASK / "train.py", *command(data, tmp_path / "one", *plain, "--gradient-accumulation", 2))
    assert two.distance(one) < 1e-5 and two.unused == 0 and two.flags == set()
    assert len(losses(tmp_path / "two")) == 2


def test_batch_norms_are_synchronised_where_they_can_be(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All BatchNorms, also the backbone's, are synchronised as on two GPUs; with one process nothing changes."""
    held: list[nn.Module] = []
    prepare = Accelerator.prepare
    monkeypatch.setattr(Accelerator, "prepare", lambda self, *parts: held.append(parts[0]) or prepare(self, *parts))
    train(data, tmp_path / "plain", "--max-steps", 1)
    convert = launch.sync_batch_norm
    monkeypatch.setattr(launch, "sync_batch_norm", lambda model, *_: convert(model, 2, torch.device("cuda")))
    train(data, tmp_path / "shared", "--max-steps", 1)
    plain, shared = (
        {name: type(part) for name, part in model.named_modules() if isinstance(part, _BatchNorm)} for model in held
    )
    assert set(shared.values()) == {nn.SyncBatchNorm} and set(plain.values()) == {nn.BatchNorm2d}
    assert shared.keys() == plain.keys() and len({name.split(".")[0] for name in shared}) == 3
    assert torch.equal(parameters(tmp_path / "shared/model"), parameters(tmp_path / "plain/model"))


def test_scores_over_two_processes_are_those_of_one(trained: Path, data: Path, tmp_path: Path) -> None:
    """Five images on two processes: every pixel counts once, in the validation of training and in evaluation."""
    arguments = ("--checkpoint", trained / "model", "--data-root", data, "--workers", 0)
    run_script(TASK / "evaluate.py", *arguments, "--output", tmp_path, processes=2)
    one, two = read_rows(trained / "results.json"), read_rows(tmp_path / "results.json")
    assert [row.value for row in one] == [row.value for row in two]
    assert (tmp_path / "classes.csv").read_text() == (trained / "classes.csv").read_text()
    scenes = open_scenes(data, "validation")
    labelled = sum((scenes.read(i)[1] != 255).sum().item() for i in range(5))
    table = csv.DictReader((tmp_path / "classes.csv").open())
    assert sum(int(line["labelled pixels"]) for line in table) == labelled


def test_images_without_labels_are_not_scored(trained: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    for path in (tmp_path / "data/annotations/validation").iterdir():
        Image.new("L", Image.open(path).size).save(path)
    arguments = ("--checkpoint", trained / "model", "--data-root", tmp_path / "data", "--workers", 0)
    done = call_script(TASK / "evaluate.py", *arguments, status=2)
    assert "data: no pixel of the 5 images is labelled; annotate some" in done.stderr


def test_prediction_agrees_with_evaluation(trained: Path, data: Path, tmp_path: Path) -> None:
    """A folder with a damaged image and two names that differ only in the suffix."""
    photos, output = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(data / "images/validation", photos / "a")
    Image.open(photos / "a/ADE_val_00000001.jpg").resize((50, 20)).save(photos / "a/ADE_val_00000001.png")
    (photos / "broken.jpg").write_bytes(b"no image")
    arguments = ("--checkpoint", trained / "model", "--input", photos, "--output", output, "--device", "cpu")
    done = call_script(TASK / "predict.py", *arguments, status=2)
    assert "6 of 7 images segmented" in done.stdout
    (failed,) = csv.DictReader((output / "failed.csv").open())
    assert failed["picture"] == "broken.jpg" and "found no image that can be read" in failed["reason"]
    names = {path.name for path in (output / "a").iterdir()}
    assert {
        "ADE_val_00000001.jpg_labels.png",
        "ADE_val_00000001.png_overlay.png",
        "ADE_val_00000002_labels.png",
    } <= names
    right = labelled = 0
    for number in range(1, 6):
        stem = f"ADE_val_{number:08d}"
        found = np.asarray(Image.open(output / f"a/{stem}{'.jpg' if number == 1 else ''}_labels.png"))
        truth = np.asarray(Image.open(data / f"annotations/validation/{stem}.png"))
        assert found.min() >= 1 and found.shape == truth.shape
        right, labelled = right + (found == truth)[truth > 0].sum(), labelled + (truth > 0).sum()
    assert 100 * right / labelled == pytest.approx(read_rows(trained / "results.json")[2].value)
    assert Image.open(output / "a/ADE_val_00000001.png_labels.png").size == (50, 20)
    assert Image.open(output / "a/ADE_val_00000002_overlay.png").width > 128 + 40
    before = (output / "a/ADE_val_00000002_labels.png").stat().st_mtime_ns
    error = call_script(TASK / "predict.py", *arguments, status=2).stderr
    assert "add --existing skip or --existing replace" in error
    assert (output / "a/ADE_val_00000002_labels.png").stat().st_mtime_ns == before
    # After a repair, and with one output removed, only these two are written.
    (output / "a/ADE_val_00000003_overlay.png").unlink()
    shutil.copy(photos / "a/ADE_val_00000002.jpg", photos / "broken.jpg")
    done = call_script(TASK / "predict.py", *arguments, "--existing", "skip")
    assert "2 of 7 images segmented, 5 were there already" in done.stdout
    assert (output / "a/ADE_val_00000002_labels.png").stat().st_mtime_ns == before
    labels = [(output / name).read_bytes() for name in ("broken_labels.png", "a/ADE_val_00000002_labels.png")]
    assert labels[0] == labels[1] and not (output / "failed.csv").exists()
    run_script(TASK / "predict.py", *arguments[:5], tmp_path / "two", *arguments[6:], processes=2)
    for path in output.rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(output)).read_bytes()


@pytest.mark.parametrize(
    "case",
    [
        ("train", ("--data-root", "nowhere"), "nowhere: the folder does not exist"),
        ("train", (), "--preset upernet_small needs --data-root DIR"),
        ("train", ("--data-root", "DATA", "--num-regions", 16), "--image-size 32: is smaller than the region grid"),
        ("train", ("--data-root", "DATA", "--batch-size", 1), "expected 2 or more"),
        ("train", ("--data-root", "DATA", "--model", "resnet"), "--model resnet --head upernet: no variant 'resnet'"),
        ("train", ("--data-root", "DATA", "--weights", "MODEL"), "holds a Segmenter, expected a BiFormer"),
        ("train", ("--data-root", "DATA", "--model", "biformer_stl", "--weights", "PTH"), "holds another variant"),
        ("evaluate", ("--checkpoint", "PTH", "--data-root", "DATA"), "is a file, expected the model folder"),
        ("evaluate", ("--checkpoint", "MODEL", "--data-root", "OTHER"), "only here: class 1"),
        ("predict", ("--checkpoint", "MODEL", "--input", "nowhere", "--output", "o"), "no such image or folder"),
        ("predict", ("--checkpoint", "MODEL", "--input", "DATA", "--output", "o.png"), "expected a folder for labels"),
    ],
)
def test_bad_input_ends_with_one_sentence(
    paths: dict[str, Path], tmp_path: Path, case: tuple[str, tuple[object, ...], str]
) -> None:
    script, arguments, words = case
    given = [paths.get(str(argument), argument) for argument in arguments]
    if script == "train":
        given = ["--output", tmp_path / "run", *QUICK, *given]
    error = call_script(TASK / f"{script}.py", *given, status=2).stderr
    assert words in error.strip().splitlines()[-1] and "Traceback" not in error


@pytest.fixture
def paths(trained: Path, data: Path, tmp_path: Path) -> dict[str, Path]:
    """A data set, a data set without class names, a segmentation model, a file of ImageNet weights."""
    (tmp_path / "other").mkdir()
    for name in ("images", "annotations"):
        (tmp_path / "other" / name).symlink_to(data / name)
    return {
        "DATA": data,
        "OTHER": tmp_path / "other",
        "MODEL": trained / "model",
        "PTH": trained.parent / "released.pth",
    }


def test_training_learns_its_images(data: Path, tmp_path: Path) -> None:
    """The published loop on six scenes, validated on the same six, learns to classify most pixels."""
    root = tmp_path / "data"
    shutil.copytree(data, root)
    for kind in ("images", "annotations"):
        shutil.rmtree(root / kind / "validation")
        shutil.copytree(root / kind / "training", root / kind / "validation")
    plain = ("--preset", "demo", "--head-width", 32, "--image-size", 48, "--num-regions", 2, "--iterations", 45)
    plain += ("--workers", 0, "--scale", 0.9, 1.1, "--category-share", 1, "--no-distort", "--dropout", 0)
    plain += ("--learning-rate", 3e-3, "--log-every", 1, "--validate-every", 45)
    call_script(TASK / "train.py", "--data-root", root, "--output", tmp_path / "run", *plain)
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < 0.4 * np.mean(found[:5])
    assert read_rows(tmp_path / "run/results.json")[0].value > 45


@pytest.mark.parametrize("script", ["train", "evaluate", "predict"])
def test_help_is_worth_reading(script: str) -> None:
    out = call_script(TASK / f"{script}.py", "--help").stdout
    assert f"biformer/segmentation/{script}.py" in out and len(out.splitlines()) > 15
