"""What the benchmarks share: timing a step, and rows that are printed as they come and kept as CSV."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from common.files import atomic_path

Row = Mapping[str, object]


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock time of one call in seconds, with a GPU's work before and in it finished."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def print_rows(rows: Iterable[Row], columns: Sequence[str], output: Path | None) -> list[Row]:
    """Print rows as CSV while they are measured; write them to `output` at the end, atomically.

    Returns:
        the rows.
    """
    screen = csv.DictWriter(sys.stdout, columns)
    screen.writeheader()
    found = []
    for row in rows:
        screen.writerow(row)
        sys.stdout.flush()
        found.append(row)
    if output:
        with atomic_path(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(found)
    return found


def say(message: str) -> None:
    """Tell the reader what is being measured, beside the rows."""
    print(message, file=sys.stderr, flush=True)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
