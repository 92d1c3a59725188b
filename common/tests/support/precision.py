"""Compare training in half precision with float32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.amp import GradScaler

from common import launch, run


def check_half_precision(train: Callable[..., Path], *, alike: float = 0.7, losses: float = 0.05) -> None:
    """Check a few updates in bfloat16, and in float16 with a scaled loss.

    Losses are finite and near those of float32, and the weights move in the same direction. Updates whose gradients
    overflow do not change weights, but count.

    Args:
        train: name of a folder, flags → the run's folder.
        alike: least cosine between the two changes of the weights. Adam's first steps change every weight by the
            learning rate, so the cosine is below one if rounding changes the sign of small gradients.
        losses: largest relative difference of a loss from that of float32.
    """
    still, precise, rounded = (
        train("still", "--learning-rate", 1e-12),
        train("precise", "--mixed-precision", "no"),
        train("bf16", "--mixed-precision", "bf16"),
    )
    with float16_on_cpu(scale=2.0**10) as scalers:
        scaled = train("fp16", "--mixed-precision", "fp16")
    assert scalers[-1].get_scale() == 2.0**10, "an update was left out"
    start, exact = _weights(still), _weights(precise)
    expected = exact - start
    for half in (rounded, scaled):
        moved = _weights(half) - start
        assert moved.isfinite().all() and not torch.equal(moved, expected)
        cosine = (moved @ expected / (moved.norm() * expected.norm())).item()
        assert cosine > alike, f"{half.name}: the moves have a cosine of {cosine:.2f}"
        assert 0.7 < (moved.norm() / expected.norm()).item() < 1.4, half.name
        for mine, theirs in zip(_recorded(half, "loss"), _recorded(precise, "loss"), strict=True):
            assert abs(mine - theirs) < losses * abs(theirs), f"{half.name}: loss {mine}, {theirs} in float32"
    with float16_on_cpu(scale=2.0**100) as scalers:
        overflowed = train("overflow", "--mixed-precision", "fp16")
    steps = _recorded(overflowed, "step")
    assert scalers[-1].get_scale() == 2.0 ** (100 - len(steps)), "the scale is halved once per update"
    # Not exactly: a warm-up or a cosine's end may have a rate of its own, by which the weights of `still` move.
    assert (_weights(overflowed) - start).norm() < 0.05 * expected.norm()
    assert steps == _recorded(precise, "step")
    assert _recorded(overflowed, "learning_rate") == _recorded(precise, "learning_rate")


@contextmanager
def float16_on_cpu(scale: float) -> Iterator[list[GradScaler]]:
    """Enable "fp16" on a CPU, where accelerate would ignore it: autocast and loss scaling as on a GPU.

    Args:
        scale: scale of the first update's loss.

    Yields:
        The scalers, in the order in which runs make them.
    """
    scalers = []

    class OnCpu(Accelerator):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            if self.mixed_precision == "fp16":
                self.native_amp, self.scaler = True, GradScaler("cpu", init_scale=scale)
                scalers.append(self.scaler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Accelerator", OnCpu)
        patch.setattr(launch, "Accelerator", OnCpu)
        patch.setattr(launch, "check_precision", lambda *_: None)
        yield scalers


def _weights(folder: Path) -> Tensor:
    found = load_file(folder / "model" / "model.safetensors")
    trained = [value for name, value in sorted(found.items()) if value.is_floating_point() and "running" not in name]
    return torch.cat([value.double().flatten() for value in trained])


def _recorded(folder: Path, name: str) -> list[float]:
    """A value of every update; a run need not record it."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    lines = [line for line in lines if "loss" in line]
    assert len(lines) > 1
    return [line[name] for line in lines if name in line]
