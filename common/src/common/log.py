"""The scalars of a run: their means go to metrics.jsonl and TensorBoard; NaN and infinity stop the run."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor

from common import checkpoints
from common.errors import UserError
from common.files import atomic_path


class Log:
    """Collects the scalars of several steps and writes their means to the run's files.

    Args:
        accelerator: holds the trackers.
        folder: the run's folder.
        processes: number of processes over which scalars are averaged.
        is_main: whether this process writes.

    Attributes:
        pending: the scalars of the steps since the last line; checkpoints store them.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, *, processes: int, is_main: bool) -> None:
        self.pending: list[dict[str, Any]] = []
        self._accelerator, self._folder, self._processes, self._is_main = accelerator, folder, processes, is_main
        self._clock = time.monotonic()

    def add(self, **values: float | Tensor) -> None:
        """Collect the scalars of one step, without waiting for the device."""
        self.pending.append({name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()})

    def write(self, step: int, **values: float) -> None:
        """Write one line at once."""
        if self._is_main:
            with open(self._folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            self._accelerator.log(values, step=step)

    def flush(self, step: int, samples: int, *, quiet: bool) -> dict[str, float]:
        """Write the means of the pending scalars and the samples per second.

        Args:
            samples: number of samples of one step, in all processes.
            quiet: only check that all values are finite, write nothing.

        Returns:
            The means; empty if quiet or if nothing was pending.

        Raises:
            UserError: a scalar is not finite.
        """
        lines = self.collect(step)
        self.pending = []
        if not lines or quiet:
            return {}
        before, self._clock = self._clock, time.monotonic()
        means = {name: sum(line[name] for line in lines) / len(lines) for name in lines[0]}
        self.write(step, **means, samples_per_second=len(lines) * samples / (self._clock - before))
        return means

    def collect(self, step: int) -> list[dict[str, float]]:
        """Average the pending scalars over the processes and return them, one dict per step.

        Raises:
            UserError: a scalar is not finite.
        """
        if self.pending:
            names = list(self.pending[0])
            device = self._accelerator.device  # values are tensors, or numbers after a resume
            every = (line[name] for line in self.pending for name in names)
            values = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in every])
            values = values.view(-1, len(names))
            if self._processes > 1:
                values = self._accelerator.reduce(values, reduction="mean")
            collected = [dict(zip(names, line, strict=True)) for line in values.tolist()]
            for i, line in enumerate(collected):
                if not all(map(math.isfinite, line.values())):
                    self._refuse(step - len(collected) + 1 + i, line)
            self.pending = [*collected]
        return self.pending

    def cut(self, *, after: int) -> None:
        """Remove the lines that a killed run wrote after its last checkpoint; the resumed run writes them again."""
        path = self._folder / "metrics.jsonl"
        if self._is_main and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= after]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._clock = time.monotonic()

    def _refuse(self, step: int, line: dict[str, float]) -> NoReturn:
        found = ", ".join(f"{name} {value:g}" for name, value in line.items())
        kept = checkpoints.newest(self._folder / "checkpoints")
        raise UserError(
            f"training diverged at step {step} ({found}); "
            f"{f'{kept} is intact' if kept else 'no checkpoint was saved before it'}; "
            "lower --learning-rate or choose another --seed, with a new --output"
        )


def _step_of(line: str) -> float:
    """The step of a line of metrics.jsonl; infinite for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
