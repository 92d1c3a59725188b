"""Read GeoTIFF and ENVI scenes larger than memory by windows, with rasterio.

GDAL reads the missing part of a truncated ENVI binary as zeros without an error, so `envi.read_layout` first compares
its size with the header. MATLAB and NumPy files are read whole (`readers.py`).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from common.errors import UserError, extra
from common.hyperspectral import envi, geotiff
from common.hyperspectral.no_data import check_size, filled, in_type, note_on, valid_pixels, value_for
from common.hyperspectral.readers import damage_reported
from common.hyperspectral.scene import Scene

Box = tuple[slice, slice]
"""Rows and columns of a rectangle."""
CACHE = 64 * 2**20
"""Size of GDAL's block cache in bytes."""
TIFF = (".tif", ".tiff")
"""Suffixes of GeoTIFF files."""


def larger_than(memory: int, reference: str, beside: float) -> bool:
    """Whether a scene is a GeoTIFF or ENVI file that has to be read by windows.

    That is so when its values and intermediate results would take more than half of `memory`; the other half is
    for the network. Only the header is read.

    Args:
        beside: bytes of intermediate results per value of the scene.
    """
    path = Path(reference)
    if not path.is_file():
        return False
    if path.suffix.lower() in TIFF:
        with extra("fullpaper-common[hyperspectral]"):
            import tifffile  # noqa: PLC0415 - slow to import
        with damage_reported(path), tifffile.TiffFile(path) as file:
            shape, dtype = file.series[0].shape, file.series[0].dtype
    elif header := envi.find_header(path):
        layout = envi.read_layout(header, None if header == path else path)
        shape, dtype = layout.shape, layout.dtype
    else:
        return False
    return math.prod(shape) * (dtype.itemsize + beside) > memory / 2


