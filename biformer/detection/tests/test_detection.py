"""Annotations, targets, networks and scores of detection, without the scripts."""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from biformer import create_model
from biformer.dense import DenseBiFormer
from biformer.detection import Detector, load_detector
from biformer.detection.coco import run_counts
from biformer.detection.data import check_categories, open_split, run_lengths
from biformer.detection.demo import write_demo
from biformer.detection.model import AlignedRoIAlign, pasted
from biformer.detection.pictures import detection_sheet, draw_annotated
from biformer.detection.presets import PRESETS, Config
from biformer.detection.published import PUBLISHED
from biformer.detection.scoring import Scores, average_precision, rows, score
from biformer.detection.transforms import TrainingPictures, to_tensor, unstacked
from common.errors import UserError
from common.sampling import endless_loader

SMALL: dict[str, Any] = {"backbone": "biformer_tiny", "num_regions": 2, "depths": (1, 1, 1, 1), "channels": 16}
SMALL |= {"regions_per_picture": 16, "short_side": 64, "long_side": 96}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("coco"), training=6, validation=4)


def detector(method: str = "mask_rcnn", **changes: Any) -> Detector:
    torch.manual_seed(0)
    names: dict[str, Any] = {"class_names": ["coin", "horse", "cup"], "category_ids": [3, 19, 47]}
    return Detector(**names, method=method, **SMALL | changes)


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
    assert len(pictures) == 6 and len(pictures.for_training()) == 5  # the empty one is left out


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


def test_a_flip_moves_boxes_and_masks_with_the_picture_and_repeats_exactly(coco: Path) -> None:
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


def test_batches_hold_pictures_of_different_sizes(coco: Path) -> None:
    training = TrainingPictures(open_split(coco, "train", masks=True).for_training(), seed=0, masks=True)
    loader = iter(endless_loader(training, batch_size=3, workers=0, seed=0))
    images, targets = unstacked(next(loader))
    assert len({image.shape for image in images}) > 1
    for image, target in zip(images, targets, strict=True):
        assert image.ndim == 3 and image.min() >= 0 and image.max() <= 1
        assert target["masks"].shape == (len(target["labels"]), *image.shape[-2:])


@pytest.mark.parametrize("method", ["mask_rcnn", "retinanet"])
def test_every_parameter_learns_and_sizes_are_free(method: str) -> None:
    model = detector(method, drop_path_rate=0.1).train()
    images = [torch.rand(3, 50, 80), torch.rand(3, 70, 40)]
    targets = [
        {"boxes": torch.tensor([[5.0, 5, 40, 45]]), "labels": torch.tensor([2]), "masks": torch.ones(1, 50, 80).byte()},
        {"boxes": torch.tensor([[5.0, 9, 30, 60]]), "labels": torch.tensor([0]), "masks": torch.ones(1, 70, 40).byte()},
    ]
    losses = model(images, targets)
    assert isinstance(losses, dict)
    torch.stack(list(losses.values())).sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None and p.requires_grad}
    assert without == set()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    unused = {f"network.backbone.body.norms.0.{n}" for n in ("weight", "bias")} if method == "retinanet" else set()
    assert frozen == unused
    model.eval()
    for shape in ((3, 9, 300), (3, 300, 41)):
        with torch.inference_mode():
            (found,) = model([torch.rand(shape)])
        assert set(found) == {"boxes", "labels", "scores"} | ({"masks"} if method == "mask_rcnn" else set())
        assert bool((found["labels"] < 3).all()) and bool((found["labels"] >= 0).all())
        assert bool((found["boxes"][:, 2] <= shape[2]).all()) and bool((found["boxes"][:, 3] <= shape[1]).all())


def test_batch_norms_stay_frozen_and_imagenet_weights_arrive(tmp_path: Path) -> None:
    classifier = create_model("biformer_tiny", depths=(1, 1, 1, 1), num_classes=7)
    with torch.no_grad():
        for name, buffer in classifier.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-1, 1)
    classifier.save_pretrained(tmp_path)
    model = detector()
    model.body.load_classifier(tmp_path)
    ours, theirs = model.body.backbone.state_dict(), classifier.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    before = ours["stem.1.running_mean"].clone()
    model.train()
    target = {"boxes": torch.tensor([[5.0, 5, 40, 45]]), "labels": torch.tensor([2])}
    model([torch.rand(3, 64, 64)], [{**target, "masks": torch.ones(1, 64, 64).byte()}])
    assert torch.equal(model.body.backbone.state_dict()["stem.1.running_mean"], before)


