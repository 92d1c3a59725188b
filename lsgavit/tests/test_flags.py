"""Every flag of the trainer acts: with another value two or three steps give other weights or other results."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest
import torch
from training import NO_DATA, SMALL, forget_launcher, load_trainer, train, write_scenes

from lsgavit.presets import Config
from support.precision import check_half_precision

# Flags that claim no effect on a run's outcome, or (the scene's name, the list of seeds) are tried in other files.
NO_CLAIM = {"preset", "data_root", "output", "resume", "compile", "workers", "save_every", "log_every"} | {
    *("dataset", "seeds")
}
# What both runs need besides, so that the flag can act.
BESIDE: dict[str, dict[str, Any]] = {
    "epochs": {"schedule": "cosine"},
    "patience": {"validation": 0.1, "epochs": 4, "learning_rate": 0.05},
}
# Other values, where the type gives none; `{}` stands for the folder of the scenes.
OTHER: dict[str, Any] = {
    "seed": 1,
    "max_steps": 2,
    "gradient_accumulation": 2,
    "batch_size": 8,
    "mixed_precision": "bf16",
    "cube": "{}/two.npz:cube",
    "labels": "{}/one.npz:merged",
    "band_axis": "first",
    "no_data": NO_DATA,
    "split": "disjoint",
    "split_file": "{}/base/model/split.npz",
    "ratio": 0.3,
    "validation": 0.1,
    "components": 5,
    "window": 3,
    "model": "lsgavit_paper",
    "network": ("embed_dim=24",),
    "learning_rate": 1e-3,
    "epochs": 2,
    "schedule": "cosine",
    "ema": 0.9,
    "patience": 1,
}
# The first run of a split file differs from the second in the seed of the split alone.
BESIDE["split_file"] = {"seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flags")


@pytest.fixture(scope="module")
def scenes(folder: Path) -> dict[str, Any]:
    return write_scenes(folder)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_trainer(monkeypatch)


def outcome(trainer: ModuleType, folder: Path, flags: dict[str, Any]) -> tuple[Any, ...]:
    """Weights, scores, number of updates and names of figures; trained once for the same flags."""
    if not (folder / "scores.json").exists():
        train(trainer, folder, flags)
    weights = (folder / "model" / "model.safetensors").read_bytes()
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return weights, scores, sorted(path.name for path in (folder / "figures").iterdir())


def other_value(field: dataclasses.Field[Any], folder: Path) -> Any:
    if field.name in OTHER:
        value = OTHER[field.name]
        return value.format(folder) if isinstance(value, str) else value
    hint = get_type_hints(Config)[field.name]
    default = SMALL.get(field.name, field.default)
    if isinstance(default, bool):
        return not default
    return next(value for value in get_args(hint) if value != default)  # a Literal; any other kind belongs in OTHER


@pytest.mark.parametrize(
    "field", [field for field in dataclasses.fields(Config) if field.name not in NO_CLAIM], ids=lambda field: field.name
)
def test_the_flag_acts(
    field: dataclasses.Field[Any], trainer: ModuleType, folder: Path, scenes: dict[str, Any]
) -> None:
    base = outcome(trainer, folder / "base", scenes)
    beside = BESIDE.get(field.name, {})
    if beside:
        base = outcome(trainer, folder / f"base_{field.name}", scenes | beside)
    changed = outcome(trainer, folder / field.name, scenes | beside | {field.name: other_value(field, folder)})
    assert changed != base, f"--{field.name.replace('_', '-')} has no effect"


def test_the_same_flags_give_the_same(trainer: ModuleType, folder: Path, scenes: dict[str, Any]) -> None:
    """Without this, the test above would pass for a trainer whose runs always differ."""
    assert outcome(trainer, folder / "again", scenes) == outcome(trainer, folder / "base", scenes)


def test_flags_that_claim_nothing_change_nothing(trainer: ModuleType, folder: Path, scenes: dict[str, Any]) -> None:
    changed = outcome(trainer, folder / "other", scenes | {"workers": 1, "save_every": 2, "log_every": 3})
    assert changed == outcome(trainer, folder / "base", scenes)


def test_bfloat16_keeps_float32_weights(trainer: ModuleType, folder: Path, scenes: dict[str, Any]) -> None:
    weights = train(trainer, folder / "precise", scenes | {"mixed_precision": "bf16", "augmentation": True, "ema": 0.5})
    floating = [value for value in weights.values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}
    assert all(value.isfinite().all() for value in floating)


def test_the_launchers_precision_trains(
    trainer: ModuleType, folder: Path, scenes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --mixed_precision bf16` sets an environment variable; a second seed comes after the first."""
    flags = {**SMALL, **scenes, "seeds": "1 2", "max_steps": 1, "output": folder / "launched"}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in flags.items())
    monkeypatch.setattr(sys, "argv", [str(Path(__file__).parents[1] / "train.py"), *words.split()])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # 1 would mean that the launcher's default is to be undone
    forget_launcher()
    try:
        trainer.main()
    finally:
        forget_launcher()
    recorded = json.loads((folder / "launched" / "seed_2" / "config.json").read_text(encoding="utf-8"))["config"]
    assert recorded["mixed_precision"] == "bf16"
    assert (folder / "launched" / "results.json").exists()


def test_half_precision_trains_like_float32(trainer: ModuleType, folder: Path, scenes: dict[str, Any]) -> None:
    def run(name: str, flag: str, value: object) -> Path:
        train(trainer, folder / f"half_{name}", scenes | {flag.strip("-").replace("-", "_"): value})
        return folder / f"half_{name}"

    check_half_precision(run)
