"""The processes of one run, started by `torchrun`, `accelerate launch` or plain `python`.

On a machine without GPU accelerate alone would let the processes of `torchrun` train side by side, each a run of
its own in the same folder. Here they are one run. `accelerate launch --num_processes 2` starts a single process
there; a note says so.
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
    """Join the other processes of this run; for scripts and for what a script does before its `Run`.

    Args:
        mixed_precision: "no", "fp16" or "bf16"; the same in every call of a process.
        cpu: use no GPU.
        patience: how long one process may wait for another.

    Raises:
        UserError: fp16 on a CPU.
    """
    prepare()
    handler = InitProcessGroupKwargs(timeout=patience)
    joined = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[handler])
    check_precision(mixed_precision, joined.device)
    return joined


def on_device(flag: str, **options: Any) -> tuple[Accelerator, torch.device]:
    """Join the other processes, and choose this one's device as `--device` says; each process gets its own GPU.

    Args:
        flag: see `choose_device`.
        options: of `accelerator`.
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
    if PartialState._shared_state:  # there is one already
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
    """The network with BatchNorms that normalise over the samples of all processes, as if one process had them all.

    On a CPU it stays as it is: torch's SyncBatchNorm needs GPUs. Names of tensors and parameters stay the same too.
    """
    shared = processes > 1 and device.type != "cpu"
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if shared else model


def use_all_cores(device: torch.device) -> None:
    """Undo `accelerate launch`'s default of one thread per process, on CPU only.

    It sets OMP_NUM_THREADS to 1 when that is unset, and a two-core machine would train on one.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if device.type == "cpu" and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // beside))


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