def test_a_saved_detector_finds_the_same(tmp_path: Path) -> None:
    model = detector().eval()
    model.save_pretrained(tmp_path)
    again = load_detector(tmp_path)
    assert (again.class_names, again.category_ids) == (model.class_names, model.category_ids)
    image = torch.rand(3, 60, 70)
    with torch.inference_mode():
        (ours,), (theirs,) = model([image]), again([image])
    assert len(ours["boxes"]) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_pooled_regions_are_aligned_to_pixel_centres() -> None:
    """On a map whose value is its column's centre in pixels, a cell's mean is the centre of the cell."""
    stride, size = 4, 7
    column = stride * (torch.arange(40.0) + 0.5)
    maps = {"0": column.expand(1, 1, 40, 40)}
    maps |= {str(i): torch.zeros(1, 1, 40 >> i, 40 >> i) for i in (1, 2, 3)}
    (cells,) = AlignedRoIAlign(size)(maps, [torch.tensor([[10.0, 10, 94, 80]])], [(160, 160)])
    expected = 10 + 84 / size * (torch.arange(float(size)) + 0.5)
    assert torch.allclose(cells[0], expected.expand(size, size), atol=1e-4)
    half = {name: torch.rand(1, 1, *value.shape[-2:]).bfloat16() for name, value in maps.items()}
    box = [torch.tensor([[10.3, 10.7, 94.2, 80.1]])]
    full = AlignedRoIAlign(size)({name: value.float() for name, value in half.items()}, box, [(160, 160)])
    assert torch.equal(AlignedRoIAlign(size)(half, box, [(160, 160)]), full)  # boxes keep their precision


def test_a_pasted_mask_covers_its_share_of_the_box() -> None:
    half = torch.zeros(28, 28)
    half[:, :14] = 1
    inside = pasted(half, torch.tensor([10.0, 20, 50, 60]), 100, 90)
    ys, xs = inside.nonzero().unbind(1)
    assert inside.shape == (100, 90)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (10, 29, 20, 59)
    outside = pasted(torch.ones(28, 28), torch.tensor([-20.0, -20, 15, 15]), 100, 90)
    assert outside.sum() == 15 * 15


class Oracle(torch.nn.Module):
    """Returns the annotations, crowd regions too, in place of a detector; a share of them, or moved by pixels."""

    def __init__(self, pictures: Any, keep: int = 1, move: float = 0.0) -> None:
        super().__init__()
        self.model, self.pictures, self.keep, self.move, self.at = detector(), pictures, keep, move, 0
        self.method, self.category_ids, self.network = "mask_rcnn", self.model.category_ids, self.model.network

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        objects = self.pictures.objects[self.at]
        self.at += 1
        boxes = torch.from_numpy(objects.boxes[:: self.keep]) + self.move
        count = len(boxes)
        scores = torch.linspace(1, 0.5, count) if count else torch.zeros(0)
        labels = torch.from_numpy(objects.labels[:: self.keep])
        return [{"boxes": boxes, "labels": labels, "scores": scores, "masks": torch.ones(count, 28, 28)}]


def test_the_metric_is_cocos(coco: Path) -> None:
    """All annotations found: 100; every second one: less; moved by 8 pixels: less at 0.75 than at 0.5."""
    pictures = open_split(coco, "train", masks=True)
    accelerator = Accelerator(cpu=True)
    perfect = score(Oracle(pictures), pictures, accelerator)  # type: ignore[arg-type]
    assert perfect.box == pytest.approx(dict.fromkeys(perfect.box, 100.0)) and perfect.pictures == 6
    assert "AP large" not in perfect.box  # there is no such object, so no value
    assert perfect.mask["AP50"] < 100  # boxes are no horses
    some = score(Oracle(pictures, keep=2), pictures, accelerator)  # type: ignore[arg-type]
    assert 20 < some.box["AP50"] < 90
    moved = score(Oracle(pictures, move=5.0), pictures, accelerator)  # type: ignore[arg-type]
    assert moved.box["AP75"] < moved.box["AP50"]
    nothing = average_precision([], pictures, detector())
    assert nothing.box["AP"] == 0 and nothing.mask["AP"] == 0


