"""Deblur a picture or a folder tree of pictures.

    python fftformer/predict.py --checkpoint DIR --input photo.jpg --output sharp.jpg
    python fftformer/predict.py --checkpoint DIR --input photos --output restored --memory 2G

JPEG, PNG and TIFF of 8 or 16 bits, grey or colour. Names, subfolders, format, bit depth, grey,
alpha and colour profile are kept; EXIF orientation is applied once. Beside the output a
before/after sheet is drawn: whole pictures, and the detail that changed most.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from common import config
from common.errors import UserError, command
from common.figures import comparison_sheet
from fftformer.checkpoints import load_model
from fftformer.images import FORMATS, picture_size, read_picture, to_float, write_picture
from fftformer.tiling import MULTIPLE, OVERLAP, parse_size, restore_tiled, tile_for_memory

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
    overwrite: bool = False
    """Replace existing outputs; without it nothing is restored when one exists."""
    memory: str = "4G"
    """Memory for the network on one tile, for example 800M or 2G; larger pictures are tiled without seams."""
    tile: int | None = None
    """Side of the tiles in pixels, a multiple of 32, instead of --memory."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
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
    jobs = list_jobs(options.input, options.output)
    several = options.input.is_dir()
    sheet = sheet_path(options.output if several else jobs[0][1])
    refuse_overwriting([output for _, output in jobs] + [sheet] * options.sheet, options.overwrite)
    device = torch.device(
        options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    model = load_model(options.checkpoint).float().to(device).eval()
    budget = parse_size(options.memory)

    failed: list[str] = []
    areas: dict[Path, int] = {}
    for source, _ in jobs:
        with reported(failed, several):
            height, width = picture_size(source)
            areas[source] = height * width
    rows: list[list[np.ndarray]] = []
    shown = set(list(areas)[:: -(-len(areas) // SHEET_ROWS) or 1])
    with tqdm(total=sum(areas.values()), unit="px", unit_scale=True, desc="restoring") as bar:
        for source, output in jobs:
            if source not in areas:
                continue
            bar.set_postfix_str(source.name)
            with reported(failed, several), precision(device, options.mixed_precision):
                picture = read_picture(source)
                blurred = to_float(picture.rgb)
                image = torch.from_numpy(blurred.transpose(2, 0, 1).copy())
                tile = options.tile or tile_for_memory(model, budget, *image.shape[1:])
                restored = restore_tiled(model, image, tile, device=device, progress=bar.update)
                result = restored.permute(1, 2, 0).numpy().clip(0, 1)
                if picture.grey:
                    result = np.broadcast_to(result.mean(axis=2, keepdims=True), result.shape)
                write_picture(output, result, like=picture)
                if options.sheet and source in shown:
                    rows.append(sheet_row(blurred, result))
    if rows:
        columns = ["input", "restored", "input, detail", "restored, detail"]
        comparison_sheet(rows, columns, sheet)
    done = len(jobs) - len(failed)
    print(f"{done} of {len(jobs)} pictures restored in {options.output}" + f"; see {sheet}" * bool(rows))
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} pictures could not be restored, the first: {failed[0]}")


def list_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair every input picture with its output path.

    Raises:
        UserError: there is no input, or a folder is to become a file.
    """
    if source.is_file():
        return [(source, output / source.name if output.is_dir() or not output.suffix else output)]
    if not source.is_dir():
        raise UserError(f"{source}: no such picture or folder; correct --input")
    if output.is_file():
        raise UserError(f"{output}: is a file, expected a folder because --input is one; choose another --output")
    inside = output.resolve()
    found = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in FORMATS and path.is_file() and not path.resolve().is_relative_to(inside)
    ]
    # The output may lie inside the input; neither it nor its sheet is input for a second run.
    found = [path for path in found if path.resolve() != sheet_path(inside)]
    if source.resolve() == inside:
        raise UserError(f"{output}: is the input folder itself; choose another --output")
    if not found:
        raise UserError(f"{source}: found no pictures, expected files ending in {', '.join(FORMATS)}")
    return [(path, output / path.relative_to(source)) for path in found]


def sheet_path(output: Path) -> Path:
    """The before/after sheet lies beside the restored picture or folder, so that the folder mirrors the input."""
    return output.with_name(f"{output.stem if output.suffix.lower() in FORMATS else output.name}_before_after.png")


def refuse_overwriting(outputs: list[Path], overwrite: bool) -> None:
    """Raise `UserError` naming what exists, unless it may be replaced."""
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        raise UserError(
            f"{len(there)} of {len(outputs)} outputs exist already (first: {', '.join(map(str, there[:3]))}); "
            "add --overwrite or choose another --output"
        )


@contextlib.contextmanager
def reported(failed: list[str], several: bool):
    """In a folder, note a picture's error and go on with the next; a single picture's error ends the run."""
    try:
        yield
    except UserError as error:
        if not several:
            raise
        failed.append(str(error))
        tqdm.write(f"error: {error}")
    except torch.OutOfMemoryError:
        raise UserError("the device's memory does not suffice for a tile; state a smaller --memory or --tile") from None


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
