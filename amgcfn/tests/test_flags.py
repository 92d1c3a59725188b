"""Every flag of the trainer has an effect: another value exports other weights or writes other rows."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amgcfn.data
from amgcfn.presets import Config
from common.hyperspectral.scene import make_scene
from conftest import same, weights

# They say where things are, how often something is written, or how fast it goes.
WITHOUT_CLAIM = {"preset", "data_root", "output", "resume", "compile", "save_every", "log_every"}

# Flags that only act beside others, with these.
BESIDE: dict[str, dict[str, Any]] = {
    "seed": {"seeds": ()},
    "distance": {"split": "disjoint", "ratio": 0.02},
    "dataset": {"cube": None, "labels": None, "dataset": "salinas_a", "data_root": Path("somewhere")},
    "band_axis": {"band_axis": "last"},
}
OTHER: dict[str, Any] = {
    "dataset": "houston2018_crop",
    "band_axis": "first",
    "no_data": 1000.0,
    "seeds": (2,),
    "split": "disjoint",
    "distance": 4,
    "components": 2,
    "network": ("fusion=sum",),
    "max_steps": 1,
    "epochs": 1,
    "validate_every": 4,
}


def _outcome(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    (exported,) = folder.rglob("model.safetensors")
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return weights(exported.parent), [{k: row[k] for k in ("value", "split", "seeds")} for row in rows]


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.name not in WITHOUT_CLAIM])
def test_another_value_has_an_effect(name, train, tiny_config, tiny_scene, monkeypatch):
    tmp_path = tiny_config.output.parent
    config = replace(tiny_config, epochs=5, **BESIDE.get(name, {}))
    value = getattr(config, name)
    if name in ("cube", "labels"):
        stored = np.load(value)
        np.save(tmp_path / "other.npy", np.flip(stored, axis=1) if name == "cube" else np.where(stored == 2, 3, stored))
        other: Any = str(tmp_path / "other.npy")
    elif name in OTHER:
        other = OTHER[name]
    elif isinstance(value, bool):
        other = not value
    else:  # numbers: one more, or a little more; a flag of another type needs a line in OTHER
        other = value + 1 if isinstance(value, int) else 1.5 * value
    assert other != value

    def named_scene(dataset: str, root: Path):
        cube = tiny_scene.cube if dataset == "salinas_a" else tiny_scene.cube[:, ::-1].copy()
        return make_scene(dataset, cube, tiny_scene.labels)

    monkeypatch.setattr(amgcfn.data, "load_scene", named_scene)
    if name == "band_axis":  # as many bands as columns and rows, so that both readings are possible
        cube = np.random.default_rng(0).integers(0, 3000, (30, 30, 30))
        np.save(tmp_path / "square.npy", cube)
        np.save(tmp_path / "square_labels.npy", 1 + np.mgrid[:30, :30][0] // 10)
        config = replace(config, cube=str(tmp_path / "square.npy"), labels=str(tmp_path / "square_labels.npy"))
    before = _outcome(train(config, output=tmp_path / "before"))
    after = _outcome(train(config, output=tmp_path / "after", **{name: other}))
    assert not same(before[0], after[0]) or before[1] != after[1]


def test_the_same_flags_give_the_same_weights_and_rows(train, tiny_config, tmp_path):
    first, second = (_outcome(train(tiny_config, output=tmp_path / name)) for name in ("first", "second"))
    assert same(first[0], second[0]) and first[1] == second[1]