class Raster:
    """A GeoTIFF or ENVI scene on disk.

    Args:
        reference: the file.
        no_data: see `scene.open_scene`.

    Attributes:
        shape: rows and columns.
        bands, dtype, no_data: as in a `Scene`.
        wavelengths: in nm, `(bands,)`, or None.
        notes: what the file declares about its numbers, one sentence each.
        block_bytes: size of a block of the file.
        file: the opened rasterio data set.

    Raises:
        UserError: rasterio is missing, the file is damaged, an ENVI binary has the wrong size, or the file does not
            hold a scene of real numbers.
    """

    def __init__(self, reference: str | Path, no_data: float | None = None) -> None:
        with extra("fullpaper-common[raster]"):
            import rasterio  # noqa: PLC0415 - an extra
        self.path = Path(reference)
        header = envi.find_header(self.path)
        self._layout = envi.read_layout(header, None if header == self.path else self.path) if header else None
        self.path = self._layout.binary if self._layout else self.path
        os.environ.setdefault("GDAL_CACHEMAX", str(CACHE))  # GDAL reads it once; its default is 5 % of the memory
        with damage_reported(self.path), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            try:
                self.file = rasterio.open(self.path)
            except rasterio.errors.RasterioIOError:
                if header is None:
                    raise
                raise UserError(f"{header}: GDAL does not take this header; save it as plain ASCII text") from None
        if self.file.count == 1 and self.file.subdatasets:
            raise UserError(f"{self.path}: holds its bands as pages; save them as bands of one image")
        flags, self._alpha = self.file.mask_flag_enums[0], 0
        if self._layout and header:
            # GDAL reads some loosely written headers differently, so only the georeference comes from GDAL.
            (*shape, self.bands), fields = self._layout.shape, self._layout.fields
            self.dtype, self.block_bytes = self._layout.dtype.newbyteorder("="), 0
            self.wavelengths, found = envi.wavelengths(header, fields, self.bands), envi.declared(header, fields)
            self.notes = envi.notes(fields)
        else:
            shape, self.dtype = [self.file.height, self.file.width], np.dtype(self.file.dtypes[0])
            with damage_reported(self.path):
                said = geotiff.read_declared(self.path)
            self._alpha = 0 if said.alpha is None else said.alpha + 1
            self.bands = self.file.count - bool(self._alpha)
            self.wavelengths, found, self.notes = said.wavelengths, said.no_data, said.notes
            together = self.file.count if self.file.profile.get("interleave") == "pixel" else 1
            self.block_bytes = math.prod(self.file.block_shapes[0]) * together * self.dtype.itemsize
        self.shape = shape[0], shape[1]
        if self.dtype.kind not in "iuf":
            raise UserError(f"{self.path}: holds values of type {self.dtype}; expected real numbers")
        if no_data is not None and not np.isnan(no_data) and in_type(no_data, self.dtype) is None:
            raise UserError(f"{self.path}: holds {self.dtype} numbers, which can never be --no-data {no_data:g}")
        self.no_data = found if no_data is None else no_data
        self.notes += note_on(found, self.dtype)
        self._masked = rasterio.enums.MaskFlags.per_dataset in flags and rasterio.enums.MaskFlags.alpha not in flags

    @property
    def output_no_data(self) -> float | int | None:
        """The value of pixels without data in an output of the scene's type; None if there can be no such pixels."""
        possible = self.no_data is not None or self._masked or self._alpha or self.dtype.kind == "f"
        return value_for(self.dtype, self.no_data) if possible else None

    def read(self, box: Box) -> Scene:
        """Read a window; a pixel without data gets the window's nearest spectrum with data, else zeros."""
        from rasterio.windows import Window  # noqa: PLC0415

        window = Window.from_slices(*box)
        with damage_reported(self.path):
            if self._layout:
                cube = envi.read_window(self._layout, *box)
            else:
                bands = [band for band in self.file.indexes if band != self._alpha]
                cube = np.moveaxis(self.file.read(bands, window=window), 0, -1)
            valid = valid_pixels(cube, self.no_data)
            if self._masked:
                valid &= self.file.read_masks(1, window=window) > 0
            if self._alpha:
                valid &= self.file.read(self._alpha, window=window) > 0
            check_size(cube, valid, str(self.path))
        cube = filled(np.ascontiguousarray(cube), valid) if valid.any() else np.zeros(cube.shape, cube.dtype)
        return Scene(
            self.path.stem, cube, source=str(self.path), valid=valid, no_data=self.no_data, wavelengths=self.wavelengths
        )

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Return percentiles of all values of pixels with data, equal to those of `np.percentile`.

        A radix selection: values become unsigned integers of the same order, which are counted by 16 bits at a time.
        It takes one pass over the file for types of 16 bits and two for 32 bits.

        Args:
            shares: in percent, 0 to 100.

        Raises:
            UserError: no pixel holds data.
        """
        bits = 8 * self.dtype.itemsize
        step = min(bits, 16)
        found: dict[int, tuple[int, int]] = {}  # rank → (value's highest bits, rank among values with these bits)
        for shift in range(bits - step, -1, -step):
            counts = {prefix: np.zeros(2**step, dtype=np.int64) for prefix in {p for p, _ in found.values()} or {0}}
            for keys in self._keys():
                for prefix in counts:
                    chosen = keys[keys >> keys.dtype.type(shift + step) == prefix] if found else keys
                    digits = chosen >> keys.dtype.type(shift) & keys.dtype.type(2**step - 1)
                    counts[prefix] += np.bincount(digits.astype(np.int64), minlength=2**step)
            if not found:
                total = int(counts[0].sum())
                if not total:
                    raise UserError(f"{self.path}: no pixel holds data; name another value with --no-data")
                places = [share / 100 * (total - 1) for share in shares]
                found = {rank: (0, rank) for place in places for rank in (math.floor(place), math.ceil(place))}
            for rank, (prefix, inside) in found.items():
                below = counts[prefix].cumsum()
                digit = int(np.searchsorted(below, inside, side="right"))
                found[rank] = prefix << step | digit, inside - int(below[digit - 1] if digit else 0)
        results = []
        for place in places:
            ends = [self._value(found[rank][0]) for rank in (math.floor(place), math.ceil(place))]
            results.append(float(np.percentile(np.array(ends, self.dtype), 100 * (place % 1))))
        return results

    def _keys(self) -> Iterator[np.ndarray]:
        """Yield the values of pixels with data as unsigned integers of the same order, line by line of each window."""
        top = 1 << (8 * self.dtype.itemsize - 1)
        for box in tqdm(boxes(self.shape, 256), unit="block", desc="scale of values"):
            scene = self.read(box)
            for line, valid in zip(scene.cube, scene.valid, strict=True) if scene.valid.any() else ():
                bits = line[valid].view(f"u{self.dtype.itemsize}").ravel()
                if self.dtype.kind == "i":
                    bits = bits ^ bits.dtype.type(top)
                elif self.dtype.kind == "f":
                    bits = np.where(
                        bits >> bits.dtype.type(8 * self.dtype.itemsize - 1), ~bits, bits | bits.dtype.type(top)
                    )
                yield bits

    def _value(self, key: int) -> Any:
        """The value that an unsigned integer of `_keys` stands for."""
        width = 8 * self.dtype.itemsize
        top = 1 << (width - 1)
        if self.dtype.kind == "i":
            key ^= top
        elif self.dtype.kind == "f":
            key = key ^ top if key & top else key ^ ((1 << width) - 1)
        return np.array([key], dtype=f"u{self.dtype.itemsize}").view(self.dtype)[0]


def boxes(shape: tuple[int, int], side: int) -> list[Box]:
    """Return the windows of at most `side` rows and columns that cover a scene, in row-major order."""
    starts = [range(0, length, side) for length in shape]
    return [
        (slice(row, min(row + side, shape[0])), slice(column, min(column + side, shape[1])))
        for row in starts[0]
        for column in starts[1]
    ]
