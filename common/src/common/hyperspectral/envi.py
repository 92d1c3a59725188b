"""ENVI scenes: a text header `.hdr` beside a flat binary file.

Reads every interleave (bsq, bil, bip), byte order, offset and numeric type, wavelengths with
their unit, the value of pixels without data, and the `map info`. No package is used,
because GDAL and Spectral Python accept a truncated file without an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import UserError
from common.hyperspectral.stored import Georeference, Stored

_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
CODES = {np.dtype(kind).name: code for code, kind in _TYPES.items() if kind[0] != "c"}
"""Name of a real NumPy type → its code as `data type` in a header."""
# Order of the axes in the file, and the positions of rows, columns and bands in that order.
_INTERLEAVES: dict[str, tuple[str, tuple[int, int, int]]] = {
    "bsq": ("brc", (1, 2, 0)),
    "bil": ("rbc", (0, 2, 1)),
    "bip": ("rcb", (0, 1, 2)),
}
_BYTE_ORDERS: dict[str, Literal["<", ">"]] = {"0": "<", "1": ">"}
_IN_NM = {"nanometers": 1.0, "nanometres": 1.0, "nm": 1.0, "micrometers": 1e3, "micrometres": 1e3, "microns": 1e3}
_IN_NM |= {"um": 1e3, "µm": 1e3, "μm": 1e3, "millimeters": 1e6, "mm": 1e6, "angstroms": 0.1}
# Usual suffixes of the binary file.
_BINARIES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin")
OTHER_FORMATS = (".mat", ".h5", ".hdf5", ".npy", ".npz", ".tif", ".tiff")
"""Suffixes that no binary file of a header has."""


def find_header(path: Path) -> Path | None:
    """Return the header that a path names, or the one beside a binary file (`x.hdr`, `x.img.hdr`), or None.

    A file of another format has no header, even if one lies beside it.
    """
    if path.suffix.lower() == ".hdr":
        return path if path.is_file() else None
    if path.suffix.lower() in OTHER_FORMATS:
        return None
    wanted = (f"{path.name}.hdr".lower(), f"{path.stem}.hdr".lower())
    beside = {file.name.lower(): file for file in path.parent.glob("*") if file.is_file()}
    return next((beside[name] for name in wanted if name in beside), None)


@dataclass(frozen=True)
class Layout:
    """A flat binary file that fits its header.

    Attributes:
        binary: the file, of the size that the header describes.
        fields: the header's fields, without empty ones.
        shape: rows, columns, bands.
        dtype: as stored, with its byte order.
        axes, order: order of the axes in the file, and the positions of rows, columns and bands in that order.
        offset: bytes before the values.
    """

    binary: Path
    fields: dict[str, str]
    shape: tuple[int, int, int]
    dtype: np.dtype
    axes: str
    order: tuple[int, int, int]
    offset: int


def read_layout(header: Path, binary: Path | None = None) -> Layout:
    """Read a header and compare the size of its binary file with it.

    Args:
        binary: the file that the user named; by default the one beside the header.

    Raises:
        UserError: the file is not an ENVI header, a field is missing or unknown, or the binary file is missing or
            has another size.
    """
    fields = {name: value for name, value in read_header(header).items() if value}
    for field in ("file compression", "major frame offsets", "minor frame offsets"):
        if fields.get(field, "").strip("0, "):
            raise UserError(f"{header}: {field} is {fields[field]}; expected a flat file, save the scene without it")
    for name in ("lines", "samples", "bands", "data type", "header offset"):
        if not re.fullmatch(r"\d+", fields.get(name, "0")):
            raise UserError(f"{header}: {name} is {fields[name]!r}; expected a whole number")
    try:
        rows, columns, bands = (int(fields[name]) for name in ("lines", "samples", "bands"))
        dtype = np.dtype(_TYPES[int(fields["data type"])])
        axes, order = _INTERLEAVES[(fields.get("interleave", "bsq")).lower()]
        offset = int(fields.get("header offset", "0"))
        stored = dtype.newbyteorder(_BYTE_ORDERS[fields.get("byte order", "0")])
    except KeyError as error:
        raise UserError(
            f"{header}: {error} is missing or unknown; expected lines, samples, bands, a numeric data type, "
            "interleave bsq, bil or bip, and byte order 0 or 1"
        ) from None
    if min(rows, columns, bands) < 1:
        raise UserError(f"{header}: describes {rows} × {columns} × {bands} values; expected at least one")
    expected = offset + rows * columns * bands * dtype.itemsize
    binary = binary or _find_binary(header, expected)
    if (found := binary.stat().st_size) != expected:
        remedy = "the file is incomplete, copy it again" if found < expected else "the header does not fit, correct it"
        raise UserError(
            f"{binary}: has {found:,} bytes but {header.name} describes {expected:,} ({rows} × {columns} × {bands} "
            f"of {dtype}); {remedy}"
        )
    return Layout(binary, fields, (rows, columns, bands), stored, axes, order, offset)


def read(header: Path, binary: Path | None = None) -> Stored:
    """Read a scene by its header; arguments and errors as in `read_layout`.

    Returns:
        values `(rows, columns, bands)`, or `(rows, columns)` for a single band.
    """
    layout = read_layout(header, binary)
    size = dict(zip("rcb", layout.shape, strict=True))
    shape = tuple(size[axis] for axis in layout.axes)
    flat = np.memmap(layout.binary, dtype=layout.dtype, mode="r", offset=layout.offset, shape=shape)
    values = np.ascontiguousarray(flat.transpose(layout.order), dtype=layout.dtype.newbyteorder("="))
    bands = layout.shape[2]
    return Stored(
        values[..., 0] if bands == 1 else values,
        str(layout.binary),
        wavelengths(header, layout.fields, bands),
        _georeference(layout.fields),
        declared(header, layout.fields),
        bands="last",
        notes=notes(layout.fields),
    )


def read_window(layout: Layout, rows: slice, columns: slice) -> np.ndarray:
    """Read a part of a scene, `(rows, columns, bands)`, line by line, because a mapped file counts as used memory."""
    (height, width, bands), size = layout.shape, layout.dtype.itemsize
    shape = (rows.stop - rows.start, columns.stop - columns.start, bands)
    cube = np.empty(shape, layout.dtype.newbyteorder("="))
    together = bands if layout.axes == "rcb" else 1  # the bands of a pixel lie side by side
    with layout.binary.open("rb", buffering=0) as file:
        for i, row in enumerate(range(rows.start, rows.stop)):
            for band in range(0, bands, together):
                line = {"brc": band * height + row, "rbc": row * bands + band, "rcb": row}[layout.axes]
                file.seek(layout.offset + (line * width + columns.start) * together * size)
                stored = np.frombuffer(file.read(shape[1] * together * size), layout.dtype)
                cube[i, :, band : band + together] = stored.reshape(-1, together)
    return cube


def read_header(header: Path) -> dict[str, str]:
    """Return the fields of a header: lower-case name → text without braces; an empty field is empty.

    Raises:
        UserError: the file is not an ENVI header, or a brace is never closed.
    """
    content = header.read_bytes()  # ASCII in the format's definition, but programs also write other encodings
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    lines = iter(text.strip().splitlines())
    if not next(lines, "").upper().startswith("ENVI"):
        raise UserError(f"{header}: does not begin with ENVI; expected an ENVI header")
    fields = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        value = value.strip()
        name = " ".join(name.lower().split())
        if not value.startswith("{"):
            fields[name] = re.split(r"\s;", value)[0].strip()  # a comment may follow
            continue
        # A value in braces may have several lines, with comments, equals signs and further braces.
        while value.count("{") > value.count("}"):
            following = next(lines, None)
            if following is None:
                raise UserError(f"{header}: the brace of {name} is never closed; the file is incomplete")
            value += "" if following.lstrip().startswith(";") else f"\n{following}"
        fields[name] = value[1 : value.rindex("}")].strip()
    return fields


def _find_binary(header: Path, size: int) -> Path:
    """The binary of a header: the only file of its name with the right size, else the one with a usual suffix.

    Raises:
        UserError: there is no such file, or there are several.
    """
    stem = header.stem.lower()  # of x.hdr and of x.img.hdr
    files = [file for file in sorted(header.parent.glob("*")) if file.is_file() and file.suffix.lower() != ".hdr"]
    usual = [file for file in files if file.name.lower() in {f"{stem}{suffix}" for suffix in _BINARIES}]
    others = [file for file in files if file.stem.lower() == stem and file not in usual]
    fitting = [[file for file in some if file.stat().st_size == size] for some in (usual, others)]
    found = next((some for some in (*fitting, usual) if some), [])
    if len(found) > 1:
        raise UserError(
            f"{header}: {' and '.join(file.name for file in found)} could be its binary file; "
            "name the binary file itself"
        )
    if not found:
        raise UserError(
            f"{header}: the binary file is missing; expected {header.stem} or {header.stem}.img beside it, "
            "or name the binary file itself"
        )
    return found[0]


def declared(header: Path, fields: dict[str, str]) -> float | None:
    """Return the value that a header declares for pixels without data, or None.

    Raises:
        UserError: the declared value is not a number.
    """
    text = fields.get("data ignore value", "")
    if text.lower() in ("", "none", "null"):
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{header}: data ignore value is {text!r}; expected a number") from None


def notes(fields: dict[str, str]) -> tuple[str, ...]:
    """Return what the header declares about the stored numbers but is not applied, one sentence each."""
    good = re.split(r"[,\s]+", fields.get("bbl", ""))
    bad = [band for band, flag in enumerate(good) if flag and not flag.strip(".0")]
    found = []
    if bad:
        listed = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        found.append(f"the header marks {len(bad)} bands as bad (counted from 0: {listed}); they are used nevertheless")
    scaled = [name for name in ("data gain values", "data offset values") if fields.get(name)]
    if scaled:
        found.append(f"the header gives {' and '.join(scaled)}, the numbers are taken as they are stored")
    if fields.get("map info") and _georeference(fields) is None:
        found.append("the header's map info cannot be read, outputs get no georeference")
    return tuple(found)


def wavelengths(header: Path, fields: dict[str, str], bands: int) -> np.ndarray | None:
    """Return the band centres in nm, `(bands,)`, or None; without a unit, values below 100 are taken as micrometres.

    Raises:
        UserError: they are not numbers, or not one per band.
    """
    if not fields.get("wavelength"):
        return None
    try:
        values = np.array([float(value) for value in re.split(r"[,\s]+", fields["wavelength"].strip(" ,\n"))])
    except ValueError as error:
        raise UserError(f"{header}: wavelength: {error}; expected numbers separated by commas") from None
    if len(values) != bands:
        raise UserError(f"{header}: lists {len(values)} wavelengths; expected one for each of the {bands} bands")
    if not (np.isfinite(values) & (values > 0)).all():  # zeros stand where a program knew none
        return None
    unit = fields.get("wavelength units", "").lower()
    if unit in ("index", "ghz", "mhz"):
        return None
    if unit == "wavenumber":  # per centimetre
        return 1e7 / values
    return values * _IN_NM.get(unit, 1e3 if values.max() < 100 else 1.0)


def _georeference(fields: dict[str, str]) -> Georeference | None:
    """`map info = {projection, column, row, x, y, width, height, zone, hemisphere, datum}`; pixels from 1.

    The coordinate system is kept for UTM on WGS-84 and for plain longitude and latitude; otherwise
    only the coordinates are. Any other text gives no georeference.
    """
    info = [value.strip() for value in fields.get("map info", "").split(",")]
    if len(info) < 7:
        return None
    named = dict(value.lower().replace(" ", "").partition("=")[::2] for value in info[7:])
    try:
        column, row, x, y, width, height = (float(value) for value in info[1:7])
        zone = int(info[7]) if info[0].upper() == "UTM" and len(info) > 9 and "84" in info[9] else None
        angle = -math.radians(float(named.get("rotation") or 0))
    except ValueError:
        return None
    if not np.isfinite([column, row, x, y, width, height, angle]).all():
        return None
    tags: dict[int, tuple[float, ...] | str] = {33550: (width, height, 0.0)}
    tags[33922] = (column - 1, row - 1, 0.0, x, y, 0.0)
    if angle:
        a, b = width * math.cos(angle), -width * math.sin(angle)
        d, e = -height * math.sin(angle), -height * math.cos(angle)
        left, top = x - a * (column - 1) - b * (row - 1), y - d * (column - 1) - e * (row - 1)
        tags = {34264: (a, b, 0.0, left, d, e, 0.0, top, *(0.0,) * 4, 0.0, 0.0, 0.0, 1.0)}
    if zone is not None:
        epsg = (32600 if info[8].lower() == "north" else 32700) + zone
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    elif "lat" in info[0].lower():
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    return Georeference(tags)
