"""Deblur a picture or a folder tree of pictures.

    python fftformer/predict.py --checkpoint DIR --input photo.jpg --output sharp.jpg
    python fftformer/predict.py --checkpoint DIR --input photos --output restored --memory 2G
    python fftformer/predict.py --checkpoint DIR --input photos --output restored --existing skip     goes on
    accelerate launch --num_processes 8 fftformer/predict.py ...                  pictures shared out over GPUs

JPEG, PNG and TIFF of 8 or 16 bits, grey or colour. Names, subfolders, format, bit depth, grey,
alpha and colour profile are kept; EXIF orientation is applied once. Hidden files are no pictures,
links are followed. Of a folder, pictures that cannot be restored are listed in OUTPUT/failed.csv.
Beside the output a before/after sheet is drawn: whole pictures, and the detail that changed most.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from common import config, launch
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import comparison_sheet
from common.files import atomic_path
from common.images import list_images, printable
from common.memory import parse_size
from fftformer.checkpoints import load_model
from fftformer.images import FORMATS, read_picture, to_float, write_picture
from fftformer.tiling import MULTIPLE, OVERLAP, restore_tiled, tile_for_memory

SHEET_ROWS = 6
DETAIL = 200
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, or a name of docs/weights.md."""
    input: Path
    """A picture, or a folder whose pictures are taken at any depth."""
    output: Path
    """The restored picture (its suffix chooses the format), or a folder."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do where an output exists: refuse to start, skip that picture (it is finished), or replace it."""
    memory: str = "4G"
    """Memory for the network on one tile, for example 800M or 2G; larger pictures are tiled without seams."""
    tile: int | None = None
    """Side of the tiles in pixels, a multiple of 32, instead of --memory."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast type of the network."""
    sheet: bool = True
    """Draw the before/after sheet."""


