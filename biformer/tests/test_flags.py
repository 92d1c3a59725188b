"""Every flag of the three trainers has an effect: with another value, three updates give other weights or rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file

from biformer import presets
from biformer.detection import presets as detection_presets
from biformer.segmentation import presets as segmentation_presets
from common.results import read_rows
from support.precision import check_half_precision

CONFIGS: dict[str, tuple[type, Callable[[], Any]]] = {
    "classification": (presets.Config, presets.imagenet_tiny),
    "segmentation": (segmentation_presets.Config, segmentation_presets.upernet_small),
    "detection": (detection_presets.Config, detection_presets.mask_rcnn_small),
}

NO_CLAIM = {"preset", "data_root", "output", "resume", "workers", "compile", "save_every", "log_every"}
"""Flags for the folder of the run, the folder of the data and the speed."""
NO_CLAIM |= {"grad_checkpointing"}  # the same results with less memory
NO_CLAIM |= {
    "dataset",
    "split_file",
    "holdout",
    "strict",
    "upright",
}  # they select images, see test_data.py and test_protocol.py

ANOTHER: dict[str, Mapping[str, object]] = {
    # Values for flags where the value that `another` computes has no visible effect within three updates.
    "classification": {
        **{"max_steps": 2, "mixed_precision": "bf16", "model": "biformer_small", "image_size": 40, "num_regions": 1},
        **{"network": ("lepe=False",)},
        **{"batch_size": 4},  # images are mixed in pairs
        **{"epochs": 3, "cooldown_epochs": 2, "warmup_epochs": 2, "warmup_learning_rate": 0.1, "layer_decay": 0.5},
        **{"final_learning_rate": 0.4, "weight_decay": 50.0, "clip": 1e-3, "auto_augment": "", "repeats": 2},
        **{
            "drop_path": 0.9,
            "mixing": 0.0,
            "cutmix": 0.0,
            "erasing": 1.0,
            "flip": 0.0,
            "ema": 0.1,
            "validate_epochs": 2,
        },
    },
    "segmentation": {
        **{"max_steps": 2, "mixed_precision": "bf16", "model": "biformer_small", "head": "semantic_fpn"},
        **{"image_size": 40, "size_divisor": 24, "scale": (0.9, 1.1), "category_share": 0.1, "flip": 0.0},
        **{"warmup_iterations": 3, "weight_decay": 50.0, "clip": 1e-3, "drop_path": 0.9, "num_regions": 1},
        **{"final_share": 0.5, "validate_every": 1, "schedule": "cosine"},
    },
    "detection": {
        **{"max_steps": 2, "mixed_precision": "bf16", "model": "biformer_small", "num_regions": 1, "short_side": 80},
        **{"depths": (1, 1, 2, 1), "long_side": 80, "steps_after": (0,), "warmup_steps": 3, "weight_decay": 50.0},
        **{"clip": 1e-3, "drop_path": 0.9, "flip": 0.0, "validate_epochs": 1, "epochs": 1, "proposals": 4},
    },
}
WITH: dict[str, tuple[object, ...]] = {
    # Other flags that are needed for a flag to have an effect.
    "colour_jitter": ("--auto-augment", ""),
    "smoothing": ("--mixup", 0, "--cutmix", 0),
    "final_share": ("--schedule", "cosine"),
    "final_learning_rate": ("--warmup-epochs", 0),
    "cooldown_epochs": ("--max-steps", 100),
    "epochs": ("--max-steps", 100),
    "validate_epochs": ("--max-steps", 100),
    "long_side": ("--short-side", 96),
}


def another(task: str, field: dataclasses.Field[Any], weights: Path) -> list[object]:
    """The flag with a value other than the preset's."""
    config, preset = CONFIGS[task]
    flag, value = f"--{field.name.replace('_', '-')}", getattr(preset(), field.name)
    if field.name == "weights":
        return [flag, weights]
    if field.name in ANOTHER[task]:
        value = ANOTHER[task][field.name]
        return [flag, *(value if isinstance(value, tuple) else (value,))]
    if isinstance(value, bool):
        return [flag.replace("--", "--no-", 1) if value else flag]
    if isinstance(value, str):
        return [flag, next(other for other in get_args(get_type_hints(config)[field.name]) if other != value)]
    if value is None:
        return [flag, 16]
    return [flag, value + 1 if isinstance(value, int) else value / 2]


def trace(run: Path) -> tuple[Any, ...]:
    """The results of a run: its weights, its rows, its validation scores."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rows = [(row.metric, row.definition, row.value) for row in read_rows(run / "results.json")]
    tensors = {path.parent.name: load_file(path) for path in run.glob("model*/model.safetensors")}
    weights = {f"{folder}.{name}": value for folder, found in tensors.items() for name, value in found.items()}
    return weights, rows, [line for line in lines if any(key.startswith("validation") for key in line)]


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    weights = one[0].keys() == other[0].keys() and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    return weights and one[1:] == other[1:]


@pytest.fixture(scope="module")
def known() -> dict[Any, Any]:
    return {}


CASES = [
    pytest.param(task, field, id=f"{task}-{field.name}")
    for task, (config, _) in CONFIGS.items()
    for field in dataclasses.fields(config)
    if field.name not in NO_CLAIM
]


@pytest.mark.parametrize(("task", "field"), CASES)
def test_flag_acts(
    task: str, field: dataclasses.Field[Any], train: Callable[..., Path], known: dict[Any, Any], tmp_path: Path
) -> None:
    needed = WITH.get(field.name, ()) if task != "detection" or field.name != "epochs" else ()
    if task == "detection" and field.name == "validate_epochs":
        needed = ()
    if (task, needed) not in known:
        known[task, needed] = trace(train(task, tmp_path / "base", *needed))
    if "weights" not in known:
        known["weights"] = train("classification", tmp_path / "weights", "--seed", 7) / "model"
    changed = trace(train(task, tmp_path / "other", *needed, *another(task, field, known["weights"])))
    assert not same(known[task, needed], changed)


@pytest.mark.parametrize("task", CONFIGS)
def test_the_same_flags_give_the_same_run(task: str, train: Callable[..., Path], tmp_path: Path) -> None:
    assert same(trace(train(task, tmp_path / "one")), trace(train(task, tmp_path / "two")))
    assert {field.name for field in dataclasses.fields(CONFIGS[task][0])} - NO_CLAIM


LARGER: dict[str, tuple[object, ...]] = {
    # The last BatchNorm normalises two single pixels to ±1, and their signs depend on rounding.
    "classification": ("--image-size", 64, "--batch-size", 4),
    # Which regions are sampled depends on rounding too, so all are used.
    "detection": ("--regions-per-picture", 512),
}


@pytest.mark.parametrize("task", CONFIGS)
def test_half_precision_trains_like_float32(task: str, train: Callable[..., Path], tmp_path: Path) -> None:
    losses = 0.1 if task == "detection" else 0.05
    check_half_precision(
        lambda name, *flags: train(task, tmp_path / name, *LARGER.get(task, ()), *flags), losses=losses
    )
