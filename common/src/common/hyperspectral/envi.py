"""ENVI scenes: a text header `.hdr` beside a flat binary file.

Reads every interleave (bsq, bil, bip), byte order, offset and numeric type, wavelengths with
their unit, and the `map info` of an unrotated picture.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.hyperspectral.readers import Georeference

_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of the file, and where rows, columns and bands are among them.
_INTERLEAVES = {"bsq": ("brc", (1, 2, 0)), "bil": ("rbc", (0, 2, 1)), "bip": ("rcb", (0, 1, 2))}
_IN_NM = {"nanometers": 1.0, "nm": 1.0, "micrometers": 1e3, "microns": 1e3, "um": 1e3, "µm": 1e3}


def find_header(path: Path) -> Path | None:
    """The header of a path that is one, or of a binary file with one beside it (`x.hdr`, `x.img.hdr`)."""
    candidates = [path] if path.suffix.lower() == ".hdr" else [path.with_suffix(".hdr"), Path(f"{path}.hdr")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read(header: Path) -> tuple[np.ndarray, str, np.ndarray | None, Georeference | None]:
    """Read a scene by its header.

    Returns:
        values `(rows, columns, bands)`, or `(rows, columns)` for a single band; the binary file's
        name; wavelengths in nm; place.

    Raises:
        UserError: not an ENVI header, a field missing or unknown, or a binary file that is
            missing or too short.
    """
    text = header.read_text(encoding="utf-8", errors="replace")
    if not text.lstrip().startswith("ENVI"):
        raise UserError(f"{header}: does not begin with ENVI; expected an ENVI header")
    pairs = re.findall(r"^\s*([^=\n;]+?)\s*=\s*(\{[^}]*\}|[^\n]*)", text, flags=re.MULTILINE)
    fields = {name.lower(): value.strip("{} \t\r\n") for name, value in pairs}
    try:
        rows, columns, bands = (int(fields[name]) for name in ("lines", "samples", "bands"))
        dtype = np.dtype(_TYPES[int(fields["data type"])])
        axes, order = _INTERLEAVES[fields.get("interleave", "bsq").lower()]
        offset = int(fields.get("header offset", "0"))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{header}: {error} is missing or unknown; expected lines, samples, bands, a numeric data type "
            "and interleave bsq, bil or bip"
        ) from None
    binary = _binary(header)
    size = {"r": rows, "c": columns, "b": bands}
    expected = offset + rows * columns * bands * dtype.itemsize
    if (found := binary.stat().st_size) < expected:
        raise UserError(
            f"{binary}: has {found:,} bytes but {header.name} describes {expected:,} ({rows} × {columns} × {bands} "
            f"of {dtype}); the file is incomplete, copy it again"
        )
    stored = dtype.newbyteorder(">" if fields.get("byte order", "0") == "1" else "<")
    flat = np.memmap(binary, dtype=stored, mode="r", offset=offset, shape=tuple(size[axis] for axis in axes))
    values = np.ascontiguousarray(flat.transpose(order), dtype=dtype)
    return values[..., 0] if bands == 1 else values, str(binary), _wavelengths(header, fields, bands), _place(fields)


def _binary(header: Path) -> Path:
    stem = header.with_suffix("")
    names = [stem, *(stem.with_suffix(suffix) for suffix in (".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin"))]
    for name in names:
        if name.is_file():
            return name
    raise UserError(f"{header}: the binary file is missing; expected {stem.name} or {stem.name}.img beside it")


def _wavelengths(header: Path, fields: dict[str, str], bands: int) -> np.ndarray | None:
    """Band centres in nm; without a unit, values below 100 can only be micrometres."""
    if not fields.get("wavelength"):
        return None
    try:
        values = np.array([float(value) for value in fields["wavelength"].split(",")])
    except ValueError as error:
        raise UserError(f"{header}: wavelength: {error}; expected numbers separated by commas") from None
    if len(values) != bands:
        raise UserError(f"{header}: lists {len(values)} wavelengths; expected one for each of the {bands} bands")
    return values * _IN_NM.get(fields.get("wavelength units", "").lower(), 1e3 if values.max() < 100 else 1.0)


def _place(fields: dict[str, str]) -> Georeference | None:
    """`map info = {projection, column, row, x, y, width, height, zone, hemisphere, datum}`; pixels from 1.

    The coordinate system is kept for UTM on WGS-84 and for plain longitude and latitude; otherwise
    only the coordinates are.
    """
    info = [value.strip() for value in fields.get("map info", "").split(",")]
    if len(info) < 7 or "rotation" in fields["map info"].lower():
        return None
    column, row, x, y, width, height = (float(value) for value in info[1:7])
    tags: dict[int, tuple[float, ...] | str] = {33550: (width, height, 0.0)}
    tags[33922] = (column - 1, row - 1, 0.0, x, y, 0.0)
    if info[0].upper() == "UTM" and len(info) > 9 and "84" in info[9]:
        epsg = (32600 if info[8].lower() == "north" else 32700) + int(info[7])
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    elif "lat" in info[0].lower():
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    return Georeference(tags)