def test_detections_in_a_crowd_count_neither_way(coco: Path) -> None:
    pictures = open_split(coco, "train", masks=True)
    content = json.loads(pictures.annotation_file.read_text())
    real = [a for a in content["annotations"] if not a["iscrowd"]]
    (crowd,) = [a for a in content["annotations"] if a["iscrowd"]]
    found = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for a in real]
    in_crowd = {**found[0], "image_id": crowd["image_id"], "category_id": 3, "bbox": crowd["bbox"], "score": 0.9}
    elsewhere = {**in_crowd, "image_id": pictures.ids[-1]}
    boxes = detector("retinanet")
    alone, with_crowd, wrong = (
        average_precision(results, pictures, boxes).box["AP"]
        for results in (found, [*found, in_crowd], [*found, elsewhere])
    )
    assert alone == pytest.approx(100) and with_crowd == pytest.approx(alone) and wrong < alone - 1


def test_rows_stand_beside_both_published_values() -> None:
    scores = Scores({"AP": 47.0, "AP50": 69.0}, {"AP": 42.0}, 5000)
    small = detector()
    small.variant = "biformer_small"
    written = rows(scores, detector=small, preset="p", seeds=[0], dataset="COCO 2017", split="validation")
    assert [(row.metric, row.published) for row in written] == [
        ("box AP", 47.8),
        ("box AP", 48.1),
        ("box AP50", None),
        ("mask AP", 43.2),
        ("mask AP", 43.6),
    ]
    elsewhere = rows(scores, detector=small, preset="p", seeds=[0], dataset="mine", split="validation")
    assert all(row.published is None for row in elsewhere)
    assert {key[1] for key in PUBLISHED} == {"biformer_small", "biformer_base"}


def test_presets_are_the_published_ones() -> None:
    assert list(PRESETS) == ["demo", "mask_rcnn_small", "mask_rcnn_base", "retinanet_small", "retinanet_base"]
    for name in list(PRESETS)[1:]:
        config = PRESETS[name]()
        assert (config.epochs, config.steps_after, config.warmup_steps, config.batch_size) == (12, (8, 11), 500, 2)
        assert (config.learning_rate, config.num_regions, config.freeze_batch_norm) == (1e-4, 16, True)
        assert config.drop_path == (0.3 if name.endswith("base") else 0.2)
        retinanet = name.startswith("retinanet")
        assert (config.weight_decay, config.decay_norms) == ((1e-4, True) if retinanet else (0.05, False))


def test_the_published_networks_have_their_heads() -> None:
    """Parameters beside the backbone: mmdetection's R-50 detectors without their backbone's, 80 classes."""
    with torch.device("meta"):
        names: dict[str, Any] = {"class_names": [str(i) for i in range(80)], "category_ids": list(range(80))}
        for method, outputs in (("mask_rcnn", 4), ("retinanet", 3)):
            model = Detector(**names, method=method)  # type: ignore[arg-type]
            backbone = sum(p.numel() for p in model.body.parameters())
            assert isinstance(model.body, DenseBiFormer) and backbone == 25_536_232 - 513_000 - 1024 + 2 * 960
            c = model.body.channels[-outputs:]
            pyramid = sum(c) * 256 + outputs * 256 + outputs * (9 * 256 * 256 + 256)
            conv = 9 * 256 * 256 + 256
            if method == "mask_rcnn":
                box = 12544 * 1024 + 1024 + 1024 * 1024 + 1024 + 1025 * (81 + 324)
                expected = pyramid + conv + 257 * 15 + box + 4 * conv + (256 * 256 * 4 + 256) + 257 * 81
            else:
                further = 9 * 512 * 256 + 256 + conv
                expected = pyramid + further + 8 * conv + (9 * 256 + 1) * 9 * 80 + (9 * 256 + 1) * 36
            assert sum(p.numel() for p in model.parameters()) - backbone == expected


