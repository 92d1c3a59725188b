"""Test blocks in networks of other libraries, from their weights to ONNX, on twelve drawn images: `nox -s recipes`.

Continuous integration does not run these tests, because they need Ultralytics (AGPL-3.0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F
from unet import UNet

from amgcfn.blocks import CAFMBlock
from biformer.blocks import BRABlock
from common.attach import attach, detach, gains
from essaformer.blocks import ESSABlock
from fftformer.blocks import FSASBlock
from lsgavit.blocks import LSGABlock

SIDE = 96
pytestmark = pytest.mark.filterwarnings("ignore")  # tracing warns about code of other libraries


@dataclass(frozen=True)
class Drawing:
    """A disc (class 0) or a square (class 1) on a noisy background."""

    picture: Tensor
    label: int
    box: tuple[int, int, int, int]
    mask: Tensor


def drawing(number: int) -> Drawing:
    random, label = np.random.default_rng(number), number % 2
    picture = Image.fromarray(random.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8))
    left, top = (int(value) for value in random.integers(4, SIDE // 2, 2))
    side = int(random.integers(24, SIDE // 2 - 6))
    box, mask = (left, top, left + side, top + side), Image.new("L", (SIDE, SIDE))
    for image, colour in ((picture, (230, 200, 60)), (mask, 1)):
        draw = ImageDraw.Draw(image)
        (draw.ellipse if label == 0 else draw.rectangle)(box, fill=colour)
    return Drawing(
        torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255, label, box, torch.from_numpy(np.array(mask))
    )


DRAWINGS = [drawing(number) for number in range(12)]
OTHER = drawing(99).picture  # not used in any export


@dataclass(frozen=True)
class Recipe:
    """A network, the layer behind which its block is attached, and its loss."""

    make: Callable[[], nn.Module]
    layer: str
    block: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Sequence[Drawing]], Tensor]


def batch(drawings: Sequence[Drawing]) -> Tensor:
    return torch.stack([one.picture for one in drawings])


def class_loss(network: nn.Module, drawings: Sequence[Drawing]) -> Tensor:
    return F.cross_entropy(network(batch(drawings)), torch.tensor([one.label for one in drawings]))


def feature_loss(network: nn.Module, drawings: Sequence[Drawing]) -> Tensor:
    """Use the means of the last map's first two channels as logits, as a classifier would."""
    logits = network(batch(drawings))[-1].mean(dim=(2, 3))[:, :2]
    return F.cross_entropy(logits, torch.tensor([one.label for one in drawings]))


def pixel_loss(network: nn.Module, drawings: Sequence[Drawing]) -> Tensor:
    return F.cross_entropy(network(batch(drawings)), torch.stack([one.mask for one in drawings]).long())


def detector_loss(network: nn.Module, drawings: Sequence[Drawing]) -> Tensor:
    targets = [{"boxes": torch.tensor([one.box]).float(), "labels": torch.tensor([one.label + 1])} for one in drawings]
    return torch.stack(list(network([one.picture for one in drawings], targets).values())).sum()


def detector() -> nn.Module:
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=SIDE, max_size=SIDE
    )


RECIPES = {
    "timm classifier": Recipe(
        lambda: timm.create_model("resnet18", num_classes=2), "layer3.1", lambda: BRABlock(256), class_loss
    ),
    "timm backbone": Recipe(
        lambda: timm.create_model("resnet18", features_only=True), "layer3", lambda: FSASBlock(256), feature_loss
    ),
    "torchvision detector": Recipe(
        detector, "backbone.fpn.layer_blocks.0", lambda: ESSABlock(256), detector_loss
    ),
    "segmentation-models-pytorch": Recipe(
        lambda: smp.Unet("resnet18", encoder_weights=None, classes=2),
        "encoder.layer3",
        lambda: CAFMBlock(256),
        pixel_loss,
    ),
    "own U-Net": Recipe(lambda: UNet(2), "middle", lambda: LSGABlock(64), pixel_loss),
}  # fmt: skip


