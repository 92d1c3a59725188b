"""Process a folder of images with a network: skip existing outputs, share the work between processes, list failures.

    refuse_overwriting(jobs, [failures], options.existing)
    todo = [job for job in jobs if options.existing != "skip" or not job[1].exists()]
    share = Share(todo, options.input, options.device)
    with share.progress("restoring") as bar:
        for source, output in share.mine:
            with share.reported(source):
                ...
            bar.update()
    share.finish(failures, "restored", of=len(jobs), see=options.output)

Outputs are written atomically, so an output that exists is finished. Only the file names are in memory.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from common import launch
from common.errors import UserError
from common.files import atomic_path, printable, remove_partial

Job = TypeVar("Job")


class Share(Generic[Job]):
    """This process's share of the images; all processes start together.

    Args:
        todo: the jobs, the same list in every process; made before any process writes.
        source: the image or the folder that `--input` names.
        device: value of `--device`.

    Attributes:
        mine: every n-th job of `todo`, where n is the number of processes.
        device: with several processes, each has its own GPU.
        is_main: whether this process writes the files that exist once per run.

    Raises:
        UserError: no such device.
    """

    def __init__(self, todo: Sequence[Job], source: Path, device: str) -> None:
        # Some processes finish earlier; they wait here for the others.
        joined, self.device = launch.on_device(device, patience=timedelta(days=30))
        joined.wait_for_everyone()  # no process writes before all have checked which outputs exist
        self.rank, self.is_main, self._joined = joined.process_index, joined.is_main_process, joined
        self.mine = todo[self.rank :: joined.num_processes]
        self._source, self._count = source, len(todo)
        self._failed: list[tuple[str, str]] = []

    def progress(self, verb: str, **form: Any) -> Any:
        """Return a progress bar over this process's share; only the main process shows it."""
        return tqdm(total=len(self.mine), unit="image", desc=verb, disable=not self.is_main, **form)

    @contextlib.contextmanager
    def reported(self, source: Path) -> Iterator[None]:
        """In a folder, record an image's error and continue with the next; the error of a single image is raised."""
        try:
            yield
        except UserError as error:
            if not self._source.is_dir():
                raise
            self._failed.append((printable(source.relative_to(self._source)), printable(str(error))))
            tqdm.write(f"error: {printable(str(error))}")
        except torch.OutOfMemoryError:
            raise UserError("the device's memory is too small; use a smaller --memory or --batch-size") from None

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self._joined.wait_for_everyone()

    def finish(self, failures: Path, done: str, *, of: int, see: str | Path) -> None:
        """Print the counts of all processes and list the failures; without failures, remove the list of an earlier run.

        Args:
            failures: the list, a CSV file with columns `picture` and `reason`.
            done: what was done to the images, for example "restored".
            of: number of all images, including those that were done before.
            see: where the results are.

        Raises:
            UserError: images failed; says how many, and the first reason.
        """
        failed = sorted(gather_object(self._failed)) if self._joined.num_processes > 1 else sorted(self._failed)
        if not self.is_main:
            return
        before = f", {of - self._count} were there already" if of > self._count else ""
        print(f"{self._count - len(failed)} of {of} images {done}{before}; see {printable(see)}")
        if not failed:
            if self._source.is_dir():
                failures.unlink(missing_ok=True)
            return
        with atomic_path(failures) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("picture", "reason"), *failed])
        raise UserError(
            f"{len(failed)} of {of} images could not be {done}, listed in {printable(failures)}, "
            f"the first: {failed[0][1]}"
        )


def refuse_overwriting(
    jobs: Sequence[tuple[Path, Path]], others: Sequence[Path], existing: str, *, inputs: Sequence[Path] = ()
) -> None:
    """Refuse outputs that would overwrite files without permission; remove partial files of a killed command.

    Args:
        jobs: pairs of an input and an output; an input may have several outputs.
        others: further outputs, which belong to no single input.
        existing: value of `--existing`: "refuse", "skip" or "replace".
        inputs: further inputs.

    Raises:
        UserError: two inputs have the same output, an output is an input, or outputs exist and may not be replaced.
    """
    outputs = [*(output for _, output in jobs), *others]
    # Links can give one file two names, so folders are compared by their real paths.
    folders = {folder: os.path.realpath(folder) for folder in {output.parent for output in outputs}}
    writers: dict[tuple[str, str], Path] = {}
    for source, output in [*jobs, *((path, path) for path in others)]:
        other = writers.setdefault((folders[output.parent], output.name), source)
        if other is not source:
            raise UserError(
                f"{printable(other)} and {printable(source)}: both would be written to {printable(output)}; "
                "rename one or choose another --output"
            )
    there = [path for path in outputs if path.exists()]
    read = {os.path.realpath(path) for path in (*(source for source, _ in jobs), *inputs)} if there else set()
    for path in there:
        if os.path.realpath(path) in read:
            raise UserError(f"{printable(path)}: is an input image too; choose another --output")
    if there and existing == "refuse":
        raise UserError(
            f"{len(there)} of {len(outputs)} outputs exist already (first: {', '.join(map(printable, there[:3]))}); "
            "add --existing skip or --existing replace, or choose another --output"
        )
    named: dict[Path, set[str]] = {}
    for path in outputs:
        named.setdefault(path.parent, set()).add(path.name)
    for folder, names in named.items():
        remove_partial(folder, names)
