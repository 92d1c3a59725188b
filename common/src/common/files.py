"""Atomic writing: an interruption or a full disk never leaves a partial file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.errors import UserError

PLAN = "plan.json"
"""Name of the file that describes the command in a folder of windows."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder; on success it replaces `path`, else it is removed.

    The file is flushed to disk before the rename, so after a power cut `path` holds either the
    old content or the whole new one. Parent folders are made.

    Raises:
        OSError: the folder cannot be written or the disk is full; it names `path`, which is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because several libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
        if getattr(error, "filename", None) not in (None, str(temporary)):
            raise
        # NumPy and safetensors report a full disk without its number.
        raise OSError(number or errno.EIO, reason or f"could not be written ({error})", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def remove_partial(folder: Path, names: Container[str]) -> None:
    """Remove temporary files that killed processes left in a folder; no process may be writing these names now."""
    for path in folder.glob(".*.partial.*"):
        name, _, suffix = path.name[1:].rpartition(".partial")
        if f"{name.rpartition('.')[0]}{suffix}" in names:
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; bytes of file names that are no UTF-8 become escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_room(output: Path, existing: str, *, beside: Iterable[Path] = (), windows: bool = False) -> bool:
    """Prepare for writing an output, according to `--existing`; false, with a printed line, if it is to be skipped.

    Windows that were left by an earlier output of this name are removed.

    Args:
        existing: the flag.
        beside: files that are written with the output.
        windows: the output is made by a `Stream`, which decides about one that was finished before an interruption.

    Raises:
        UserError: one of them exists and may not be replaced.
    """
    finished = finished_windows(output)
    if windows and existing == "refuse" and output.exists() and (finished / PLAN).exists():
        return True
    if existing == "skip" and output.exists():
        print(f"{output}: exists, nothing done")
        return False
    there = [path for path in (output, *beside) if path.exists()]
    if there and existing != "replace":
        skip = " or --existing skip" if output.exists() else ""  # a file beside a missing output cannot be skipped
        raise UserError(f"{there[0]}: exists; add --existing replace{skip}, or choose another --output")
    shutil.rmtree(finished, ignore_errors=True)  # of an output that is no longer there or will be replaced
    return True


def finished_windows(output: Path) -> Path:
    """Name of the folder of an output's windows while it is removed, after the output is finished."""
    return output.with_name(f".{output.name}.windows")


def remove_windows(folder: Path) -> None:
    """Remove a folder of windows; until all are gone, its plan tells which command made them."""
    for path in folder.iterdir():
        if path.name != PLAN:
            path.unlink()
    shutil.rmtree(folder)


def find(data_root: Path, name: str) -> Path:
    """The file or folder of that name under the root or up to two folders below.

    Raises:
        UserError: there is none.
    """
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        if found := sorted(data_root.glob(pattern)):
            return found[0]
    raise UserError(f"{data_root}: {name} not found there or up to two folders below; put it there (see the README)")


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def printable(path: str | Path) -> str:
    r"""Return a path as text that every file and terminal takes: bytes that are no UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
