"""What a result depends on besides its configuration: command, commit, versions, device."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError

_PACKAGES = ("torch", "accelerate", "numpy", "scipy", "scikit-image", "scikit-learn", "timm")


def choose_device(text: str) -> torch.device:
    """Return the device that a `--device` flag names.

    Args:
        text: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        UserError: another name, no usable GPU, or a number that no GPU of this machine has.
    """
    name, _, number = text.partition(":")
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    # Digits only: "cuda:-1" and "cuda:" are no numbers, and isdigit alone would take "²".
    if name != "cuda" or (text != "cuda" and not (number.isascii() and number.isdigit())):
        raise UserError(f"--device {text}: no such device; expected auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UserError(f"--device {text}: this machine has no usable GPU; use --device cpu or auto")
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        raise UserError(f"--device {text}: this machine has {count} GPU(s), numbered from 0; use cuda:{count - 1}")
    return torch.device(text)


def command_line() -> str:
    """Return the command that started this process, as one would type it from the repository's root.

    A process cannot see the flags of its launcher; it only knows the number of processes.
    """
    script = Path(sys.argv[0])
    root = _checkout()
    if root and script.resolve().is_relative_to(root):
        script = script.resolve().relative_to(root)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    launcher = "python"
    if processes > 1:
        how = "accelerate launch --num_processes" if torch.cuda.is_available() else "torchrun --nproc-per-node"
        launcher = f"{how} {processes}"
    return f"{launcher} {shlex.join([script.as_posix(), *sys.argv[1:]])}"


def commit() -> str | None:
    """Return the git commit of this code, with "+changes" for a modified checkout; None outside of git."""
    root = _checkout()
    if root is None:
        return None
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changed else head


def provenance(of: torch.device | str) -> dict[str, Any]:
    """Return command, commit, versions and device of this process's results."""
    return {"command": command_line(), "commit": commit(), "versions": versions(), "device": device(of)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def device(of: torch.device | str = "cpu") -> str:
    """Return the hardware's name, for example "AMD EPYC, 2 threads" or "NVIDIA H100"."""
    if torch.device(of).type == "cuda":
        return torch.cuda.get_device_name(torch.device(of))
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:  # on Linux
        name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _checkout() -> Path | None:
    top = _git(Path(__file__).parent, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
