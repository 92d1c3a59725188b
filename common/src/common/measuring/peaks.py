"""Peak memory of this process or of a GPU.

On Linux the largest resident size so far (VmHWM) can be reset, so that one step is measured without
everything before it. Other systems use `ru_maxrss`; Linux does not, because there it survives `exec`: a new process
would start with its parent's value.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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
    """Return the largest number of bytes in use since `reset_peak`: resident on a CPU, allocated on a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if _RESET.exists():
        return int(_STATUS.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
