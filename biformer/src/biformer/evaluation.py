"""The flags that scoring shares over BiFormer's three tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Flags of every `evaluate.py`."""

    workers: int = 4
    """Loading processes per process."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast type of the forward pass."""
    device: str = "auto"
    """auto (a GPU if there is one, each process its own), cpu, cuda or cuda:1."""
