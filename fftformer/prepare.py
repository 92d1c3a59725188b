"""Store a data set so that training can read crops without decoding whole images.

    python fftformer/prepare.py --data-root GOPRO --output GOPRO_crops
    python fftformer/prepare.py --data-root GOPRO --output GOPRO_crops --split test
    accelerate launch fftformer/train.py --preset gopro_released --data-root GOPRO_crops

The second command is not needed for training with --validation held_out. After an interruption run the same command
again: finished images are verified and kept. GoPro's training split needs 11.6 GB instead of 4 GB, and training crops
are read about ten times faster (measured: 9 to 15 times).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from common import config
from common.config import Workers
from common.errors import UserError, command
from fftformer.crops import MANIFEST, prepare
from fftformer.images import picture_size
from fftformer.layouts import find_pairs


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Flags of this script."""

    data_root: Path
    """Folder of the data set in its published layout."""
    output: Path
    """Folder for the cache; training then takes it as --data-root."""
    split: str = "train"
    """Split to store: train or test."""
    layout: str = "auto"
    """Layout of the data set; auto recognises it."""
    gopro_blur: str = "blur"
    """Which blurred images of GoPro to store: blur or blur_gamma."""
    workers: Workers[int] = 4
    """Number of processes."""


@command
def main() -> None:
    """List the pairs, check the free disk space, store and verify the images."""
    options = config.parse(PrepareConfig, __doc__)
    pairs = find_pairs(options.data_root, options.split, options.layout, gopro_blur=options.gopro_blur)
    folder = options.output / options.split
    if folder.resolve().is_relative_to(options.data_root.resolve()):
        raise UserError(f"{options.output}: lies inside --data-root; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    pixels = sum(height * width for height, width in (picture_size(pair.sharp) for pair in pairs))
    stored = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    needed, free = 2 * 3 * pixels - stored, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{options.output}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free some disk space"
        )
    made = sum(tqdm(prepare(pairs, folder, workers=options.workers), total=len(pairs), unit="pair", desc=options.split))
    print(f"{folder / MANIFEST}: {len(pairs)} pairs verified, {made} of them made now")


if __name__ == "__main__":
    main()
