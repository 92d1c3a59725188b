"""The scripts as a user runs them: training, resume, two processes, evaluation, prediction, and bad input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biformer import create_model, export_released, load_model, variants
from biformer.photographs import demo_pictures
from common.errors import UserError
from common.photographs.folders import refuse_overwriting
from common.results import read_rows
from conftest import SMALL
from support.parallel import first_update
from support.scripts import Finished, call_script, run_script

PROJECT = Path(__file__).parents[1]
QUICK = ("--model", "biformer_tiny", "--image-size", 32, "--num-regions", 2, "--batch-size", 4, "--workers", 0)
QUICK += ("--epochs", 4, "--warmup-epochs", 0, "--cooldown-epochs", 0, "--validate-epochs", 4)
QUICK += ("--learning-rate", 0.05, "--ema", 0.9, "--log-every", 1)


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes in class folders: 15 training and 7 validation images."""
    root = tmp_path_factory.mktemp("pictures")
    for split, pictures, counts in zip(("train", "val"), demo_pictures(5, 3), ((5, 5, 5), (3, 1, 3)), strict=True):
        for name, count in zip(("brick", "cat", "grass"), counts, strict=True):
            first = list(pictures.names).index(f"{'train' if split == 'train' else 'test'}/{name}/0")
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pictures.read(first + number)[0].save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def trained(pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "straight"
    train(pictures_folder, folder, "--max-steps", 4)
    return folder


def command(root: Path, output: Path, *arguments: object) -> list[object]:
    return ["--preset", "imagenet_tiny", "--data-root", root, "--output", output, *QUICK, *arguments]


def train(root: Path, output: Path, *arguments: object, status: int = 0) -> Finished:
    """Train the tiny network with fewer channels and one block per stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants._VARIANTS, "biformer_tiny", SMALL)
        return call_script(PROJECT / "train.py", *command(root, output, *arguments), status=status)


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_model(folder / name).state_dict()


def test_an_interrupted_run_exports_the_same_weights(trained: Path, pictures_folder: Path, tmp_path: Path) -> None:
    """With mixup, CutMix, drop path, random erasing and repeated augmentation, raw and averaged weights."""
    train(pictures_folder, tmp_path, "--max-steps", 2)
    train(pictures_folder, tmp_path, "--max-steps", 4, "--workers", 1)
    for name in ("model", "model_ema"):
        ours, straight = weights(tmp_path, name), weights(trained, name)
        assert all(torch.equal(ours[key], value) for key, value in straight.items())
    assert not torch.equal(weights(trained)["head.fc.weight"], weights(trained, "model_ema")["head.fc.weight"])


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "model", "model_ema", "model_best", "figures"}
    assert expected | {"checkpoints", "tensorboard"} <= {path.name for path in trained.iterdir()}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[0] == pytest.approx(0.05 * 4 / 512) and rates == sorted(rates, reverse=True)
    assert any("validation_top1" in line for line in lines) and any("validation_top1_ema" in line for line in lines)
    rows = read_rows(trained / "results.json")
    assert [(row.metric, row.preset) for row in rows] == [("top-1", "imagenet_tiny"), ("top-1", "imagenet_tiny_ema")]
    assert all(row.command and row.device and "7 images" in row.split for row in rows)
    pictures = {"classes.png", "routing.png", "curves.png"}
    assert pictures <= {path.name for path in (trained / "figures").iterdir()}
    model = load_model(trained / "model")
    assert model.class_names == ["brick", "cat", "grass"] and (model.image_size, model.num_regions) == (32, 2)


def test_two_processes_learn_what_one_learns_by_accumulation(pictures_folder: Path, tmp_path: Path) -> None:
    """Both halves of a global batch are normalised separately in both runs: equal gradients; one process writes."""
    plain = ("--mixup", 0, "--cutmix", 0, "--drop-path", 0, "--max-steps", 2)
    two = first_update(PROJECT / "train.py", *command(pictures_folder, tmp_path / "two", *plain), processes=2)
    whole = command(pictures_folder, tmp_path / "one", *plain, "--gradient-accumulation", 2)
    one = first_update(PROJECT / "train.py", *whole)
    assert two.distance(one) < 1e-5 and two.unused == 0
    assert two.flags == {"broadcast_buffers"}  # torch's default, as in the release
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2] and lines[0]["learning_rate"] == pytest.approx(0.05 * 8 / 512)


def test_accuracy_over_two_processes_counts_every_image_once(
    trained: Path, pictures_folder: Path, tmp_path: Path
) -> None:
    """Seven images on two processes with batches of two, so the processes and the last batches differ in size."""
    arguments = ("--checkpoint", trained / "model", "--data-root", pictures_folder, "--batch-size", 2, "--workers", 0)
    call_script(PROJECT / "evaluate.py", *arguments, "--output", tmp_path / "1")
    run_script(PROJECT / "evaluate.py", *arguments, "--output", tmp_path / "2", processes=2)
    one, two = (read_rows(tmp_path / str(n) / "results.json") for n in (1, 2))
    assert [row.value for row in one] == [row.value for row in two]
    assert one[0].value == pytest.approx(read_rows(trained / "results.json")[0].value)
    assert one[0].value * 7 / 100 == pytest.approx(round(one[0].value * 7 / 100))


def test_prediction_agrees_with_evaluation(trained: Path, pictures_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copytree(pictures_folder / "val", tmp_path / "photos", dirs_exist_ok=True)
    (tmp_path / "photos/broken.jpg").write_bytes(b"no image")
    output, routes = tmp_path / "labels.csv", tmp_path / "routes.png"
    arguments = ("--checkpoint", trained / "model", "--input", tmp_path / "photos", "--output", output, "--top", 2)
    done = call_script(PROJECT / "predict.py", *arguments, "--routing", routes, "--batch-size", 3, status=2)
    assert "7 of 8 images classified" in done.stdout
    assert "1 of 8 images could not be classified, listed in" in done.stderr.splitlines()[-1]
    (failed,) = csv.DictReader((tmp_path / "labels_failed.csv").open())
    assert failed["picture"] == "broken.jpg" and "found no image that can be read" in failed["reason"]
    lines = list(csv.DictReader(output.open()))
    assert list(lines[0]) == ["file", "class", "probability", "class 2", "probability 2"] and len(lines) == 7
    right = np.mean([line["class"] == line["file"].split("/")[0] for line in lines]) * 100
    assert right == pytest.approx(read_rows(trained / "results.json")[0].value)
    assert min(Image.open(routes).size) > 300
    again = call_script(PROJECT / "predict.py", *arguments, status=2)
    assert "labels.csv" in again.stderr and "exist already" in again.stderr and "add --existing skip or" in again.stderr
    other = call_script(PROJECT / "predict.py", *arguments, "--existing", "skip", "--top", 1, status=2)
    assert "holds results of another model or other flags" in other.stderr
    # After a repair only this image is classified; then nothing is left to do, and only results are left.
    shutil.copy(tmp_path / "photos" / lines[0]["file"], tmp_path / "photos/broken.jpg")
    done = call_script(PROJECT / "predict.py", *arguments, "--existing", "skip")
    assert "1 of 8 images classified, 7 were there already" in done.stdout
    mended = {line.pop("file"): line for line in csv.DictReader(output.open())}
    assert list(mended) == sorted(mended) and mended["broken.jpg"] == mended[lines[0]["file"]]
    done = call_script(PROJECT / "predict.py", *arguments, "--existing", "skip")
    assert "exists already, nothing to do" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "labels.csv", "routes.png"}
    one = output.read_text()
    run_script(PROJECT / "predict.py", *arguments, "--existing", "replace", "--batch-size", 1, processes=2)
    assert output.read_text() == one and {path.name for path in tmp_path.iterdir()} == {
        "photos",
        "labels.csv",
        "routes.png",
    }


def test_released_files_predict_with_imagenets_names(pictures_folder: Path, tmp_path: Path) -> None:
    torch.save({"model": export_released(create_model("biformer_tiny", **SMALL))}, tmp_path / "released.pth")
    arguments = ("--checkpoint", tmp_path / "released.pth", "--image-size", 64)
    image = pictures_folder / "val/cat/0.png"
    call_script(PROJECT / "predict.py", *arguments, "--input", image, "--output", tmp_path / "labels.csv")
    line = next(csv.DictReader((tmp_path / "labels.csv").open()))
    from timm.data import ImageNetInfo

    assert line["class"] in ImageNetInfo().label_descriptions()
    done = call_script(PROJECT / "evaluate.py", *arguments, "--data-root", pictures_folder, status=2)
    assert "has 1000 classes, the images have 3" in done.stderr


def test_training_lowers_the_loss(pictures_folder: Path, tmp_path: Path) -> None:
    plain = ("--mixup", 0, "--cutmix", 0, "--auto-augment", "", "--crop-area", 0.8, "--repeats", 1, "--epochs", 24)
    plain += ("--smoothing", 0, "--erasing", 0, "--drop-path", 0, "--batch-size", 12)
    train(pictures_folder, tmp_path, *plain, "--validate-epochs", 24)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("problem", ["classes", "damaged strict", "damaged", "odd batch", "no data", "small"])
def test_bad_input_is_refused_in_one_sentence(pictures_folder: Path, tmp_path: Path, problem: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(pictures_folder, root)
    arguments: tuple[object, ...] = ("--max-steps", 1)
    words, status = "", 2
    if problem == "classes":
        (root / "val/grass").rename(root / "val/gravel")
        words = "only here: gravel; only there: grass"
    elif problem.startswith("damaged"):
        for victim in root.glob("train/cat/[0-3].png"):
            victim.write_bytes(victim.read_bytes()[:60])
        (root / "val/cat/0.png").write_text("no image")
        words = "the image is truncated or damaged" if "strict" in problem else ""
        arguments = ("--max-steps", 4, "--strict") if "strict" in problem else ("--max-steps", 4)
        status = 2 if "strict" in problem else 0
    elif problem == "odd batch":
        arguments, words = (
            (*arguments, "--batch-size", 3),
            "mixup needs pairs of images, expected an even number",
        )
    elif problem == "no data":
        root, words = tmp_path / "nowhere", "nowhere: the folder does not exist"
    else:
        arguments, words = (*arguments, "--num-regions", 9), "smaller than the region grid"
    done = train(root, tmp_path / "run", *arguments, status=status)
    assert "Traceback" not in done.stderr
    if status:
        assert words in done.stderr.strip().splitlines()[-1]
    else:
        assert "1 of validation" in done.stdout and "unreadable images left out" in done.stdout
        assert "6 images, 1 unreadable ones left out" in read_rows(tmp_path / "run/results.json")[0].split


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py"])
def test_help_is_worth_reading(script: str) -> None:
    done = call_script(PROJECT / script, "--help")
    assert f"biformer/{script}" in done.stdout and len(done.stdout.splitlines()) > 15


def test_a_csv_never_replaces_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    before, flags = (tmp_path / "a.png").read_bytes(), ("--checkpoint", tmp_path / "none", "--existing", "replace")
    for source in (tmp_path, tmp_path / "a.png"):
        done = call_script(PROJECT / "predict.py", "--input", source, "--output", tmp_path / "a.png", *flags, status=2)
        assert "is the name of an image; expected a name like classes.csv" in done.stderr
    with pytest.raises(UserError, match="is an input image too"):
        refuse_overwriting([], [tmp_path / "a.png"], "replace", inputs=[tmp_path / "a.png"])
    assert (tmp_path / "a.png").read_bytes() == before
