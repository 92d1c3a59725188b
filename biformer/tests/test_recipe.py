"""The published updates of the three trainers, written out in PyTorch, give the weights that they export."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from timm.data.mixup import Mixup
from torch import Tensor, nn

from biformer import create_model
from biformer.augmentation import TrainingPictures, training_transform
from biformer.detection.data import open_split
from biformer.detection.model import Detector
from biformer.detection.transforms import TrainingPictures as DetectionPictures
from biformer.layouts import open_both
from biformer.presets import imagenet_tiny
from biformer.segmentation.augmentation import Augmentation, TrainingScenes
from biformer.segmentation.data import open_scenes
from biformer.segmentation.model import Segmenter
from common.config import to_json
from common.sampling import EndlessSampler

SEED, UPDATES, BATCH = 3, 3, 2


def compare(run: Path, name: str, expected: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """The exported weights equal the expected ones, which changed by much more than the tolerance."""
    exported = load_file(run / name / "model.safetensors")
    assert exported.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(exported[key], value, rtol=0, atol=2e-5, msg=key)
    assert max((expected[key].float() - start[key].float()).abs().max().item() for key in expected) > 2e-3


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def decayed(model: nn.Module, spared: Callable[[str, Tensor], bool]) -> list[dict[str, object]]:
    """Parameters with and without weight decay, both in the order of the network."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if not spared(name, p)]},
        {"params": [p for name, p in named if spared(name, p)], "weight_decay": 0.0},
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def test_classification(train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path) -> None:
    """AdamW 5e-4 per 512 images, warm-up, cosine, mixup or CutMix, soft targets, averaged weights."""
    flags = ("--seed", SEED, "--gradient-accumulation", 2, "--warmup-epochs", 1, "--epochs", 3, "--clip", 5.0)
    run = train("classification", tmp_path, *flags)

    config = SimpleNamespace(**to_json(imagenet_tiny()) | {"image_size": 32})
    pictures = open_both(folders["classification"], upright=False)[0]
    data = TrainingPictures(pictures, training_transform(config), SEED)
    keys = iter(EndlessSampler(len(data), batch_size=BATCH, seed=SEED))
    set_seed(SEED)
    model = create_model(
        "biformer_tiny", num_classes=3, num_regions=2, drop_path_rate=0.1, image_size=32, class_names=pictures.classes
    ).train()
    optimizer = torch.optim.AdamW(
        decayed(model, lambda name, p: p.ndim <= 1 or name.endswith(".bias")), weight_decay=0.05
    )
    mix = Mixup(0.8, 1.0, prob=1.0, label_smoothing=0.1, num_classes=3)
    full, last, per_epoch, updates = 0.5 * BATCH * 2 / 512, 1e-5, len(data) // (BATCH * 2), 3 * 3
    start, average = copied(model), copied(model)
    for update in range(UPDATES):
        rate = 1e-6 + (full - 1e-6) * update / per_epoch
        if update >= per_epoch:
            rate = last + (full - last) * (1 + math.cos(math.pi * update / updates)) / 2
        set_rate(optimizer, rate)
        for _ in range(2):
            items = [data[next(keys)] for _ in range(BATCH)]
            images, targets = mix(torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items]))
            loss = -(targets * model(images).log_softmax(dim=1)).sum(dim=1).mean()
            (loss / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        now = copied(model)
        floating = {name: value.is_floating_point() for name, value in now.items()}
        # The average begins with the weights after the first update.
        average = {n: 0.9 * average[n] + 0.1 * v if floating[n] and update else v for n, v in now.items()}
    compare(run, "model", now, start)
    compare(run, "model_ema", average, start)


def test_segmentation(train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path) -> None:
    """AdamW 6e-5, no weight decay for norms, linear decay after a warm-up, cross-entropy of two heads."""
    run = train("segmentation", tmp_path, "--seed", SEED, "--clip", 1.0)
    scenes = open_scenes(folders["segmentation"], "training")
    data = TrainingScenes(scenes, Augmentation(32, (0.5, 2.0), 0.75, flip=0.5, distort=True), SEED)
    keys = iter(EndlessSampler(len(data), batch_size=BATCH, seed=SEED))
    set_seed(SEED)
    model = Segmenter(
        "biformer_tiny", "upernet", num_classes=len(scenes.classes), num_regions=2, head_width=8, dropout=0.1,
        drop_path_rate=0.3, freeze_batch_norm=False, class_names=list(scenes.classes), image_size=32, size_divisor=1,
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(decayed(model, lambda name, _: "norm" in name), weight_decay=0.01)
    start = copied(model)
    for update in range(UPDATES):
        warm = 1 - (1 - update / 2) * (1 - 1e-6) if update < 2 else 1.0
        set_rate(optimizer, 1e-2 * (1 - update / 8) * warm)
        items = [data[next(keys)] for _ in range(BATCH)]
        model(torch.stack([item[0] for item in items]), torch.stack([item[1] for item in items])).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    compare(run, "model", copied(model), start)


def test_the_loss_of_segmentation_by_hand(folders: dict[str, Path]) -> None:
    """Mean cross-entropy over all pixels (0 for unlabelled ones), plus 0.4 times that of the auxiliary head."""
    from biformer.segmentation.model import pixel_loss

    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    labels = torch.tensor([[[0, 255]]])
    assert pixel_loss(logits, labels).item() == pytest.approx(math.log1p(math.exp(-2.0)) / 2)


def test_detection(train: Callable[..., Path], folders: dict[str, Path], tmp_path: Path) -> None:
    """AdamW 1e-4 per 16 images, warm-up from a thousandth, sum of the five losses of Mask R-CNN."""
    run = train("detection", tmp_path, "--seed", SEED, "--clip", 1.0, "--steps-after", 1)
    pictures = open_split(folders["detection"], "train", masks=True).for_training()
    data = DetectionPictures(pictures, seed=SEED, flip=0.5, masks=True)
    keys = iter(EndlessSampler(len(data), batch_size=BATCH, seed=SEED))
    set_seed(SEED)
    model = Detector(
        class_names=pictures.classes, category_ids=pictures.category_ids, method="mask_rcnn",
        backbone="biformer_tiny", num_regions=2, depths=None, drop_path_rate=0.2, freeze_batch_norm=True, channels=8,
        regions_per_picture=8, short_side=64, long_side=96,
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(decayed(model, lambda name, _: "norm" in name), weight_decay=0.05)
    per_epoch, start = max(1, len(data) // BATCH), copied(model)
    for update in range(UPDATES):
        rate = 0.05 * BATCH / 16 * min(1.0, 0.001 + 0.999 * update / 2) * (0.1 if update >= per_epoch else 1.0)
        set_rate(optimizer, rate)
        items = [data[next(keys)] for _ in range(BATCH)]
        losses = model([item[0] for item in items], [item[1] for item in items])
        total(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    compare(run, "model", copied(model), start)


def total(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def test_layer_decay_by_hand(train: Callable[..., Path], tmp_path: Path) -> None:
    """The first AdamW step of a block is the learning rate times 0.5 for every block after it."""
    steps = {}
    for decay in (1.0, 0.5):
        flags = ("--seed", SEED, "--layer-decay", decay, "--warmup-epochs", 0, "--max-steps", 1, "--weight-decay", 0)
        moved = load_file(train("classification", tmp_path / str(decay), *flags) / "model" / "model.safetensors")
        torch.manual_seed(SEED)
        steps[decay] = {
            name: (moved[name] - value).abs().median()
            for name, value in create_model("biformer_tiny", num_classes=3, num_regions=2).state_dict().items()
            if name.endswith("mlp.fc1.weight")
        }
    shares = [(steps[0.5][name] / steps[1.0][name]).item() for name in steps[1.0]]
    # Four blocks and the classifier: the last block is one layer below the classifier.
    assert [round(math.log2(share)) for share in shares] == sorted(round(math.log2(share)) for share in shares)
    assert shares[0] < shares[-1] < 1
