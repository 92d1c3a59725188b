"""GeoTIFF through tifffile.

A map gets back the very tags that its scene came with, so no coordinate system has to be understood.
LZW files need `pip install imagecodecs`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from common.errors import extra
from common.files import atomic_path
from common.hyperspectral.stored import Georeference, Stored

_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
_NO_DATA = 42113  # GDAL's: a number as text


def read(path: Path) -> Stored:
    """Read the first picture of a file, with its place and the value that it declares for no data.

    Returns:
        values `(rows, columns)` or `(rows, columns, bands)`; bands may be samples, planes or pages.

    Raises:
        Exception: of many kinds, when the file is damaged.
    """
    with extra("fullpaper-common[hyperspectral]"):
        import tifffile  # noqa: PLC0415 - slow to import

    with tifffile.TiffFile(path) as file:
        series, known = file.series[0], file.pages.first.tags
        values, axes = series.asarray(), series.axes
        tags = {tag: known[tag].value for tag in _TAGS if tag in known}
        declared = str(known[_NO_DATA].value) if _NO_DATA in known else ""
    if values.ndim == 3:
        rows, columns = axes.index("Y"), axes.index("X")
        values = np.ascontiguousarray(values.transpose(rows, columns, 3 - rows - columns))
    no_data = None
    with contextlib.suppress(ValueError):  # "none" and the like declare nothing
        no_data = float(declared.strip("\0 "))
    return Stored(values, str(path), georeference=Georeference(tags) if tags else None, no_data=no_data)


def write_geotiff(
    path: str | Path, bands: np.ndarray, georeference: Georeference | None = None, *, no_data: float | None = None
) -> None:
    """Write `(rows, columns)` or `(rows, columns, bands)` as a deflated GeoTIFF, atomically.

    Args:
        no_data: declared as the value of pixels without data.
    """
    with extra("fullpaper-common[hyperspectral]"):
        import tifffile  # noqa: PLC0415 - slow to import

    tags = georeference.tags.items() if georeference else ()
    extras = [(tag, _TAGS[tag], 0 if isinstance(v, str) else len(v), v, True) for tag, v in tags]
    if no_data is not None:
        extras.append((_NO_DATA, "s", 0, f"{no_data:.17g}", True))
    plane = None if bands.ndim == 2 else "contig"
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as file:
        file.write(
            bands, photometric="minisblack", planarconfig=plane, compression="zlib", metadata=None, extratags=extras
        )
