"""Every flag of the trainer has an effect: with another value, three steps give other weights or other rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from common.results import read_rows
from fftformer import load_model
from fftformer.presets import Config, gopro_released
from support.precision import check_half_precision

NO_CLAIM = {"preset", "data_root", "output", "resume", "workers", "compile", "save_every", "log_every", "layout"}
"""Flags for the folder of the run, the folder of the data and the speed."""

ANOTHER = {
    # Values for flags where the value that `another` computes has no visible effect within three steps.
    "max_steps": 2,
    "mixed_precision": "bf16",
    "crop": 24,
    "model": "fftformer",
    "network": ("attention=none",),
    "final_learning_rate": 5e-4,
    "weight_decay": 0.5,
    "betas": (0.5, 0.7),
    "ema": 0.5,
    "validate_every": 1,
    "validation_pictures": 1,
}


BASE = ("--validation-pictures", 2)  # so that training pairs are left when they are held out


def another(field: dataclasses.Field[Any], weights: Path) -> list[str]:
    """The flag with a value other than the preset's."""
    flag, value = f"--{field.name.replace('_', '-')}", getattr(gopro_released(), field.name)
    if field.name == "weights":
        return [flag, str(weights)]
    if field.name in ANOTHER:
        value = ANOTHER[field.name]
        return [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    if isinstance(value, bool):
        return [flag.replace("--", "--no-", 1) if value else flag]
    if isinstance(value, str):
        return [flag, next(other for other in get_args(get_type_hints(Config)[field.name]) if other != value)]
    return [flag, str(value + 1 if isinstance(value, int) else value / 2)]


def trace(run: Path) -> tuple[Any, ...]:
    """The results of a run: its weights, its rows, its validation scores."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rows = [(row.metric, row.split, row.value) for row in read_rows(run / "results.json")]
    return load_model(run / "model").state_dict(), rows, [line for line in lines if "validation_psnr" in line]


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    weights = one[0].keys() == other[0].keys() and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    return weights and one[1:] == other[1:]


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    "field", [f for f in dataclasses.fields(Config) if f.name not in NO_CLAIM], ids=lambda f: f.name
)
def test_flag_acts(
    field: dataclasses.Field[Any], train: Callable[..., Path], known: dict[str, Any], tmp_path: Path
) -> None:
    if not known:
        known["base"] = trace(train(tmp_path / "base", *BASE))
        known["weights"] = train(tmp_path / "weights", "--seed", 7) / "model"
        assert same(known["base"], trace(train(tmp_path / "again", *BASE))), "the same flags must give the same run"
    assert not same(known["base"], trace(train(tmp_path / "other", *BASE, *another(field, known["weights"]))))


def test_the_list_of_flags_without_a_claim_is_no_longer_than_it_says() -> None:
    assert {field.name for field in dataclasses.fields(Config)} > NO_CLAIM


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--crop", 0), "--crop 0: expected"),
        (("--batch-size", 0), "--batch-size 0: expected"),
        (("--gradient-accumulation", 0), "--gradient-accumulation 0: expected"),
        (("--workers", -1), "--workers -1: expected"),
        (("--max-steps", 0), "--max-steps 0: expected"),
        (("--learning-rate", "nan"), "--learning-rate nan: expected"),
        (("--validation-pictures", 0), "--validation-pictures 0: expected"),
        (("--layout", "gopr"), "layout gopr does not exist"),
        (("--model", "fftformer_huge"), "--model fftformer_huge: no such variant"),
        (("--mixed-precision", "fp16"), "--mixed-precision fp16: "),
    ],
)
def test_values_that_cannot_be(
    flags: tuple[object, ...],
    message: str,
    train: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    train(tmp_path / "run", *flags, status=2)
    said = capfd.readouterr().err
    assert message in said.strip().splitlines()[-1] and "Traceback" not in said


def test_zero_means_never(train: Callable[..., Path], tmp_path: Path) -> None:
    run = train(tmp_path, "--log-every", 0, "--validate-every", 0)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_psnr" in line] == [3], "the last step is always validated"


def test_half_precision_trains_like_float32(train: Callable[..., Path], tmp_path: Path) -> None:
    check_half_precision(lambda name, *flags: train(tmp_path / name, *flags))
