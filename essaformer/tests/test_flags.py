"""Every flag of the trainer has an effect: another value gives other weights, other rows or other lines."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from common.results import read_rows
from essaformer import create_model, load_model
from essaformer.presets import Config
from support.precision import check_half_precision

NO_EFFECT_ON_RESULTS = {
    "preset", "data_root", "output", "resume", "compile", "workers", "save_every", "log_every",
    "gradient_checkpointing",  # less memory; tests/test_model.py shows that the gradients stay
}  # fmt: skip
"""Fields that must not change results, or that name files and folders."""
OTHER: dict[str, tuple[object, ...]] = {
    "model": ("essaformer",),
    "network": ("refinements=1",),
    "weights": ("WEIGHTS",),
    "dataset": ("demo",),
    "cube": ("OTHER",),
    "band_axis": ("first",),
    "no_data": (2000.0,),  # a value of some bands of many pixels
    "test_scene": ("abu-airport-2",),
    "scale": (4,),
    "scaling": ("maximum",),
    "scaling_value": (90.0,),
    "mixed_precision": ("bf16",),
    "dropout": (0.5,),
    "global_residual": (False,),
    "order": (2,),
    "dim": (8,),
    "crop": (16,),
    "stride": (12,),
    "schedule": ("step",),
    "spatial_tv": (1.0,),
    "spectral_tv": (1.0,),
    "max_steps": (1,),
    "learning_rate": (1e-2,),
    "iterations": (4,),
    "epochs": (1,),
    "validate_every": (1,),
}
"""Another value for fields whose type does not suggest one."""
BASE = {
    "preset": "abu_x2", "dim": 4, "crop": 12, "stride": 1, "batch_size": 2, "workers": 0, "log_every": 1,
    "iterations": 3, "validate_every": 0,
}  # fmt: skip
SMALL_EPOCHS = {"iterations": 0, "epochs": 2, "stride": 12}  # few patches, so that epochs are short
BEFORE = {
    "dataset": {"cube": None, "data_root": "ABU", "crop": 16},
    "test_scene": {"cube": None, "data_root": "ABU", "batch_size": 16},
    "epochs": SMALL_EPOCHS,
    "spectral_tv": {"learning_rate": 1e-2},
    "spatial_tv": {"learning_rate": 1e-2},
}
"""Further flags for both command lines, for flags that act only together with others."""


def other_value(field: dataclasses.Field) -> tuple[object, ...]:
    """Another value: the table's, or for a number twice the value and one."""
    if field.name in OTHER:
        return OTHER[field.name]
    now = BASE.get(field.name, field.default)
    assert isinstance(now, int | float), f"{field.name}: say in OTHER what to try"
    return (2 * now + 1,)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import scipy.io

    from essaformer.scenes import ABU

    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for name in ("SCENE", "OTHER"):
        # As many bands as rows, so that the scene can be read with its bands first too.
        np.save(folder / f"{name}.npy", rng.integers(1, 4000, (48, 40, 48)).astype(np.int16)[..., :48])
    for name in ABU:
        scipy.io.savemat(folder / f"{name}.mat", {"data": rng.integers(1, 4000, (48, 48, 40)).astype(np.int16)})
    torch.manual_seed(5)
    create_model("essaformer_small", bands=48, dim=4, scale=2).save_pretrained(folder / "WEIGHTS")
    return {name: folder / f"{name}.npy" for name in ("SCENE", "OTHER")} | {
        "WEIGHTS": folder / "WEIGHTS",
        "ABU": folder,
    }


class Outcomes:
    """Return the results of a run; each command line runs once."""

    def __init__(self, verb, places: dict[str, Path], folder: Path) -> None:
        self.verb, self.places, self.folder = verb, places, folder
        self.known: dict[tuple, tuple] = {}

    def __call__(self, values: dict[str, object]) -> tuple:
        key = tuple(sorted((name, str(value)) for name, value in values.items()))
        if key not in self.known:
            self.known[key] = self.run(values, self.folder / str(len(self.known)))
        return self.known[key]

    def run(self, values: dict[str, object], output: Path) -> tuple:
        flags: list[object] = ["--output", output]
        for name, value in values.items():
            if value is not None:
                flags += [f"--{name.replace('_', '-')}", self.places.get(str(value), value)]
        self.verb("train", *flags, draws=False)
        weights = {name: value.tolist() for name, value in load_model(output).state_dict().items()}
        rows = [(row.dataset, row.split, row.metric, row.value) for row in read_rows(output / "results.json")]
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return weights, rows, [line["step"] for line in lines if "validation_psnr" in line]


@pytest.fixture(scope="module")
def outcome(verb, places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return Outcomes(verb, places, tmp_path_factory.mktemp("runs"))


FIELDS = [field for field in dataclasses.fields(Config) if field.name not in NO_EFFECT_ON_RESULTS]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_another_value_gives_other_results(field: dataclasses.Field, outcome: Outcomes) -> None:
    base = BASE | {"cube": "SCENE"} | BEFORE.get(field.name, {})
    (value,) = other_value(field)
    weights, rows, validated = outcome(base)
    other_weights, other_rows, other_validated = outcome(base | {field.name: value})
    if field.name == "validate_every":  # it acts on what is written, not on the weights
        assert validated != other_validated
        return
    assert weights != other_weights, f"--{field.name} {value} changes no weight"
    assert rows != other_rows


def test_what_must_not_change_results_is_a_field() -> None:
    names = {field.name for field in dataclasses.fields(Config)}
    assert names >= NO_EFFECT_ON_RESULTS and names >= set(OTHER)
    assert typing.get_type_hints(Config).keys() == names


def test_half_precision_trains_like_float32(outcome: Outcomes, tmp_path: Path) -> None:
    base = [f"--{name.replace('_', '-')}={value}" for name, value in BASE.items() if value is not None]

    def run(name: str, *flags: object) -> Path:
        cube = ("--cube", outcome.places["SCENE"])
        outcome.verb("train", *base, *cube, "--log-every", 1, *flags, "--output", tmp_path / name, draws=False)
        return tmp_path / name

    check_half_precision(run)