@command
def main() -> None:
    """Restore everything that can be read; end with a sentence when something could not."""
    options = config.parse(PredictConfig, __doc__)
    if options.tile is not None and (options.tile % MULTIPLE or options.tile <= OVERLAP):
        raise UserError(f"--tile {options.tile}: expected a multiple of {MULTIPLE} above {OVERLAP}")
    budget = parse_size(options.memory)
    device = choose_device(options.device)
    jobs = list_jobs(options.input, options.output)
    several = options.input.is_dir()
    sheet = sheet_path(options.output if several else jobs[0][1])
    failures = options.output / "failed.csv"
    others = [sheet] * options.sheet + [failures] * several
    refuse_overwriting(jobs, others, options.existing)
    todo = [job for job in jobs if options.existing != "skip" or not job[1].exists()]
    # Shares differ; the first to finish waits.
    accelerator = launch.accelerator(cpu=device.type == "cpu", patience=timedelta(days=30))
    if options.device in ("auto", "cuda"):
        device = accelerator.device  # of several processes each has a GPU of its own
    accelerator.wait_for_everyone()  # nobody writes before all have seen what exists
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    model = load_model(options.checkpoint).float().to(device).eval()

    failed: list[tuple[Path, str]] = []
    rows: list[list[np.ndarray]] = []
    shown = {source for source, _ in mine[:: -(-len(mine) // SHEET_ROWS) or 1]}
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
    hidden = not accelerator.is_main_process
    with tqdm(total=len(mine), unit="picture", desc="restoring", bar_format=form, disable=hidden) as bar:
        for number, (source, output) in enumerate(mine, start=1):
            with reported(failed, source, several), precision(device, options.mixed_precision):
                picture = read_picture(source)
                blurred = to_float(picture.rgb)
                image = torch.from_numpy(blurred.transpose(2, 0, 1).copy())
                tile = options.tile or tile_for_memory(model, budget, *image.shape[1:])
                pixels = image[0].numel()
                restored = restore_tiled(
                    model, image, tile, device=device, progress=lambda done, of=pixels: bar.update(done / of)
                )
                result = restored.permute(1, 2, 0).numpy().clip(0, 1)
                if picture.grey:
                    result = np.broadcast_to(result.mean(axis=2, keepdims=True), result.shape)
                write_picture(output, result, like=picture)
                if options.sheet and source in shown:
                    rows.append(sheet_row(blurred, result))
            bar.update(number - bar.n)
    failed = sorted(gather_object(failed)) if accelerator.num_processes > 1 else failed
    if not accelerator.is_main_process:
        return
    if several:
        write_failures(failures, failed, options.input)
    if rows:
        columns = ["input", "restored", "input, detail", "restored, detail"]
        comparison_sheet(rows, columns, sheet)
    counts = f"{len(todo) - len(failed)} of {len(jobs)} pictures restored"
    if len(todo) < len(jobs):
        counts += f", {len(jobs) - len(todo)} were there already"
    print(f"{counts} in {printable(options.output)}" + f"; see {printable(sheet)}" * bool(rows))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} pictures could not be restored, listed in {failures}, "
            f"the first: {failed[0][1]}"
        )


def list_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair every input picture with its output path.

    Raises:
        UserError: there is no input, or a folder is to become a file.
    """
    if source.is_file():
        return [(source, output / source.name if output.is_dir() or not output.suffix else output)]
    if not source.is_dir():
        raise UserError(f"{printable(source)}: no such picture or folder; correct --input")
    if output.is_file():
        raise UserError(f"{output}: is a file, expected a folder because --input is one; choose another --output")
    if os.path.realpath(source) == os.path.realpath(output):
        raise UserError(f"{output}: is the input folder itself; choose another --output")
    # The output may lie inside the input; neither it nor its sheet is input for a second run.
    sheet = os.path.realpath(sheet_path(output))
    found = list_images(source, outside=output, suffixes=FORMATS)
    found = [path for path in found if path.name != Path(sheet).name or os.path.realpath(path) != sheet]
    if not found:
        raise UserError(f"{printable(source)}: found no pictures, expected files ending in {', '.join(FORMATS)}")
    return [(path, output / path.relative_to(source)) for path in found]


def sheet_path(output: Path) -> Path:
    """The before/after sheet lies beside the restored picture or folder, so that the folder mirrors the input."""
    return output.with_name(f"{output.stem if output.suffix.lower() in FORMATS else output.name}_before_after.png")


def refuse_overwriting(jobs: list[tuple[Path, Path]], others: list[Path], existing: str) -> None:
    """Refuse what would destroy a file that the user did not offer.

    Raises:
        UserError: two inputs have one output, an output is an input, or outputs exist and may not be replaced.
    """
    outputs = [output for _, output in jobs] + others
    # Links can make two names one file, so folders are compared by where they really are.
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
    inputs = {os.path.realpath(source) for source, _ in jobs} if there else set()
    for path in there:
        if os.path.realpath(path) in inputs:
            raise UserError(f"{printable(path)}: is an input picture too; choose another --output")
    if there and existing == "refuse":
        raise UserError(
            f"{len(there)} of {len(outputs)} outputs exist already (first: {', '.join(map(printable, there[:3]))}); "
            "add --existing skip or --existing replace, or choose another --output"
        )


@contextlib.contextmanager
def reported(failed: list[tuple[Path, str]], source: Path, several: bool) -> Iterator[None]:
    """In a folder, note a picture's error and go on with the next; a single picture's error ends the run."""
    try:
        yield
    except UserError as error:
        if not several:
            raise
        failed.append((source, str(error)))
        tqdm.write(f"error: {printable(str(error))}")
    except torch.OutOfMemoryError:
        raise UserError("the device's memory does not suffice for a tile; state a smaller --memory or --tile") from None


def write_failures(path: Path, failed: list[tuple[Path, str]], source: Path) -> None:
    """List the pictures that could not be restored with the reasons; without any the list of an earlier run goes."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "reason"])
        table.writerows([printable(name.relative_to(source)), printable(reason)] for name, reason in failed)


def precision(device: torch.device, name: str) -> contextlib.AbstractContextManager[object]:
    """Autocast for `--mixed-precision`, or nothing."""
    if name == "no":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[name])


def sheet_row(blurred: np.ndarray, restored: np.ndarray) -> list[np.ndarray]:
    """Both pictures reduced, and twice enlarged the part of the same proportions in which they differ most."""
    height, width = blurred.shape[:2]
    scale = min(1.0, 2 * DETAIL / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    reduced = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (blurred, restored)]
    rows, columns = (min(max(length // 2, 1), full) for length, full in zip(size[::-1], (height, width), strict=True))
    change = cv2.boxFilter(np.abs(restored - blurred).sum(axis=2), -1, (columns, rows), anchor=(0, 0))
    change = change[: height - rows + 1, : width - columns + 1]
    top, left = np.unravel_index(int(change.argmax()), change.shape)
    return reduced + [picture[top : top + rows, left : left + columns].copy() for picture in (blurred, restored)]


if __name__ == "__main__":
    main()
