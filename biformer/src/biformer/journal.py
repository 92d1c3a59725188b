"""Store the results of single images until all go into one file, so that an interruption loses none."""

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
    """The results so far.

    Each process adds lines to a file of its own beside the output, `.NAME.0.partial`. After a kill the same command
    goes on from these files. They stay while images fail, so that `--existing skip` tries just those again.

    Args:
        output: the file that the results end in.
        checkpoint: made them; a journal of other weights is refused.
        flags: others that change a result.
        existing: the flag; `replace` begins again.

    Attributes:
        places: of every finished image, by its name.

    Raises:
        UserError: another model or other flags left a journal there.
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
        """The journal's files; none where everything is finished."""
        return sorted(self._output.parent.glob(f".{self._output.name}.*.partial"))

    def add(self, name: str, result: Any, rank: int) -> None:
        """Keep an image's result, anything that JSON takes, from now on."""
        if self._file is None:
            path = self._output.with_name(f".{self._output.name}.{rank}.partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(self._ends.get(path, 0))  # a line that a kill cut off
            if not self._ends.get(path):
                self._file.write(self._header)
        self._file.write(json.dumps([name, result]).encode() + b"\n")
        self._file.flush()

    def results(self, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Name and result of the finished ones of `names`, in their order, of all processes."""
        places = self._read()
        with contextlib.ExitStack() as stack:
            files = {path: stack.enter_context(path.open("rb")) for path in self.files}
            for name in names:
                if name in places:
                    path, start = places[name]
                    files[path].seek(start)
                    yield name, json.loads(files[path].readline())[1]

    def remove(self) -> None:
        """Forget everything."""
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
                        f"{printable(path)}: holds results of another model or other flags; use the same ones "
                        "to continue, or start over with --existing replace"
                    )
                start = len(header) if header.endswith(b"\n") else 0
                while start and (line := file.readline()).endswith(b"\n"):
                    places[json.loads(line)[0]] = path, start
                    start += len(line)
                self._ends[path] = start
        return places
