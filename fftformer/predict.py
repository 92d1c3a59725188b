"""Deblur an image or a folder tree of images.

    python fftformer/predict.py --checkpoint DIR --input photo.jpg --output sharp.jpg
    python fftformer/predict.py --checkpoint DIR --input photos --output restored --memory 2G
    python fftformer/predict.py --checkpoint DIR --input photos --output restored --existing skip     continues
    accelerate launch --num_processes 8 fftformer/predict.py ...                  several GPUs share the images

Reads and writes JPEG, PNG and TIFF of 8 or 16 bits, grey or colour. Names, subfolders, format, bit depth, grey, alpha
channel and colour profile are kept; images are turned upright by their EXIF orientation. Hidden files are ignored,
links are followed. If the input is a folder, images that cannot be restored are listed in OUTPUT/failed.csv. A
before/after figure is written beside the output. It shows whole images, and the detail that changed most.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from common import config, memory
from common.errors import UserError, command
from common.figures import comparison_sheet
from common.photographs.folders import Share, refuse_overwriting
from common.photographs.images import list_images, printable
from fftformer.checkpoints import load_model
from fftformer.images import FORMATS, read_picture, to_float
from fftformer.tiling import MULTIPLE, OVERLAP, restore_tiled, tile_for_memory
from fftformer.writing import write_picture

SHEET_ROWS = 6
DETAIL = 200
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    input: Path
    """An image, or a folder; all images in it and in its subfolders are restored."""
    output: Path
    """The restored image (its suffix chooses the format), or a folder."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """If an output exists: refuse to start, skip its image as finished, or replace it."""
    memory: str | None = None
    """Memory for the network and one tile, for example 800M or 2G; by default a quarter of the device's memory.
    Images that need more are processed in tiles without seams."""
    tile: int | None = None
    """Side of the tiles in pixels, a multiple of 32; replaces --memory."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of autocast; no is float32."""
    sheet: bool = True
    """Draw the before/after figure."""


@command
def main() -> None:
    """Restore all readable images; end with an error if some could not be restored."""
    options = config.parse(PredictConfig, __doc__)
    if options.tile is not None and (options.tile % MULTIPLE or options.tile <= OVERLAP):
        raise UserError(f"--tile {options.tile}: expected a multiple of {MULTIPLE} above {OVERLAP}")
    jobs = list_jobs(options.input, options.output)
    several = options.input.is_dir()
    sheet = sheet_path(options.output if several else jobs[0][1])
    failures = options.output / "failed.csv"
    refuse_overwriting(jobs, [*([sheet] if options.sheet else []), *([failures] if several else [])], options.existing)
    todo = [job for job in jobs if options.existing != "skip" or not job[1].exists()]
    share = Share(todo, options.input, options.device)
    budget = memory.budget(options.memory, share.device)
    model = load_model(options.checkpoint).float().to(share.device).eval()

    @functools.cache  # the images of a folder have few sizes
    def tile_for(height: int, width: int) -> int | tuple[int, int]:
        return options.tile or tile_for_memory(model, budget, height, width)

    rows: list[list[np.ndarray]] = []
    shown = {source for source, _ in share.mine[:: -(-len(share.mine) // SHEET_ROWS) or 1]}
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
    with share.progress("restoring", bar_format=form) as bar:
        for number, (source, output) in enumerate(share.mine, start=1):
            with share.reported(source), precision(share.device, options.mixed_precision):
                picture = read_picture(source)
                blurred = to_float(picture.rgb)
                image = torch.from_numpy(blurred.transpose(2, 0, 1).copy())
                tile = tile_for(*image.shape[1:])
                pixels = image[0].numel()
                restored = restore_tiled(
                    model, image, tile, device=share.device, progress=lambda done, of=pixels: bar.update(done / of)
                )
                result = restored.permute(1, 2, 0).numpy().clip(0, 1)
                if picture.grey:
                    result = np.broadcast_to(result.mean(axis=2, keepdims=True), result.shape)
                write_picture(output, result, like=picture)
                if options.sheet and source in shown:
                    rows.append(sheet_row(blurred, result))
            bar.update(number - bar.n)
    if share.is_main and rows:
        comparison_sheet(rows, ["input", "restored", "input, detail", "restored, detail"], sheet)
    share.finish(failures, "restored", of=len(jobs), see=f"{options.output} and {sheet}" if rows else options.output)


def list_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair every input image with its output path.

    Raises:
        UserError: there is no input image, or the input is a folder and the output is a file.
    """
    if source.is_file():
        return [(source, output / source.name if output.is_dir() or not output.suffix else output)]
    if not source.is_dir():
        raise UserError(f"{printable(source)}: no such image or folder; correct --input")
    if output.is_file():
        raise UserError(f"{output}: is a file, expected a folder because --input is one; choose another --output")
    if os.path.realpath(source) == os.path.realpath(output):
        raise UserError(f"{output}: is the input folder itself; choose another --output")
    # The output may lie inside the input folder; a second run must not read it or its figure.
    sheet = os.path.realpath(sheet_path(output))
    images = list_images(source, outside=output)
    found = [path for path in images if path.suffix.lower() in FORMATS]
    if len(images) > len(found) and os.environ.get("RANK", "0") == "0":
        print(f"note: {len(images) - len(found)} images that are no JPEG, PNG or TIFF are left out")
    found = [path for path in found if path.name != Path(sheet).name or os.path.realpath(path) != sheet]
    if not found:
        raise UserError(f"{printable(source)}: found no images, expected files ending in {', '.join(FORMATS)}")
    return [(path, output / path.relative_to(source)) for path in found]


def sheet_path(output: Path) -> Path:
    """Path of the before/after figure: beside the output, so that an output folder has only the files of the input."""
    return output.with_name(f"{output.stem if output.suffix.lower() in FORMATS else output.name}_before_after.png")


def precision(device: torch.device, name: str) -> contextlib.AbstractContextManager[object]:
    """The autocast context of `--mixed-precision`; without it a context that does nothing."""
    if name == "no":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[name])


def sheet_row(blurred: np.ndarray, restored: np.ndarray) -> list[np.ndarray]:
    """Both images, reduced, and the part of both in which they differ most, relatively twice as large.

    Args:
        blurred, restored: `(H, W, 3)` float32 in [0, 1].

    Returns:
        four images.
    """
    height, width = blurred.shape[:2]
    scale = min(1.0, 2 * DETAIL / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    reduced = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (blurred, restored)]
    rows, columns = (min(max(length // 2, 1), full) for length, full in zip(size[::-1], (height, width), strict=True))
    change = cv2.boxFilter(np.abs(restored - blurred).sum(axis=2), -1, (columns, rows), anchor=(0, 0))
    change = change[: height - rows + 1, : width - columns + 1]
    top, left = np.unravel_index(int(change.argmax()), change.shape)
    return reduced + [image[top : top + rows, left : left + columns].copy() for image in (blurred, restored)]


if __name__ == "__main__":
    main()