def test_the_learning_rate_warms_up_and_falls_twice() -> None:
    share = runpy.run_path(str(Path(__file__).parents[1] / "train.py"))["share_of_rate"]
    config = Config()
    rates = [share(config, done, 1000) for done in (0, 250, 500, 7999, 8000, 10999, 11000)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01])


def test_pictures_show_boxes_and_masks(coco: Path, tmp_path: Path) -> None:
    pictures = open_split(coco, "train", masks=True)
    plain, drawn = np.array(pictures.read(0)).astype(int), np.array(draw_annotated(pictures, 0)).astype(int)
    factor = drawn.shape[0] // plain.shape[0]
    assert min(drawn.shape[:2]) >= 320
    plain = plain.repeat(factor, axis=0).repeat(factor, axis=1)
    changed = (plain != drawn).any(axis=2)
    assert changed[pictures.masks(0).any(axis=0).repeat(factor, axis=0).repeat(factor, axis=1)].mean() > 0.9
    outside = np.ones_like(changed)
    for left, top, right, bottom in (factor * pictures.objects[0].boxes).astype(int):
        outside[max(0, top - 30) : bottom + 2, max(0, left - 60) : right + 60] = False
    assert outside.any() and not changed[outside].any()
    path = detection_sheet(detector().eval(), pictures, torch.device("cpu"), tmp_path / "sheet.png", count=2)
    assert min(Image.open(path).size) > 300


def test_a_camera_picture_on_its_side_is_turned(coco: Path, tmp_path: Path) -> None:
    root = write_demo(tmp_path, training=1, validation=1)
    path = root / "train2017/000000000001.jpg"
    upright = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90°
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    read = open_split(root, "train").read(0)
    assert read.size == upright.size
    assert (to_tensor(read) - to_tensor(upright)).abs().mean() < 0.02


PROBLEMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "category": (lambda c: c["annotations"][0].update(category_id=5), "is of category 5, which the file does not list"),
    "picture": (lambda c: c["annotations"][0].update(image_id=1), "belongs to picture 1, which the file does not"),
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
    "no height": (lambda c: c["images"][0].update(height=0), "is 160x0 pixels; expected its real size"),
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
        "of a picture of [9, 9]",
    ),
    "runs that end early": (
        lambda c: c["annotations"][0].update(segmentation={"size": [128, 160], "counts": [5, 5]}),
        "all pixels counted",
    ),
    "runs of nothing": (
        lambda c: c["annotations"][0].update(segmentation={"size": [128, 160], "counts": None}),
        "the run lengths null",
    ),
    "images": (lambda c: c.pop("images"), "has no list of images"),
    "name": (lambda c: c["images"][0].pop("file_name"), "an entry of images has no file_name"),
    "twice": (lambda c: c["images"].append(c["images"][0]), "two entries of images have the same id"),
    "missing": (lambda c: c["images"][0].update(file_name="gone.jpg"), "pictures that instances_train2017.json lists"),
    "nothing": (lambda c: c["annotations"].clear(), "has an object to learn"),
    "size": (lambda c: c["images"][0].update(width=999), "says 999x128; copy the pictures"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_wrong_annotations_are_said_in_one_sentence(tmp_path: Path, problem: str) -> None:
    root = write_demo(tmp_path, training=2, validation=1)
    edit, words = PROBLEMS[problem]
    change(root, "train", edit)
    with pytest.raises(UserError) as caught:
        open_split(root, "train", masks=True).for_training().read(0)
    assert words in str(caught.value) and "instances_train2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


ANYTHING: list[Any] = [None, "", "x", -1, 0, 1.5, True, [], {}, [[]], [None], [[1, 2]], 10**400, float("nan")]
ANYTHING += [float("inf"), [1e300] * 4, [[0, 0, 1e9, 0, 9, 1e9]], {"size": [128, 160], "counts": "0" * 99}]


def test_no_entry_of_any_shape_ends_in_a_traceback(tmp_path: Path) -> None:
    """Every value of every entry, and every entry, replaced by anything: one sentence, or targets and scores."""
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
            assert bool(((right - left >= 1) & (bottom - top >= 1) & (left >= 0) & (right <= 176)).all())
            assert bool((target["labels"] < 3).all()) and len(target["masks"]) == len(target["labels"])
    assert read > 20  # what no one reads may be anything
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
    with pytest.raises(UserError, match="no such folder of pictures"):
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
