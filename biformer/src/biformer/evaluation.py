"""The flags of `evaluate.py` that BiFormer's three tasks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.config import Workers


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """Flags of every `evaluate.py`."""

    workers: Workers[int] = 4
    """Number of loading processes for each process."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of autocast; no is float32."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one, and a different one in each process."""
