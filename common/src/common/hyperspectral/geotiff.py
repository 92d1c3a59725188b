"""Read and write GeoTIFF files with tifffile.

A map gets the georeference tags of its scene unchanged, so coordinate systems need not be interpreted. Some
compressions, for example LZW, need `pip install imagecodecs`, or `rasterio`, whose GDAL reads them.
"""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.errors import extra
from common.files import atomic_path
from common.hyperspectral.no_data import as_number
from common.hyperspectral.stored import Georeference, Stored

_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
_METADATA, _NO_DATA = 42112, 42113  # tags of GDAL: XML, and a number as text
_ALPHA = (1, 2)  # values of ExtraSamples: associated and unassociated alpha


def read(path: Path) -> Stored:
    """Read the first image of a file, with its georeference and its no-data declaration.

    Returns:
        values `(rows, columns)` or `(rows, columns, bands)` from samples or planes, `(pages, rows, columns)`
        from pages.

    Raises:
        Exception: the file is damaged; the error can have many types.
    """
    with extra("fullpaper-common[hyperspectral]"):
        import tifffile  # noqa: PLC0415 - slow to import

    # tifffile also parses the no-data value, and warns when the value does not fit its type.
    logging.getLogger("tifffile").addFilter(_is_no_complaint)
    with tifffile.TiffFile(path) as file:
        series, known = file.series[0], file.pages.first.tags
        values, axes = _decoded(path, series), series.axes
        tags = {tag: known[tag].value for tag in _TAGS if tag in known}
        said = declared(path, known)
        notes = [*said.notes]
        # Overviews and masks belong to the first image; all others are further images.
        others = [one.keyframe for one in file.series[1:]]
        mask = next((page.asarray() != 0 for page in others if page.is_mask and page.shape == values.shape[:2]), None)
        if (beside := path.with_name(f"{path.name}.msk")).is_file():
            mask = tifffile.imread(beside) != 0
            mask = mask if mask.ndim == 2 else mask.all(axis=-1)
        further = sum(not (page.is_mask or page.is_reduced) for page in others)
        if further:
            notes.append(f"the file holds {further} more images of other sizes or types; only the first is read")
    bands: Literal["last", "pages"] | None = None
    if values.ndim == 3:
        bands = "last" if "S" in axes else "pages"
        values = np.ascontiguousarray(np.moveaxis(values, 0, -1) if axes.startswith("S") else values)
        if said.alpha is not None and "S" in axes:
            mask = values[..., said.alpha] != 0
            values = np.delete(values, said.alpha, axis=-1)
    place = Georeference(tags) if tags else None
    return Stored(values, str(path), said.wavelengths, place, said.no_data, mask, bands, tuple(notes))


@dataclass(frozen=True)
class Declared:
    """Declarations about the numbers of a file, in the file or in GDAL's `.aux.xml` beside it.

    Attributes:
        no_data: the value of pixels without data, or None.
        wavelengths: in nm, `(bands,)`, or None.
        alpha: number, from 0, of the sample that is a data mask and not a band; None without one.
        notes: see `Stored`.
    """

    no_data: float | None
    wavelengths: np.ndarray | None
    alpha: int | None
    notes: tuple[str, ...]


def read_declared(path: Path) -> Declared:
    """Read what a file declares about its numbers, without reading the numbers."""
    import tifffile  # noqa: PLC0415 - slow to import

    with tifffile.TiffFile(path) as file:
        return declared(path, file.pages.first.tags)


def declared(path: Path, tags: Any) -> Declared:
    """Read the declarations; `tags` are tifffile's tags of the first page."""
    text = str(tags[_NO_DATA].value).strip("\0 \n") if _NO_DATA in tags else ""
    metadata = str(tags[_METADATA].value) if _METADATA in tags else ""
    notes = _notes(metadata)
    if tags.valueof("PhotometricInterpretation") == 0:
        notes.append("the file is marked as white is zero, its numbers are taken as they are stored")
    beside = path.with_name(f"{path.name}.aux.xml")
    if not text and beside.is_file():
        found = re.findall(r"<NoDataValue>([^<]*)<", beside.read_text(encoding="utf-8", errors="replace"))
        text = found[0].strip() if found else ""
        if len(set(found)) > 1:
            notes.append(f"{beside.name} declares several values for pixels without data; {text} is used")
    no_data: float | None = None
    if text.lower() not in ("", "none", "null"):
        try:
            no_data = as_number(text)
        except ValueError:
            notes.append(f"the file declares {text!r} for pixels without data, which is not a number; use --no-data")
    samples, extras = tags.valueof("SamplesPerPixel", 1), tags.valueof("ExtraSamples") or ()
    alpha = next((samples - len(extras) + i for i, kind in enumerate(extras) if kind in _ALPHA), None)
    if alpha is not None:
        notes.append(f"band {alpha + 1} is marked as alpha: it is used as a data mask, not as a band of the scene")
    number = r"\d*\.?\d+(?:[eE][+-]?\d+)?"
    named = dict(re.findall(rf'name="CENTRAL_WAVELENGTH_UM" sample="(\d+)"[^>]*>\s*({number})\s*<', metadata))
    centres = np.array([float(named.get(str(i), "nan")) for i in range(samples) if i != alpha])
    wavelengths = None if np.isnan(centres).any() else 1e3 * centres
    return Declared(no_data, wavelengths, alpha, tuple(notes))


def _decoded(path: Path, series: Any) -> np.ndarray:
    """The numbers of an image; through GDAL, where it is installed, for compressions that tifffile cannot undo."""
    try:
        return series.asarray()
    except (ImportError, NotImplementedError, ValueError) as error:
        needs_codec = isinstance(error, ImportError) or "imagecodecs" in str(error)
        if not needs_codec or series.axes not in ("YX", "YXS", "SYX") or find_spec("rasterio") is None:
            raise
    import rasterio  # noqa: PLC0415 - an extra

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            bands = file.read()
    return {"YX": bands[0], "YXS": np.moveaxis(bands, 0, -1), "SYX": bands}[series.axes]


def _is_no_complaint(record: logging.LogRecord) -> bool:
    return "GDAL_NODATA" not in record.getMessage()


def _notes(metadata: str) -> list[str]:
    """What GDAL's XML says of the numbers' unit: a scale or an offset, which are not applied."""
    said = []
    for role, neutral in (("scale", "1"), ("offset", "0")):
        values = {value[:8].rstrip("0") or "0" for value in re.findall(rf'role="{role}"\s*>([^<]*)<', metadata)}
        if values - {neutral}:
            said.append(f"{role} {', '.join(sorted(values)[:3])}")
    return [f"the file declares {' and '.join(said)}, its numbers are taken as they are stored"] if said else []


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
