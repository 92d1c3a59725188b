"""Learning-rate schedules: the factor of the initial learning rate as a function of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["cosine", "halving", "qrnn3d"]
HALVED_AFTER = (10, 50, 100, 150)
"""Epochs after which the released trainer halves the learning rate."""
QRNN3D = ((20, 0.1), (30, 1.0), (35, 0.1), (45, 0.01), (50, 1.0), (85, 0.1), (95, 0.01))
"""First epoch of each factor: σ 50 to epoch 30, blind to 50, complex noise to 100."""
WARM_UP = 50
"""Updates in which the learning rate of the cosine schedule rises linearly."""


def stage_starts(epochs: Sequence[int], updates: int) -> list[int]:
    """Return the first update of every stage, if all stages together have `updates`."""
    total = sum(epochs)
    return [round(sum(epochs[:i]) * updates / total) for i in range(len(epochs))]


def factor(schedule: Schedule, step: int, updates: int, epochs: Sequence[int], *, restart: bool) -> float:
    """Return the factor of the learning rate for update `step`, counted from 0.

    Args:
        schedule: "cosine" (to zero), "halving" (as in the released trainer), or "qrnn3d".
        updates: number of updates of all stages together.
        epochs: epochs of each stage.
        restart: whether cosine and halving start again at every stage.
    """
    epoch = step * sum(epochs) / updates
    if schedule == "qrnn3d":
        return next((value for first, value in reversed(QRNN3D) if epoch >= first), 1.0)
    length, first = updates, 0
    if restart:
        starts = [*stage_starts(epochs, updates), updates]
        stage = max(i for i in range(len(epochs)) if starts[i] <= min(step, updates - 1))
        length, first = starts[stage + 1] - starts[stage], starts[stage]
    if schedule == "halving":
        return 0.5 ** sum((step - first) * sum(epochs) / updates >= after for after in HALVED_AFTER)
    warm_up = min((step - first + 1) / min(WARM_UP, max(length // 4, 1)), 1)
    return warm_up * (0.5 + 0.5 * math.cos(math.pi * min((step - first) / length, 1)))
