"""Annotations: reading, their use in training, and one-sentence errors for wrong ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from biformer import create_model
from biformer.detection import load_detector
from biformer.detection.annotations import check_categories, run_lengths
from biformer.detection.coco import run_counts
from biformer.detection.data import open_split
from biformer.detection.demo import write_demo
from biformer.detection.scoring import average_precision
from biformer.detection.transforms import TrainingPictures, to_tensor, unstacked
from common.errors import UserError
from common.sampling import endless_loader


def change(root: Path, split: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_reader_gives_boxes_masks_and_numbers_without_gaps(coco: Path) -> None:
    pictures = open_split(coco, "train", masks=True)
    assert (pictures.classes, pictures.category_ids) == (["coin", "horse", "cup"], [3, 19, 47])
    content = json.loads(pictures.annotation_file.read_text())
    assert pictures.crowds == 1 and pictures.degenerate == 0
    assert sum(len(found.labels) for found in pictures.objects) == len(content["annotations"]) - 1
    for index in range(len(pictures)):
        listed = [a for a in content["annotations"] if a["image_id"] == pictures.ids[index] and not a["iscrowd"]]
        objects, masks = pictures.objects[index], pictures.masks(index) if pictures.objects[index].shapes else []
        assert [pictures.category_ids[label] for label in objects.labels] == [a["category_id"] for a in listed]
        for annotation, mask, box in zip(listed, masks, objects.boxes, strict=True):
            assert mask.sum() == pytest.approx(annotation["area"], rel=0.06)
            ys, xs = np.nonzero(mask)
            extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert np.abs(np.array(extent) - box).max() <= 1
    assert len(pictures) == 6 and len(pictures.for_training()) == 5  # the image without objects is left out


def test_degenerate_boxes_are_dropped_and_border_crossing_ones_cut(coco: Path, tmp_path: Path) -> None:
    root = write_demo(tmp_path, training=2, validation=1)

    def edit(content: dict[str, Any]) -> None:
        first = content["annotations"][0]
        for number, box in enumerate(([10, 10, 0, 20], [500, 10, 20, 20], [10, 10, 0.5, 9], [-5, -5, 20, 20])):
            content["annotations"].append({**first, "id": 900 + number, "bbox": box})

    change(root, "train", edit)
    before, after = open_split(coco, "train"), open_split(root, "train")
    assert after.degenerate == 3
    assert len(after.objects[0].labels) == len(before.objects[0].labels) + 1
    assert after.objects[0].boxes[-1].tolist() == [0, 0, 15, 15]


def test_run_lengths_of_every_form_decode_alike() -> None:
    mask = np.zeros((8, 10), dtype=np.uint8)
    mask[2:6, 3:9] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    counts = [26, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 10]
    polygon = [np.array([3, 2, 9, 2, 9, 6, 3, 6.0])]
    for shape in (polygon, {"size": [8, 10], "counts": counts}, compressed):
        assert (coco_mask.decode(run_lengths(shape, 8, 10)) == mask).all()


def test_a_flip_moves_boxes_and_masks_with_the_image_and_can_be_repeated(coco: Path) -> None:
    pictures = open_split(coco, "train", masks=True).for_training()
    plain, flipped = (TrainingPictures(pictures, seed=1, flip=p, masks=True)[0, 0] for p in (0.0, 1.0))
    assert torch.equal(plain[0].flip(-1), flipped[0])
    assert torch.equal(plain[1]["masks"].flip(-1), flipped[1]["masks"])
    width = plain[0].shape[-1]
    assert torch.equal(flipped[1]["boxes"][:, [2, 0]], width - plain[1]["boxes"][:, [0, 2]])
    for mask, box in zip(flipped[1]["masks"], flipped[1]["boxes"], strict=True):
        columns = mask.any(dim=0).nonzero()
        assert abs(float(columns.min()) - box[0]) <= 1 and abs(float(columns.max()) + 1 - box[2]) <= 1
    half = TrainingPictures(pictures, seed=1, flip=0.5)
    kept = [torch.equal(half[epoch, 0][0], plain[0]) for epoch in range(12)]
    assert 0 < sum(kept) < 12
    assert kept == [torch.equal(half[epoch, 0][0], plain[0]) for epoch in range(12)]


def test_batches_have_images_of_different_sizes(coco: Path) -> None:
    training = TrainingPictures(open_split(coco, "train", masks=True).for_training(), seed=0, masks=True)
    loader = iter(endless_loader(training, batch_size=3, workers=0, seed=0))
    images, targets = unstacked(next(loader))
    assert len({image.shape for image in images}) > 1
    for image, target in zip(images, targets, strict=True):
        assert image.ndim == 3 and image.min() >= 0 and image.max() <= 1
        assert target["masks"].shape == (len(target["labels"]), *image.shape[-2:])


def test_an_image_with_an_orientation_is_turned(coco: Path, tmp_path: Path) -> None:
    root = write_demo(tmp_path, training=1, validation=1)
    path = root / "train2017/000000000001.jpg"
    upright = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right by 90°
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    read = open_split(root, "train").read(0)
    assert read.size == upright.size
    assert (to_tensor(read) - to_tensor(upright)).abs().mean() < 0.02


PROBLEMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "category": (lambda c: c["annotations"][0].update(category_id=5), "is of category 5, which the file does not list"),
    "picture": (lambda c: c["annotations"][0].update(image_id=1), "belongs to image 1, which the file does not"),
    "box": (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), "has the box [1, 2, -3, 4], expected left"),
    "box text": (lambda c: c["annotations"][0].update(bbox="no"), 'has the box "no", expected left'),
    "no shape": (lambda c: c["annotations"][0].pop("segmentation"), "has no segmentation, which Mask R-CNN needs"),
    "id text": (lambda c: c["images"][0].update(id="1"), 'images hold the id "1"; expected a whole number'),
    "id truth": (lambda c: c["images"][0].update(id=True), "images hold the id true; expected a whole number"),
    "refers to text": (lambda c: c["annotations"][0].update(image_id="1"), 'has the image_id "1"; expected a whole'),
    "refers to a list": (lambda c: c["annotations"][0].update(image_id=[1]), "has the image_id [1]; expected a whole"),
    "refers to nothing": (lambda c: c["annotations"][0].pop("image_id"), "has the image_id null; expected a whole"),
    "category text": (lambda c: c["annotations"][0].update(category_id="7"), 'has the category_id "7"; expected a'),
    "categories of text": (lambda c: c["categories"][0].update(id="7"), 'categories hold the id "7"; expected a'),
    "name of a number": (lambda c: c["categories"][0].update(name=7), "categories hold the name 7; expected text"),
    "file of a number": (lambda c: c["images"][0].update(file_name=7), "images hold the file_name 7; expected text"),
    "height text": (lambda c: c["images"][0].update(height="96"), 'images hold the height "96"; expected a whole'),
    "no height": (lambda c: c["images"][0].update(height=0), "is 128x0 pixels; expected its real size"),
    "no object": (lambda c: c["annotations"].insert(0, "x"), 'an entry of annotations is "x"; expected an object'),
    "null": (lambda c: c["images"].insert(0, None), "an entry of images is null; expected an object"),
    "crowd": (lambda c: c["annotations"][0].update(iscrowd="yes"), 'has iscrowd "yes"; expected 0 or 1'),
    "box truth": (lambda c: c["annotations"][0].update(bbox=[1, True, 3, 4]), "has the box [1, true, 3, 4], expected"),
    "box null": (lambda c: c["annotations"][0].update(bbox=None), "has the box null, expected left"),
    "box NaN": (lambda c: c["annotations"][0].update(bbox=[1, float("nan"), 3, 4]), "has the box [1, NaN, 3, 4]"),
    "odd polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]),
        "has the polygon [1, 2, 3]",
    ),
    "polygon text": (lambda c: c["annotations"][0].update(segmentation=[["a", 2]]), 'has the polygon ["a", 2]; expect'),
    "flat polygon": (
        lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4]),
        "the segmentation [1, 2, 3, 4]",
    ),
    "shape text": (
        lambda c: c["annotations"][0].update(segmentation="x"),
        'has the segmentation "x"',
    ),
    "runs of another size": (
        lambda c: c["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]}),
        "of an image of [9, 9]",
    ),
    "runs that end early": (
        lambda c: c["annotations"][0].update(segmentation={"size": [96, 128], "counts": [5, 5]}),
        "all pixels counted",
    ),
    "runs of nothing": (
        lambda c: c["annotations"][0].update(segmentation={"size": [96, 128], "counts": None}),
        "the run lengths null",
    ),
    "images": (lambda c: c.pop("images"), "has no list of images"),
    "name": (lambda c: c["images"][0].pop("file_name"), "an entry of images has no file_name"),
    "twice": (lambda c: c["images"].append(c["images"][0]), "two entries of images have the same id"),
    "missing": (lambda c: c["images"][0].update(file_name="gone.jpg"), "images that instances_train2017.json lists"),
    "nothing": (lambda c: c["annotations"].clear(), "has an object to learn"),
    "size": (lambda c: c["images"][0].update(width=999), "says 999x96; copy the images"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_wrong_annotations_are_refused_in_one_sentence(tmp_path: Path, problem: str) -> None:
    root = write_demo(tmp_path, training=2, validation=1)
    edit, words = PROBLEMS[problem]
    change(root, "train", edit)
    with pytest.raises(UserError) as caught:
        open_split(root, "train", masks=True).for_training().read(0)
    assert words in str(caught.value) and "instances_train2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


ANYTHING: list[Any] = [None, "", "x", -1, 0, 1.5, True, [], {}, [[]], [None], [[1, 2]], 10**400, float("nan")]


ANYTHING += [float("inf"), [1e300] * 4, [[0, 0, 1e9, 0, 9, 1e9]], {"size": [96, 128], "counts": "0" * 99}]


def test_no_entry_of_any_shape_ends_in_a_traceback(tmp_path: Path) -> None:
    """Replace every value and every entry by any JSON: the file is refused in one sentence, or can be used."""
    root = write_demo(tmp_path, training=2, validation=1)
    path = root / "annotations/instances_train2017.json"
    sound, read, sentences = json.loads(path.read_text()), 0, []
    places = [(part, None) for part in sound] + [(part, key) for part in sound for key in sound[part][0]]
    for (part, key), value in itertools.product(places, ANYTHING):
        content = json.loads(json.dumps(sound))
        if key is None:
            content[part][0] = value
        else:
            content[part][0][key] = value
        path.write_text(json.dumps(content))
        try:
            pictures = open_split(root, "train", masks=True)
            training = TrainingPictures(pictures.for_training(), seed=0, masks=True)
            targets = [training[0, index][1] for index in range(len(training))]
            scores = average_precision([], pictures, SimpleNamespace(method="mask_rcnn"))  # type: ignore[arg-type]
        except UserError as error:
            sentences.append(str(error))
            continue
        read += 1
        assert 0 <= scores.box["AP"] <= 100 and scores.mask
        for target in targets:
            left, top, right, bottom = target["boxes"].unbind(1)
            assert bool(((right - left >= 1) & (bottom - top >= 1) & (left >= 0) & (right <= 128)).all())
            assert bool((target["labels"] < 3).all()) and len(target["masks"]) == len(target["labels"])
    assert read > 20  # values that are not used can be anything
    assert len(sentences) > 100 and not [s for s in sentences if "\n" in s or len(s) > 600]


def test_run_lengths_as_text_are_counted_before_they_are_decoded() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = (random.random((17, 23)) < random.random()).astype(np.uint8)
        text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
        column_wise = np.concatenate([[0], mask.T.flatten(), [-1]])
        changes = np.flatnonzero(np.diff(column_wise)[:-1])
        assert run_counts(text) == np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    for damaged in ("a", "0 0", "o"):
        with pytest.raises(ValueError, match="count"):
            run_counts(damaged)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    root = write_demo(tmp_path / "coco", training=2, validation=1)
    for missing, words in (("nowhere", "the folder does not exist"), ("coco/val2017", "no such annotation file")):
        with pytest.raises(UserError, match=words):
            open_split(tmp_path / missing, "train")
    (root / "train2017").rename(root / "away")
    with pytest.raises(UserError, match="no such folder of images"):
        open_split(root, "train")
    (root / "annotations/instances_val2017.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        open_split(root, "validation")
    with pytest.raises(UserError, match=r"has other categories \(4 b instead of 3 b\)"):
        check_categories(["a", "b"], [1, 4], ["a", "b"], [1, 3], whose="here")
    file = tmp_path / "detector.pth"
    torch.save({}, file)
    with pytest.raises(UserError, match="released no detectors"):
        load_detector(file)
    create_model("biformer_tiny", depths=(1, 1, 1, 1)).save_pretrained(tmp_path / "classifier")
    with pytest.raises(UserError, match="holds a BiFormer, expected a Detector"):
        load_detector(tmp_path / "classifier")
