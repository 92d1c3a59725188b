"""The detection scripts as a user runs them: training, resume, two processes, evaluation, prediction, bad input."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from biformer.detection import load_detector
from biformer.detection.data import open_split
from biformer.detection.demo import write_demo
from biformer.detection.presets import PRESETS
from common.errors import UserError
from common.results import read_rows
from support.parallel import first_update
from support.scripts import Finished, call_script, run_script

TASK = Path(__file__).parents[1]
QUICK = ("--model", "biformer_tiny", "--depths", 1, 1, 1, 1, "--num-regions", 2, "--channels", 16, "--workers", 0)
QUICK += ("--short-side", 64, "--long-side", 96, "--regions-per-picture", 16, "--batch-size", 2, "--log-every", 1)
QUICK += ("--mixed-precision", "no", "--warmup-steps", 0, "--learning-rate", 0.01, "--validate-epochs", 99)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three validation images; one of each has no object."""
    return write_demo(tmp_path_factory.mktemp("coco"), training=6, validation=3)


@pytest.fixture(scope="module")
def trained(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "straight"
    train(coco, folder, "--max-steps", 4)
    return folder


def command(root: Path, output: Path, *arguments: object) -> list[object]:
    return ["--preset", "mask_rcnn_small", "--data-root", root, "--output", output, *QUICK, *arguments]


def train(root: Path, output: Path, *arguments: object, status: int = 0) -> Finished:
    return call_script(TASK / "train.py", *command(root, output, *arguments), status=status)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_detector(folder).state_dict()


def test_an_interrupted_run_exports_the_same_weights(trained: Path, coco: Path, tmp_path: Path) -> None:
    """With flips, drop path, and the random sampling of anchors and regions inside Mask R-CNN."""
    train(coco, tmp_path, "--max-steps", 2)
    train(coco, tmp_path, "--max-steps", 4, "--workers", 1)
    ours, straight = weights(tmp_path / "model"), weights(trained / "model")
    assert all(torch.equal(ours[key], value) for key, value in straight.items())


def test_a_run_leaves_everything_a_user_looks_for(trained: Path) -> None:
    expected = {"config.json", "metrics.jsonl", "results.json", "model", "model_best", "figures", "checkpoints"}
    assert expected | {"tensorboard"} <= {path.name for path in trained.iterdir()}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    parts = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    losses = [line for line in lines if "loss" in line]
    assert len(losses) == 4 and all(parts < set(line) for line in losses)
    assert losses[0]["loss"] == pytest.approx(sum(losses[0][name] for name in parts), rel=1e-5)
    assert losses[0]["learning_rate"] == pytest.approx(0.01 * 2 / 16)
    assert any("validation_box_AP" in line and "validation_mask_AP50" in line for line in lines)
    rows = read_rows(trained / "results.json")
    assert {"box AP", "box AP50", "box AP75", "mask AP"} <= {row.metric for row in rows}
    assert all(row.command and row.device and row.split == "validation, 3 images" for row in rows)
    assert {"detections.png", "curves.png"} <= {path.name for path in (trained / "figures").iterdir()}
    model = load_detector(trained / "model")
    assert (model.class_names, model.category_ids) == (["coin", "horse", "cup"], [3, 19, 47])


def test_two_processes_learn_what_one_learns_by_accumulation(coco: Path, tmp_path: Path) -> None:
    """RetinaNet uses no random numbers: the same images give the same gradients; one process writes."""
    plain = ("--method", "retinanet", "--drop-path", 0, "--max-steps", 2, "--batch-size", 1)
    two = first_update(TASK / "train.py", *command(coco, tmp_path / "two", *plain), processes=2)
    one = first_update(TASK / "train.py", *command(coco, tmp_path / "one", *plain, "--gradient-accumulation", 2))
    assert two.distance(one) < 1e-5 and two.unused == 0 and two.flags == set()
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_scores_over_two_processes_count_every_image_once(trained: Path, coco: Path, tmp_path: Path) -> None:
    """Three images on two processes give the same scores and boxes as one process."""
    arguments = ("--checkpoint", trained / "model", "--data-root", coco, "--workers", 0, "--save-pictures", 2)
    call_script(TASK / "evaluate.py", *arguments, "--output", tmp_path / "1")
    done = run_script(TASK / "evaluate.py", *arguments, "--output", tmp_path / "2", processes=2)
    assert "at most 100 detections per image" in done.stdout
    one, two = (read_rows(tmp_path / str(n) / "results.json") for n in (1, 2))
    assert [(row.metric, row.value) for row in one] == [(row.metric, row.value) for row in two]
    assert {row.metric: row.value for row in one} == {r.metric: r.value for r in read_rows(trained / "results.json")}
    first, second = (json.loads((tmp_path / str(n) / "detections.json").read_text()) for n in (1, 2))
    assert first == second and {found["category_id"] for found in first} <= {3, 19, 47}
    assert len(list((tmp_path / "1/pictures").glob("*.png"))) == 2


def test_prediction_agrees_with_evaluation(trained: Path, coco: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "found"
    (photos / "deep").mkdir(parents=True)
    first, second = (Image.open(path).convert("RGB") for path in sorted((coco / "val2017").iterdir())[:2])
    first.save(photos / "a.png")
    second.save(photos / "deep/b.png")
    second.resize((90, 300)).convert("L").save(photos / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    first.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.png", exif=exif)
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (2000, 1)).save(photos / "line.png")
    arguments = ("--checkpoint", trained / "model", "--input", photos, "--output", output, "--score", 0.05)
    done = call_script(TASK / "predict.py", *arguments, status=2)
    assert "4 of 6 images searched" in done.stdout
    assert "2 of 6 images could not be searched, listed in" in done.stderr.splitlines()[-1]
    failed = {line["picture"]: line["reason"] for line in csv.DictReader((output / "failed.csv").open())}
    assert list(failed) == ["broken.jpg", "line.png"] and "too narrow" in failed["line.png"]
    found = json.loads((output / "detections.json").read_text())
    by_name = {image["file_name"]: image for image in found["images"]}
    assert set(by_name) == {"a.jpg", "a.png", "deep/b.png", "turned.png"}
    assert (by_name["turned.png"]["width"], by_name["turned.png"]["height"]) == first.size
    boxes = {
        name: [a["bbox"] for a in found["annotations"] if a["image_id"] == image["id"]]
        for name, image in by_name.items()
    }
    assert boxes["a.png"] and boxes["turned.png"] == boxes["a.png"]
    drawn = sorted(path.relative_to(output / "pictures").as_posix() for path in (output / "pictures").rglob("*.png"))
    assert drawn == ["a.jpg.png", "a.png.png", "deep/b.png", "turned.png"]
    assert min(Image.open(output / "pictures/deep/b.png").size) >= 320
    again = COCO(str(output / "detections.json"))  # pycocotools can read it
    masks = [again.annToMask(annotation) for annotation in again.anns.values()]
    assert [float(mask.sum()) for mask in masks] == [annotation["area"] for annotation in again.anns.values()]

    refused = call_script(TASK / "predict.py", *arguments, status=2)
    assert "exist already" in refused.stderr and "add --existing skip" in refused.stderr
    for name in failed:
        (photos / name).unlink()
    first.save(photos / "deep/c.png")
    done = call_script(TASK / "predict.py", *arguments, "--existing", "skip")
    assert "1 of 5 images searched, 4 were there already" in done.stdout
    one = (output / "detections.json").read_text()
    assert [image["file_name"] for image in json.loads(one)["images"]] == sorted([*by_name, "deep/c.png"])
    run_script(TASK / "predict.py", *arguments, "--existing", "replace", processes=2)
    assert (output / "detections.json").read_text() == one
    assert {path.name for path in output.iterdir()} == {"detections.json", "pictures"}


def test_four_images_can_be_learned(tmp_path: Path) -> None:
    """The loss falls to a third, and the boxes and masks of the training images are detected."""
    root = write_demo(tmp_path / "coco", training=5, validation=1)
    plain = ("--channels", 32, "--short-side", 80, "--long-side", 128, "--flip", 0, "--drop-path", 0, "--epochs", 40)
    plain += ("--steps-after", 34, "--batch-size", 4, "--learning-rate", 0.008, "--clip", 5, "--log-every", 5)
    plain += ("--regions-per-picture", 24, "--warmup-steps", 6, "--no-freeze-batch-norm")
    train(root, tmp_path / "run", *plain, "--save-every", 999)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < losses[0] / 3
    arguments = ("--checkpoint", tmp_path / "run/model", "--data-root", root, "--split", "train", "--workers", 0)
    call_script(TASK / "evaluate.py", *arguments, "--output", tmp_path / "scores")
    scores = {row.metric: row.value for row in read_rows(tmp_path / "scores/results.json")}
    assert scores["box AP50"] > 80 and scores["mask AP50"] > 80, scores


def test_a_truncated_image_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """The image is read in a loading process."""
    root = write_demo(tmp_path / "coco", training=2, validation=1)
    path = root / "train2017/000000000001.jpg"
    path.write_bytes(path.read_bytes()[:900])
    done = train(root, tmp_path / "run", "--max-steps", 1, "--workers", 1, status=2)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "000000000001.jpg: the image is truncated or damaged" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("problem", ["no data", "no root", "no file", "categories", "weights", "model"])
def test_bad_input_is_refused_before_the_first_step(tmp_path: Path, problem: str) -> None:
    script, root = SimpleNamespace(**runpy.run_path(str(TASK / "train.py"))), tmp_path / "coco"
    config = replace(PRESETS["retinanet_small"](), preset="retinanet_small", data_root=root, mixed_precision="no")
    pictures = open_split(write_demo(root, training=2, validation=1), "train")
    path = root / "annotations/instances_val2017.json"
    call: Any = lambda: script.datasets(config)  # noqa: E731
    if problem == "no data":
        config, words = replace(config, data_root=tmp_path / "nowhere"), "nowhere: the folder does not exist"
    elif problem == "no root":
        words = "--preset retinanet_small needs --data-root DIR"
        call = lambda: script.check(replace(config, data_root=None))  # noqa: E731
    elif problem == "no file":
        path.unlink()
        words = "instances_val2017.json: no such annotation file"
    elif problem == "categories":
        path.write_text(path.read_text().replace('"cup"', '"mug"'))
        words = "has other categories (47 mug instead of 47 cup)"
    elif problem == "weights":
        config, words = replace(config, model="biformer_tiny", weights=tmp_path / "gone.pth"), "gone.pth: no such file"
        call = lambda: script.starting_model(config, pictures)  # noqa: E731
    else:
        config, words = replace(config, model="biformer_huge"), "--model biformer_huge: no variant"
        call = lambda: script.starting_model(config, pictures)  # noqa: E731
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)


def test_images_without_objects_are_not_scored(trained: Path, coco: Path, tmp_path: Path) -> None:
    shutil.copytree(coco, tmp_path / "coco")
    path = tmp_path / "coco/annotations/instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    arguments = ("--checkpoint", trained, "--data-root", tmp_path / "coco", "--workers", 0)
    done = call_script(TASK / "evaluate.py", *arguments, status=2)
    assert "instances_val2017.json: has no object to score; annotate some" in done.stderr


def test_a_checkpoint_of_another_model_is_refused(trained: Path, coco: Path, tmp_path: Path) -> None:
    path: Any = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"architecture": "BiFormer"}))
    arguments = ("--checkpoint", path, "--data-root", coco)
    done = call_script(TASK / "evaluate.py", *arguments, status=2)
    assert "holds a BiFormer, expected a Detector" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py"])
def test_help_is_worth_reading(script: str) -> None:
    done = call_script(TASK / script, "--help")
    assert f"biformer/detection/{script}" in done.stdout and len(done.stdout.splitlines()) > 15
