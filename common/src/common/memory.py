"""Amounts of memory: sizes given as text, and the memory that `--memory` allows."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import torch

from common.errors import UserError

_UNITS = "KMGT"
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def parse_size(text: str, flag: str = "--memory") -> int:
    """Read a size with a unit, such as `800M`, `4G` or `1.5GiB`, as bytes, in powers of 1024.

    Args:
        flag: the flag that the error message names.

    Raises:
        UserError: the text is not a size with a unit, or the size is zero.
    """
    match = re.fullmatch(rf"(\d{{1,9}}(?:\.\d*)?|\.\d+)\s*([{_UNITS}])(i?B)?", text.strip(), flags=re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** (1 + _UNITS.index(match[2].upper()))) if match else 0
    if size < 1:
        raise UserError(f"{flag} {text}: expected a size with a unit, such as 800M or 4G")
    return size


def budget(text: str | None, device: torch.device | str = "cpu") -> int:
    """Return the bytes that `--memory` allows; by default a quarter of the memory of the GPU, container or machine.

    Raises:
        UserError: as `parse_size`.
    """
    if text is not None:
        return parse_size(text)
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    limit = _CONTAINER.read_text(encoding="utf-8").strip() if _CONTAINER.exists() else ""
    machine = psutil.virtual_memory().total
    return min(machine, int(limit) if limit.isdecimal() else machine) // 4
