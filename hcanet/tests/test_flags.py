"""Every flag of the trainer does something: another value gives other weights, rows or metrics."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from conftest import QUICK, Verb
from hcanet import create_model
from hcanet.presets import Config
from support.precision import check_half_precision

# Where a run stands and how it is watched; `preset` only gives the others their defaults.
WITHOUT_CLAIM = {"preset", "data_root", "output", "resume", "workers", "save_every", "log_every", "compile"}
# What only ICVL has, which is too large for a test: tests/test_data.py cuts it both ways and reads the cache.
OF_ICVL = {"preparation", "cache"}
WEIGHTS, ROWS, METRICS = "weights", "rows", "metrics"
# Field → (flags of both runs, flags of the second, what differs).
OTHER: dict[str, tuple[tuple, tuple, str]] = {
    "seed": ((), ("--seed", 1), WEIGHTS),
    "max_steps": ((), ("--max-steps", 2), WEIGHTS),
    "batch_size": ((), ("--batch-size", 3), WEIGHTS),
    "mixed_precision": ((), ("--mixed-precision", "bf16"), WEIGHTS),
    "gradient_accumulation": ((), ("--gradient-accumulation", 2), WEIGHTS),
    "model": (("--max-steps", 1), ("--model", "hcanet"), WEIGHTS),
    "dim": ((), ("--dim", 10), WEIGHTS),
    "bands": ((), ("--bands", 5), WEIGHTS),
    "eigen_images": ((), ("--eigen-images", 4), WEIGHTS),
    "local_mix": ((), ("--local-mix", "pixel"), WEIGHTS),
    "network": ((), ("--network", "feed_forward=plain"), WEIGHTS),
    "weights": ((), ("--weights", "{weights}"), WEIGHTS),
    "dataset": ((), ("--dataset", "demo"), WEIGHTS),
    "cube": ((), ("--cube", "{other}"), WEIGHTS),
    "band_axis": (("--cube", "{square}"), ("--band-axis", "first"), WEIGHTS),
    "no_data": ((), ("--no-data", 5.0), WEIGHTS),
    "scaling": ((), ("--scaling", "minmax"), WEIGHTS),
    "order": ((), ("--order", "case5", "case1"), WEIGHTS),
    "epochs": ((), ("--epochs", 1, 3), WEIGHTS),
    "crops": ((), ("--crops", 16, 8), WEIGHTS),
    "iterations": ((), ("--iterations", 5), WEIGHTS),
    "sigma": ((), ("--sigma", 20), WEIGHTS),
    "framework": ((), ("--framework", "mafnet"), WEIGHTS),
    "crop": ((), ("--crop", 12), WEIGHTS),
    "stride": ((), ("--stride", 3), WEIGHTS),
    "augment": ((), ("--no-augment",), WEIGHTS),
    "reverse_bands": ((), ("--no-reverse-bands",), WEIGHTS),
    "loss": ((), ("--loss", "l2"), WEIGHTS),
    "gradient_weight": ((), ("--gradient-weight", 0), WEIGHTS),
    "gradient_form": ((), ("--gradient-form", "released"), WEIGHTS),
    "gradient_reduction": ((), ("--gradient-reduction", "mean"), WEIGHTS),
    "learning_rate": ((), ("--learning-rate", 3e-3), WEIGHTS),
    "schedule": ((), ("--schedule", "halving"), WEIGHTS),
    "restart": ((), ("--no-restart",), WEIGHTS),
    "validate_every": ((), ("--validate-every", 2), METRICS),
    "test_cases": ((), ("--test-cases", "case2"), ROWS),
    "noise_seed": ((), ("--noise-seed", 1), ROWS),
    "test_noise": ((), ("--test-noise", "plain"), ROWS),
}


@dataclasses.dataclass
class Left:
    """The results of a run."""

    weights: str
    rows: list
    metrics: list


@pytest.fixture(scope="module")
def files(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    cube = np.load(scene)
    np.save(folder / "other.npy", np.sqrt(cube))
    np.save(folder / "square.npy", np.random.default_rng(0).random((40, 44, 40)))
    create_model("hcanet_light", dim=8, bands=6).save_pretrained(folder / "weights")
    return {name: folder / name for name in ("other.npy", "square.npy", "weights")} | {"scene": scene}


runs: dict[tuple, Left] = {}


def train(verb: Verb, folder: Path, flags: tuple, files: dict[str, Path]) -> Left:
    """Train once per set of flags."""
    if flags not in runs:
        named = {"weights": files["weights"], "other": files["other.npy"], "square": files["square.npy"]}
        filled = [str(flag).format(**named) for flag in flags]
        cube = () if "--dataset" in filled else ("--cube", files["scene"])
        verb("train", *cube, *QUICK, *filled, "--output", folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows = [
            (row["dataset"], row["metric"], row["value"]) for row in json.loads((folder / "results.json").read_text())
        ]
        runs[flags] = Left(
            hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(),
            rows,
            [{k: v for k, v in line.items() if k != "samples_per_second"} for line in lines],
        )
    return runs[flags]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("field", OTHER)
def test_another_value_changes_something(field: str, verb: Verb, files: dict[str, Path], tmp_path: Path) -> None:
    common, other, where = OTHER[field]
    base = train(verb, tmp_path / "base", common, files)
    changed = train(verb, tmp_path / "changed", common + other, files)
    assert getattr(base, where) != getattr(changed, where)
    if where != WEIGHTS:
        assert base.weights == changed.weights


def test_no_field_is_forgotten() -> None:
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == set(OTHER) | WITHOUT_CLAIM | OF_ICVL


@pytest.mark.usefixtures("undrawn")
def test_half_precision_trains_like_float32(verb: Verb, files: dict[str, Path], tmp_path: Path) -> None:
    def run(name: str, *flags: object) -> Path:
        verb("train", "--cube", files["scene"], *QUICK, *flags, "--output", tmp_path / name)
        return tmp_path / name

    check_half_precision(run)
