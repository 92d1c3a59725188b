"""Store the result of every image until all are written into one file, so that an interruption loses none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError
from common.files import printable, sha256
from common.networks.weights import WEIGHTS, locate


class Journal:
    """The results of all finished images.

    Each process appends lines to its own file beside the output, `.NAME.0.partial`. After a kill the same command
    continues from these files. They are kept if images failed, so that `--existing skip` tries only those again.

    Args:
        output: the file into which all results are written at the end.
        checkpoint: the weights; a journal of other weights is refused.
        flags: the flags that change a result; a journal with other flags is refused.
        existing: the flag `--existing`; `replace` starts over.

    Attributes:
        places: file and position of the result of every finished image, by its name.

    Raises:
        UserError: there is a journal of another model or with other flags.
    """

    def __init__(self, output: Path, checkpoint: Path, flags: dict[str, Any], existing: str) -> None:
        found = locate(checkpoint)
        weights = sha256(found / WEIGHTS if found.is_dir() else found)
        self._output, self._header = output, json.dumps({"weights": weights, **flags}).encode() + b"\n"
        self._file: BinaryIO | None = None
        if existing == "replace":
            self.remove()
        self.places = self._read()

    @property
    def files(self) -> list[Path]:
        """The files of the journal; empty if everything is finished."""
        return sorted(self._output.parent.glob(f".{self._output.name}.*.partial"))

    def add(self, name: str, result: Any, rank: int) -> None:
        """Store the result of an image at once.

        Args:
            name: of the image.
            result: any value that can be written as JSON.
            rank: number of this process.
        """
        if self._file is None:
            path = self._output.with_name(f".{self._output.name}.{rank}.partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(self._ends.get(path, 0))  # remove an incomplete line, which a kill leaves
            if not self._ends.get(path):
                self._file.write(self._header)
        self._file.write(json.dumps([name, result]).encode() + b"\n")
        self._file.flush()

    def results(self, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Name and result of the images in `names` that any process has finished, in the order of `names`."""
        places = self._read()
        with contextlib.ExitStack() as stack:
            files = {path: stack.enter_context(path.open("rb")) for path in self.files}
            for name in names:
                if name in places:
                    path, start = places[name]
                    files[path].seek(start)
                    yield name, json.loads(files[path].readline())[1]

    def remove(self) -> None:
        """Remove all results."""
        for path in self.files:
            path.unlink(missing_ok=True)

    def _read(self) -> dict[str, tuple[Path, int]]:
        places: dict[str, tuple[Path, int]] = {}
        self._ends: dict[Path, int] = {}
        for path in self.files:
            with path.open("rb") as file:
                header = file.readline()
                if header.endswith(b"\n") and header != self._header:
                    raise UserError(
                        f"{printable(path)}: holds results of another model or other flags; use the same ones to "
                        "continue, or start over with --existing replace"
                    )
                start = len(header) if header.endswith(b"\n") else 0
                while start and (line := file.readline()).endswith(b"\n"):
                    places[json.loads(line)[0]] = path, start
                    start += len(line)
                self._ends[path] = start
        return places
