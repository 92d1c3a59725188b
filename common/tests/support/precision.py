"""Training in half precision beside float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def check_half_precision(train: Callable[..., Path], *, alike: float = 0.7, losses: float = 0.05) -> None:
    """A few updates in bfloat16 have finite losses near float32's and move the weights the same way.

    Args:
        train: name of a folder, flags → the run's folder.
        alike: the least cosine between the two moves. Adam's first steps have the length of the learning rate in
            every weight, so small gradients whose sign is lost in rounding keep it below one.
        losses: how far a loss may be from float32's, relative to it.
    """
    still, precise, half = (
        train("still", "--learning-rate", 1e-12),
        train("precise", "--mixed-precision", "no"),
        train("half", "--mixed-precision", "bf16"),
    )
    start, exact, rounded = (_weights(run) for run in (still, precise, half))
    moved, expected = rounded - start, exact - start
    assert rounded.isfinite().all() and not torch.equal(rounded, exact)
    cosine = (moved @ expected / (moved.norm() * expected.norm())).item()
    assert cosine > alike, f"the moves have a cosine of {cosine:.2f}"
    assert 0.7 < (moved.norm() / expected.norm()).item() < 1.4
    for mine, theirs in zip(_losses(half), _losses(precise), strict=True):
        assert abs(mine - theirs) < losses * abs(theirs), f"loss {mine} in bfloat16, {theirs} in float32"


def _weights(run: Path) -> Tensor:
    found = load_file(run / "model" / "model.safetensors")
    trained = [value for name, value in sorted(found.items()) if value.is_floating_point() and "running" not in name]
    return torch.cat([value.double().flatten() for value in trained])


def _losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = [line["loss"] for line in lines if "loss" in line]
    assert len(found) > 1
    return found
