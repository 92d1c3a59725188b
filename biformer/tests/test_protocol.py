"""Splits and scores: which images train, which select weights, and the published protocols computed by hand."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from biformer import create_model, load_model, scoring
from biformer.segmentation.model import load_segmenter
from common.results import read_rows
from conftest import PROJECT, SCRIPTS
from support.scripts import run_here

CHOSEN_BY = {
    "classification": ("top-1", ("validation_top1", "validation_top1_ema"), ("--validate-epochs", 1)),
    "segmentation": ("mIoU", ("validation_mIoU",), ("--validate-every", 1)),
    "detection": ("box AP", ("validation_box_AP",), ("--validate-epochs", 1)),
}
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def script(task: str, verb: str) -> Path:
    return PROJECT / SCRIPTS[task].replace("train", verb)


def damage(task: str, root: Path) -> None:
    """Replace the validation labels by wrong ones."""
    if task == "classification":
        (root / "val/cat").rename(root / "val/now")
        (root / "val/grass").rename(root / "val/cat")
        (root / "val/now").rename(root / "val/grass")
    elif task == "segmentation":
        for path in (root / "annotations/validation").glob("*.png"):
            Image.fromarray(255 - np.asarray(Image.open(path)) > 250).convert("L").point(bool).save(path)
    else:
        path = root / "annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["bbox"], annotation["segmentation"] = [0, 0, 9, 9], [[0, 0, 9, 0, 9, 9]]
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("task", CHOSEN_BY)
def test_wrong_validation_labels_change_no_trained_weight(
    task: str, train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders[task], tmp_path / "data")
    damage(task, tmp_path / "data")
    exported = [
        load_file(train(task, tmp_path / name, root=root) / "model/model.safetensors")
        for name, root in (("sound", folders[task]), ("nonsense", tmp_path / "data"))
    ]
    assert all(torch.equal(value, exported[1][name]) for name, value in exported[0].items())


@pytest.mark.parametrize("task", CHOSEN_BY)
def test_the_kept_weights_have_the_best_recorded_score(
    task: str, train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    metric, names, flags = CHOSEN_BY[task]
    run = (
        train(task, tmp_path / "run", *flags, "--max-steps", 12, "--epochs", 4)
        if task != "segmentation"
        else train(task, tmp_path / "run", *flags, "--max-steps", 6)
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    recorded = [max(line[name] for name in names) for line in lines if names[0] in line]
    assert len(recorded) >= 2
    command = ["--checkpoint", run / "model_best", "--data-root", folders[task], "--output", tmp_path / "scores"]
    assert run_here(script(task, "evaluate"), *command) == 0
    (path,) = (tmp_path / "scores").rglob("results.json")
    measured = {row.metric: row.value for row in read_rows(path)}
    assert measured[metric] == pytest.approx(max(recorded), abs=1e-4)


@pytest.mark.parametrize("better", ["model", "model_ema"])
def test_the_better_of_raw_and_averaged_weights_are_kept(
    better: str, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Raw and averaged weights are scored in turns; the scores in this test are invented."""
    order = itertools.cycle([90.0, 10.0] if better == "model" else [10.0, 90.0])
    monkeypatch.setattr(scoring, "score", lambda *_, **__: scoring.Scores(next(order), None, 1.0, 6, 0))
    run = train("classification", tmp_path / "run", "--ema", 0.5, "--validate-epochs", 1, "--epochs", 1)
    kept, *both = (load_file(run / name / "model.safetensors") for name in ("model_best", "model", "model_ema"))
    equal = [all(torch.equal(value, each[name]) for name, value in kept.items()) for each in both]
    assert equal == [better == "model", better == "model_ema"]


