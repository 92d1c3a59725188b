"""Sizes of memory as text, and peak memory of this process or of a GPU, for benchmarks.

On Linux the resident size's maximum (VmHWM) can be reset, so one step is measured, not everything
before it. Elsewhere it is the process's maximum so far (`ru_maxrss`). That one is no good on Linux:
it survives exec, so that a fresh process begins with the maximum of the one that started it.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import psutil
import torch

from common.errors import UserError

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

_UNITS = "KMGT"
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def parse_size(text: str, flag: str = "--memory") -> int:
    """Read a size with a unit, such as `800M`, `4G` or `1.5GiB`, as bytes, in powers of 1024.

    Args:
        flag: names the text in the error.

    Raises:
        UserError: no size, no unit, or nothing at all.
    """
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*([{_UNITS}])(i?B)?", text.strip(), flags=re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** (1 + _UNITS.index(match[2].upper()))) if match else 0
    if size < 1:
        raise UserError(f"{flag} {text}: expected a size with a unit, such as 800M or 4G")
    return size


def budget(text: str | None, device: torch.device | str = "cpu") -> int:
    """Bytes that a `--memory` flag allows; without the flag a quarter of the machine's or container's, or of the GPU's.

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


def reset_peak(device: torch.device | str = "cpu") -> int:
    """Forget the maximum so far; return the bytes in use now."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if _RESET.exists():
        _RESET.write_text("5", encoding="utf-8")
    return psutil.Process().memory_info().rss


def peak(device: torch.device | str = "cpu") -> int:
    """Largest number of bytes in use since `reset_peak`: resident ones on a CPU, allocated ones on a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if _RESET.exists():
        return int(_STATUS.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
