"""Detection networks, their presets and their scores, without the scripts."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from biformer import create_model
from biformer.dense import DenseBiFormer
from biformer.detection import Detector, load_detector
from biformer.detection.data import open_split
from biformer.detection.methods import AlignedRoIAlign
from biformer.detection.model import pasted
from biformer.detection.pictures import detection_sheet, draw_annotated
from biformer.detection.presets import PRESETS, Config
from biformer.detection.published import PUBLISHED
from biformer.detection.scoring import Scores, average_precision, rows, score

SMALL: dict[str, Any] = {"backbone": "biformer_tiny", "num_regions": 2, "depths": (1, 1, 1, 1), "channels": 16}


SMALL |= {"regions_per_picture": 16, "short_side": 64, "long_side": 96}


def detector(method: str = "mask_rcnn", **changes: Any) -> Detector:
    torch.manual_seed(0)
    names: dict[str, Any] = {"class_names": ["coin", "horse", "cup"], "category_ids": [3, 19, 47]}
    return Detector(**names, method=method, **SMALL | changes)


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


def test_batch_norms_stay_frozen_and_imagenet_weights_are_loaded(tmp_path: Path) -> None:
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


def test_a_saved_detector_detects_the_same(tmp_path: Path) -> None:
    model = detector().eval()
    model.save_pretrained(tmp_path)
    again = load_detector(tmp_path)
    assert (again.class_names, again.category_ids) == (model.class_names, model.category_ids)
    image = torch.rand(3, 60, 70)
    with torch.inference_mode():
        (ours,), (theirs,) = model([image]), again([image])
    assert len(ours["boxes"]) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_pooled_regions_are_aligned_to_pixel_centres() -> None:
    """If the value of a map is the centre of its column in pixels, the mean of a cell is the centre of the cell."""
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
    assert torch.equal(AlignedRoIAlign(size)(half, box, [(160, 160)]), full)  # boxes are not rounded to half precision


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
    """Returns the annotations (with crowd regions) like a detector; only a part of them, or moved by some pixels."""

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
    """100 if all annotations are found, less for every second one; if moved, less at IoU 0.75 than at 0.5."""
    pictures = open_split(coco, "train", masks=True)
    accelerator = Accelerator(cpu=True)
    perfect = score(Oracle(pictures), pictures, accelerator)  # type: ignore[arg-type]
    assert perfect.box == pytest.approx(dict.fromkeys(perfect.box, 100.0)) and perfect.pictures == 6
    assert "AP large" not in perfect.box  # there is no large object, so there is no value
    assert perfect.mask["AP50"] < 100  # the box of a horse is not its mask
    some = score(Oracle(pictures, keep=2), pictures, accelerator)  # type: ignore[arg-type]
    assert 20 < some.box["AP50"] < 90
    moved = score(Oracle(pictures, move=5.0), pictures, accelerator)  # type: ignore[arg-type]
    assert moved.box["AP75"] < moved.box["AP50"]
    nothing = average_precision([], pictures, detector())
    assert nothing.box["AP"] == 0 and nothing.mask["AP"] == 0


def test_detections_in_a_crowd_region_are_ignored(coco: Path) -> None:
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


def test_rows_have_both_published_values() -> None:
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
    """Parameters without the backbone equal those of mmdetection's R-50 detectors without theirs, for 80 classes."""
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


def test_the_second_stage_gets_the_best_proposals_only() -> None:
    found: list[list[Tensor]] = []
    for proposals in (7, 20):
        model = detector(proposals=proposals).eval()
        model.network.rpn.register_forward_hook(lambda _module, _inputs, outputs: found.append(outputs[0]))
        model([torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))])
    (few,), (many,) = found
    assert (len(few), len(many)) == (7, 20) and torch.equal(few[0], many[0])
    rpn = detector().network.rpn  # mmdetection's numbers
    assert [(rpn.train(mode).pre_nms_top_n(), rpn.post_nms_top_n()) for mode in (True, False)] == [
        (2000, 1000),
        (1000, 1000),
    ]


def test_the_learning_rate_warms_up_and_falls_twice() -> None:
    share = runpy.run_path(str(Path(__file__).parents[1] / "train.py"))["share_of_rate"]
    config = Config()
    rates = [share(config, done, 1000) for done in (0, 250, 500, 7999, 8000, 10999, 11000)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01])


def test_figures_show_boxes_and_masks(coco: Path, tmp_path: Path) -> None:
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