def test_a_split_file_keeps_training_and_validation_apart(
    train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = train("classification", tmp_path / "run", "--holdout", 0.5, root=folders["classification"] / "train")
    split = json.loads((run / "split.json").read_text())
    assert len(split["train"]) == len(split["validation"]) == 6
    assert not set(split["train"]) & set(split["validation"])
    assert "6 images" in read_rows(run / "results.json")[0].split


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """An image that is wider than high, with an EXIF orientation that turns it."""
    rows, columns = np.mgrid[:50, :90]
    image = np.stack([rows * 5, columns * 2, (rows * columns) % 256], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photographs" / "turned.png"
    path.parent.mkdir()
    Image.fromarray(image).save(path, exif=exif)
    return path


def test_the_crop_of_imagenet_and_the_orientation_by_hand(photograph: Path, tmp_path: Path) -> None:
    """Turned upright, shorter side resized to 64 / 0.8 = 80 pixels (bicubic), centre crop of 64, normalised."""
    torch.manual_seed(0)
    names = ["a", "b", "c"]
    model = create_model("biformer_tiny", num_classes=3, depths=(1, 1, 1, 1), dims=(32, 64, 128, 256), num_regions=2,
                         image_size=64, crop_pct=0.8, class_names=names)  # fmt: skip
    torch.nn.init.normal_(model.head.fc.weight, std=0.5)
    model.eval().save_pretrained(tmp_path / "model")
    output = tmp_path / "labels.csv"
    command = ["--checkpoint", tmp_path / "model", "--input", photograph.parent, "--output", output]
    assert run_here(PROJECT / "predict.py", *command) == 0
    (line,) = csv.DictReader(output.open())

    upright = Image.open(photograph).transpose(Image.Transpose.ROTATE_270)
    assert upright.size == (50, 90)
    resized = np.asarray(upright.resize((80, 144), Image.Resampling.BICUBIC)).astype(float) / 255
    crop = (resized[40:104, 8:72] - MEAN) / DEVIATION
    with torch.no_grad():
        shares = load_model(tmp_path / "model")(torch.from_numpy(crop).float().permute(2, 0, 1)[None]).softmax(dim=1)[0]
    expected = sorted(zip(shares.tolist(), names, strict=True), reverse=True)
    found = [(float(line[f"probability{suffix}"]), line[f"class{suffix}"]) for suffix in ("", " 2", " 3")]
    assert [name for _, name in found] == [name for _, name in expected]
    assert [share for share, _ in found] == pytest.approx([share for share, _ in expected], abs=1e-3)


def test_multi_scale_segmentation_by_hand(train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path) -> None:
    """Mean class probability over six scales and their mirror images, each enlarged to the size of the image."""
    run = train("segmentation", tmp_path / "run")
    source = sorted((folders["segmentation"] / "images/validation").glob("*"))[0]
    command = ["--checkpoint", run / "model", "--input", source, "--output", tmp_path / "out", "--multi-scale"]
    assert run_here(script("segmentation", "predict"), *command) == 0
    found = np.asarray(Image.open(tmp_path / "out" / f"{source.stem}_labels.png"))

    model = load_segmenter(run / "model")
    image = torch.from_numpy(np.array(Image.open(source))).permute(2, 0, 1)
    height, width = image.shape[1:]
    total = torch.zeros(model.num_classes, height, width)
    for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        short = int(32 * scale)
        factor = short / min(height, width)
        size = (int(height * factor + 0.5), int(width * factor + 0.5))
        view = F.interpolate(image[None].float(), size, mode="bilinear").round()
        x = (view / 255 - torch.from_numpy(MEAN).float().view(3, 1, 1)) / torch.from_numpy(DEVIATION).float().view(
            3, 1, 1
        )
        for mirrored in (False, True):
            with torch.no_grad():
                logits = model(x.flip(-1)).flip(-1) if mirrored else model(x)
            logits = F.interpolate(F.interpolate(logits, size, mode="bilinear"), (height, width), mode="bilinear")
            total += logits[0].softmax(dim=0)
    # Resized images are rounded to 8 bits by different rules, so a few pixels can get another class.
    assert (found == total.argmax(dim=0).numpy() + 1).mean() > 0.98
