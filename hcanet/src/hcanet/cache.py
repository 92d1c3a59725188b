"""ICVL's training patches on disk: one HDF5 file per scene, cut once, read window by window.

    CACHE/mafnet/NAME.h5     `patches` (n, 31, 128, 128) float32, `checksums` (n,) CRC-32 of each patch

A file appears only when it is complete, so that an interrupted preparation continues with the next scene. Every patch
is compared with its checksum when it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from common.errors import UserError
from common.files import atomic_path
from hcanet.scenes import IcvlPreparation, read_icvl

SIDES = {"mafnet": 128, "qrnn3d": 64}
"""Preparation → side of its patches."""


def patches_of(cube: np.ndarray, preparation: IcvlPreparation) -> Iterator[np.ndarray]:
    """Yield the patches `(31, side, side)` float32 of a scene `(rows, columns, 31)`.

    `mafnet`: min–max scaling of the whole cube, adjacent patches of 128 pixels. `qrnn3d`: min–max scaling, the centre
    of 1024 × 1024 pixels at scales 1, ½ and ¼, patches of 64 with strides 64, 32 and 32.
    """
    cube = np.moveaxis(cube, -1, 0).astype(np.float32)
    cube = (cube - cube.min()) / max(float(cube.max() - cube.min()), 1e-12)
    side = SIDES[preparation]
    if preparation == "mafnet":
        levels = [(cube, side)]
    else:
        top, left = (max((length - 1024) // 2, 0) for length in cube.shape[1:])
        centre = cube[:, top : top + 1024, left : left + 1024]
        levels = [(centre, 64), *((ndimage.zoom(centre, (1, s, s)), 32) for s in (0.5, 0.25))]
    for level, stride in levels:
        for row in range(0, level.shape[1] - side + 1, stride):
            for column in range(0, level.shape[2] - side + 1, stride):
                yield np.ascontiguousarray(level[:, row : row + side, column : column + side])


def prepare(data_root: Path, names: Sequence[str], preparation: IcvlPreparation, folder: Path) -> list[CachedScene]:
    """Cut the patches of scenes that are not in the cache yet, and open the cache of all scenes.

    Args:
        data_root: the folder with ICVL's files.
        names: the scenes' file names.
        folder: the cache; it gets a folder named after the preparation.

    Raises:
        UserError: a scene or a file of the cache is missing or damaged.
    """
    paths = [folder / preparation / f"{Path(name).stem}.h5" for name in names]
    missing = [(name, path) for name, path in zip(names, paths, strict=True) if not path.exists()]
    for name, path in tqdm(missing, unit="scene", desc="cutting patches", disable=not missing):
        write(path, list(patches_of(read_icvl(data_root, name), preparation)))
    return [CachedScene(path) for path in paths]


def write(path: Path, patches: Sequence[np.ndarray]) -> None:
    """Write one scene's patches, atomically."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        stored = file.create_dataset(
            "patches", (len(patches), *patches[0].shape), np.float32, chunks=(1, *patches[0].shape)
        )
        for i, patch in enumerate(patches):
            stored[i] = patch
        file["checksums"] = np.array([zlib.crc32(patch.tobytes()) for patch in patches], dtype=np.uint32)


class CachedScene:
    """One scene's patches.

    Args:
        path: a file written by `write`.

    Attributes:
        shape: `(n, bands, side, side)`.

    Raises:
        UserError: the file is not such a cache; when reading, a patch differs from its checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        try:
            with h5py.File(path) as file:
                self.shape = tuple(file["patches"].shape)
                complete = len(self.shape) == 4 and file["checksums"].shape == self.shape[:1]
        except (OSError, KeyError) as error:
            raise UserError(f"{path}: is not a cache of patches ({error}); delete it, it is cut again") from None
        if not complete:
            raise UserError(f"{path}: has patches of shape {self.shape}; delete it, it is cut again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        if self._file is None:  # opened by each process that reads
            self._file = h5py.File(self.path)
        try:
            patch = self._file["patches"][index]
            right = zlib.crc32(patch.tobytes()) == int(self._file["checksums"][index])
        except OSError:
            right = False
        if not right:
            raise UserError(f"{self.path}: patch {index} is damaged; delete the file, it is cut again")
        return patch
