"""The processes of one run, started by `torchrun`, `accelerate launch` or plain `python`.

On a machine without a GPU, accelerate by itself would not connect the processes that `torchrun` starts: each would
train a run of its own in the same folder. `prepare` makes them one run. On such a machine `accelerate launch
--num_processes 2` starts a single process; `prepare` prints a note about it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from common.environment import choose_device
from common.errors import UserError


def processes() -> int:
    """Number of processes that the launcher started for this run; known before any `Accelerator` exists."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def accelerator(
    *, mixed_precision: str = "no", cpu: bool = False, patience: timedelta = timedelta(minutes=10)
) -> Accelerator:
    """Connect this process with the others of its run; for scripts that have no `Run`, or before the `Run` exists.

    Args:
        mixed_precision: "no", "fp16" or "bf16"; the same in every call of a process.
        cpu: use no GPU.
        patience: longest time that one process waits for another.

    Raises:
        UserError: fp16 on a CPU.
    """
    prepare()
    handler = InitProcessGroupKwargs(timeout=patience)
    joined = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[handler])
    check_precision(mixed_precision, joined.device)
    return joined


def on_device(flag: str, **options: Any) -> tuple[Accelerator, torch.device]:
    """Connect this process with the others, and choose its device as `--device` says; each process gets its own GPU.

    Args:
        flag: value of `--device`, see `choose_device`.
        options: keywords of `accelerator`.

    Returns:
        the accelerator and this process's device.
    """
    chosen = choose_device(flag)
    joined = accelerator(cpu=chosen.type == "cpu", **options)
    return joined, joined.device if chosen.index is None else chosen


def check_precision(mixed_precision: str, device: torch.device) -> None:
    """Refuse a precision that accelerate would ignore without a message.

    Raises:
        UserError: fp16 on a CPU.
    """
    if mixed_precision == "fp16" and device.type == "cpu":
        raise UserError("--mixed-precision fp16: needs a GPU; on a CPU use bf16 or no")


def prepare() -> None:
    """Pass the launcher's settings on to accelerate; must run before the first `Accelerator` of a process."""
    if PartialState._shared_state:  # an Accelerator exists already
        return
    if processes() > 1 and not _has_gpu():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    asked = _asked_of_accelerate()
    if processes() == 1 and asked > 1 and not _has_gpu():
        print(
            f"note: without a GPU, accelerate launch --num_processes {asked} runs a single process; "
            f"for {asked} processes start with: torchrun --nproc-per-node {asked}",
            flush=True,
        )


def sync_batch_norm(model: nn.Module, processes: int, device: torch.device) -> nn.Module:
    """Return the network with BatchNorms that normalise over the samples of all processes, as one process would.

    On a CPU the network stays unchanged, because torch's SyncBatchNorm needs GPUs. Tensors keep their names.
    """
    shared = processes > 1 and device.type != "cpu"
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if shared else model


def use_all_cores(device: torch.device) -> None:
    """Undo `accelerate launch`'s default of one thread per process, on CPU only.

    `accelerate launch` sets OMP_NUM_THREADS to 1 if it is unset, so a machine with two cores would use only one.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if device.type == "cpu" and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_processes))


def _has_gpu() -> bool:
    """Whether each process can have its own GPU; Apple's GPU cannot be divided."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found is not None and found.type != "mps"


def _asked_of_accelerate() -> int:
    """The `--num_processes` of the `accelerate launch` that started this process; 1 without it."""
    try:
        words = psutil.Process().parent().cmdline()  # type: ignore[union-attr]
    except (psutil.Error, AttributeError):
        return 1
    if not any("launch" in word for word in words) or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return 1
    for position, word in enumerate(words):
        name, _, value = word.partition("=")
        if name.replace("_", "-") == "--num-processes":
            value = value or "".join(words[position + 1 : position + 2])
            return int(value) if value.isdecimal() else 1
    return 1
