"""Checkpoints of a training: written atomically and verified when read; reading executes no code.

    checkpoints/step_00012000/  state.pt  random_<rank>.pt  progress.json  manifest.json

All processes write into a temporary folder. It is renamed when every file is on disk, and only then are the oldest
folders removed. `manifest.json` holds each file's SHA-256, so that a truncated or altered checkpoint is recognised and
the one before it is used.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import sha256, sync, write_json

_KEEP = 2


def save(
    folder: Path,
    parts: Mapping[str, Any],
    progress: Mapping[str, Any],
    *,
    rank: int = 0,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint folder; called by every process of the run.

    Args:
        folder: ends in `step_<number>`.
        parts: name → object with `state_dict`.
        progress: JSON-able counters.
        wait: returns when all processes have called it.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    if rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    wait()
    try:
        torch.save(_random_state(), temporary / f"random_{rank}.pt")
        if rank == 0:
            torch.save({name: part.state_dict() for name, part in parts.items()}, temporary / "state.pt")
            write_json(temporary / "progress.json", dict(progress))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{folder}: could not be written ({reason}); the checkpoints before it are intact: "
            "free some disk space and run the same command"
        ) from None
    wait()
    if rank == 0:
        files = sorted(temporary.iterdir())
        for path in files:
            sync(path)
        write_json(temporary / "manifest.json", {path.name: sha256(path) for path in files})
        shutil.rmtree(folder, ignore_errors=True)  # a resumed run can save the same step again
        os.replace(temporary, folder)
        sync(folder.parent)
        for old in _folders(folder.parent)[:-_KEEP]:
            shutil.rmtree(old)
    wait()


def load(folder: Path, parts: Mapping[str, Any], *, rank: int = 0) -> dict[str, Any]:
    """Load a verified checkpoint into `parts` and the random generators; return its counters.

    Raises:
        UserError: the checkpoint has other parts than this run, or a part does not fit.
    """
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    if set(state) != set(parts):
        raise UserError(
            f"{folder}: holds {sorted(state)}, this run needs {sorted(parts)}; use the flags it was saved with"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: its {name} does not fit this run ({reason})") from None
    path = folder / f"random_{rank}.pt"
    if path.exists():  # absent if the run continues with more processes
        _set_random_state(torch.load(path, weights_only=True))
    return json.loads((folder / "progress.json").read_text(encoding="utf-8"))


def find(root: Path, resume: str) -> Path | None:
    """Return the checkpoint folder that `--resume` means, or None to start a new run.

    Raises:
        UserError: a named folder is missing or damaged, or all of the run's checkpoints are.
    """
    if resume == "none":
        return None
    if resume != "auto":
        damage = _damage(Path(resume))
        if damage:
            raise UserError(f"--resume {resume}: {damage}; name an intact .../checkpoints/step_<number> folder")
        return Path(resume)
    intact = newest(root)
    if intact is None and (damaged := _folders(root)[-1:]):
        raise UserError(f"{damaged[0]}: {_damage(damaged[0])} and no older one is intact; use a new --output")
    return intact


def newest(root: Path) -> Path | None:
    """Return the newest intact checkpoint below `root`, or None."""
    return next((folder for folder in _folders(root)[::-1] if not _damage(folder)), None)


def remove_partial(root: Path) -> None:
    """Remove the partial folder of an interrupted save."""
    for folder in root.glob(".step_*.partial"):
        shutil.rmtree(folder)


def _folders(root: Path) -> list[Path]:
    """Complete checkpoint folders, oldest first, by the number in the name."""
    folders = [path for path in root.glob("step_*") if path.name.removeprefix("step_").isdigit()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step_")))


def _damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint folder, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        wrong = [name for name, digest in manifest.items() if sha256(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError):
        return "manifest.json is damaged"
    return f"{wrong[0]} is damaged" if wrong else None


def _random_state() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002 - libraries draw from it
    name, keys, *rest = numpy_state
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    torch_state = {"torch": torch.get_rng_state(), **cuda}
    return {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), **torch_state}


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