def outputs(network: nn.Module, picture: Tensor) -> list[Tensor]:
    """Everything that the network returns for one image, as a flat list."""
    with torch.no_grad():
        found: Any = network.eval()(picture[None])
    found = list(found[0].values()) if isinstance(found, list) and isinstance(found[0], dict) else found
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    torch.manual_seed(0)
    torch.save(recipe.make().state_dict(), tmp_path / "pretrained.pth")  # in the library's published form

    network = recipe.make()
    network.load_state_dict(torch.load(tmp_path / "pretrained.pth"))
    before = outputs(network, OTHER)
    attach(network, recipe.layer, recipe.block())
    assert all(torch.equal(*pair) for pair in zip(outputs(network, OTHER), before, strict=True))

    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-3)
    for start in range(0, len(DRAWINGS), 4):
        optimizer.zero_grad()
        recipe.loss(network, DRAWINGS[start : start + 4]).backward()
        optimizer.step()
    assert gains(network)[recipe.layer] > 1e-4

    torch.save(network.state_dict(), tmp_path / "trained.pth")
    again = recipe.make()
    attach(again, recipe.layer, recipe.block())
    again.load_state_dict(torch.load(tmp_path / "trained.pth"))
    expected = outputs(network, OTHER)
    assert all(torch.equal(*pair) for pair in zip(outputs(again, OTHER), expected, strict=True))

    # A detector's number of boxes depends on the image, which the newer exporter does not support.
    torch.onnx.export(
        again, (DRAWINGS[0].picture[None],), tmp_path / "network.onnx", dynamo="detector" not in name, input_names=["x"]
    )
    found = onnxruntime.InferenceSession(tmp_path / "network.onnx").run(None, {"x": OTHER[None].numpy()})
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)


def test_yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    from ultralytics import YOLO
    from yolo import TrainerWithBlock

    for number, one in enumerate(DRAWINGS):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        pixels = (one.picture * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"data/images/{number}.png")
        left, top, right, bottom = (value / SIDE for value in one.box)
        line = f"{one.label} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"
        (tmp_path / f"data/labels/{number}.txt").write_text(line)
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path / 'data'}\ntrain: images\nval: images\nnames: [disc, square]\n")
    torch.manual_seed(0)
    YOLO("yolo11n.yaml").save(tmp_path / "yolo11n.pt")  # in the form of Ultralytics' weights for COCO

    # The trainer's network starts with all weights of the network without a block, except those of the classes.
    settings = {"data": str(data), "epochs": 1, "imgsz": SIDE, "batch": 4, "workers": 0, "device": "cpu",
                "project": str(tmp_path / "runs"), "name": "run", "plots": False, "amp": False}  # fmt: skip
    trainer = TrainerWithBlock(overrides={"model": str(tmp_path / "yolo11n.pt"), **settings})
    pretrained = YOLO(tmp_path / "yolo11n.pt").model
    network = trainer.get_model(pretrained.yaml, pretrained, verbose=False)
    state = network.state_dict()
    kept = [name for name, value in pretrained.state_dict().items() if torch.equal(state[name], value)]
    assert len(kept) >= len(pretrained.state_dict()) - 6
    with_block = outputs(network, OTHER)[0]
    detach(network, "model.10")
    assert torch.equal(outputs(network, OTHER)[0], with_block)

    model = YOLO(tmp_path / "yolo11n.pt")
    model.train(trainer=TrainerWithBlock, **settings)
    best = YOLO(model.trainer.best)
    assert gains(best.model)["model.10"] > 0
    expected = outputs(best.model.float(), OTHER)[0]
    exported = best.export(format="onnx", imgsz=SIDE)
    session = onnxruntime.InferenceSession(exported)
    (found,) = session.run(None, {session.get_inputs()[0].name: OTHER[None].numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_yolo_from_a_file_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block replaces a layer: its class is added to the names in which Ultralytics looks up layers."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    from ultralytics.nn import tasks
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    monkeypatch.setattr(tasks, "BRABlock", BRABlock, raising=False)
    layers = YAML.load(check_yaml("yolo11.yaml")) | {"scale": "n"}
    assert layers["backbone"][10] == [-1, 2, "C2PSA", [1024]]
    layers["backbone"][10] = [-1, 1, "BRABlock", [256]]
    network = tasks.DetectionModel(layers, nc=2, verbose=False)
    assert isinstance(network.model[10], BRABlock) and outputs(network, OTHER)[0].shape[1] == 6
