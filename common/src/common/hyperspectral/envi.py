"""ENVI scenes: a text header `.hdr` beside a flat binary file.

Reads every interleave (bsq, bil, bip), byte order, offset and numeric type, wavelengths with
their unit, the value of pixels without data, and the `map info` of an unrotated picture. It is read
here rather than by a package, because GDAL and Spectral Python fill up a truncated file without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import UserError
from common.hyperspectral.stored import Georeference, Stored

_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of the file, and where rows, columns and bands are among them.
_INTERLEAVES = {"bsq": ("brc", (1, 2, 0)), "bil": ("rbc", (0, 2, 1)), "bip": ("rcb", (0, 1, 2))}
_BYTE_ORDERS: dict[str, Literal["<", ">"]] = {"0": "<", "1": ">"}
_IN_NM = {"nanometers": 1.0, "nm": 1.0, "micrometers": 1e3, "microns": 1e3, "um": 1e3, "µm": 1e3}
_BINARIES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin")
"""Usual suffixes of the binary file, the preferred first."""


def find_header(path: Path) -> Path | None:
    """Return the header of a path that is one, or of a binary file with one beside it (`x.hdr`, `x.img.hdr`)."""
    if path.suffix.lower() == ".hdr":
        return path if path.is_file() else None
    wanted = (f"{path.stem}.hdr".lower(), f"{path.name}.hdr".lower())
    beside = {file.name.lower(): file for file in path.parent.glob("*") if file.is_file()}
    return next((beside[name] for name in wanted if name in beside), None)


def read(header: Path, binary: Path | None = None) -> Stored:
    """Read a scene by its header.

    Args:
        binary: the file that the user named; by default the one beside the header.

    Returns:
        values `(rows, columns, bands)`, or `(rows, columns)` for a single band.

    Raises:
        UserError: not an ENVI header, a field missing or unknown, or a binary file that is
            missing or too short.
    """
    fields = read_header(header)
    try:
        rows, columns, bands = (int(fields[name]) for name in ("lines", "samples", "bands"))
        dtype = np.dtype(_TYPES[int(fields["data type"])])
        axes, order = _INTERLEAVES[(fields.get("interleave") or "bsq").lower()]
        offset = int(fields.get("header offset") or 0)
        stored = dtype.newbyteorder(_BYTE_ORDERS[fields.get("byte order") or "0"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{header}: {error} is missing or unknown; expected lines, samples, bands, a numeric data type, "
            "interleave bsq, bil or bip, and byte order 0 or 1"
        ) from None
    if min(rows, columns, bands) < 1 or offset < 0:
        raise UserError(f"{header}: describes {rows} × {columns} × {bands} values from byte {offset}; expected more")
    expected = offset + rows * columns * bands * dtype.itemsize
    binary = binary or _find_binary(header, expected)
    if (found := binary.stat().st_size) < expected:
        raise UserError(
            f"{binary}: has {found:,} bytes but {header.name} describes {expected:,} ({rows} × {columns} × {bands} "
            f"of {dtype}); the file is incomplete, copy it again"
        )
    size = {"r": rows, "c": columns, "b": bands}
    flat = np.memmap(binary, dtype=stored, mode="r", offset=offset, shape=tuple(size[axis] for axis in axes))
    values = np.ascontiguousarray(flat.transpose(order), dtype=dtype)
    return Stored(
        values[..., 0] if bands == 1 else values,
        str(binary),
        _wavelengths(header, fields, bands),
        _place(fields),
        _number(header, fields, "data ignore value"),
    )


def read_header(header: Path) -> dict[str, str]:
    """Return the fields of a header: lower-case name → text without braces; an empty field is empty.

    Raises:
        UserError: this is no ENVI header, or a brace is never closed.
    """
    text = header.read_text(encoding="utf-8-sig", errors="replace")
    lines = iter(text.splitlines())
    if next(lines, "").strip() != "ENVI":
        raise UserError(f"{header}: does not begin with ENVI; expected an ENVI header")
    fields = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        # A value in braces may go on over several lines, and may hold further equals signs.
        while value.lstrip().startswith("{") and "}" not in value:
            following = next(lines, None)
            if following is None:
                raise UserError(f"{header}: the brace of {name.strip()} is never closed; the file is incomplete")
            value += f"\n{following}"
        fields[" ".join(name.lower().split())] = value.strip().removeprefix("{").partition("}")[0].strip()
    return fields


def _find_binary(header: Path, size: int) -> Path:
    """The binary of a header: one with a usual suffix, else the only other file of its name that has the right size."""
    stem = header.stem.lower()  # of x.hdr and of x.img.hdr
    beside = {file.name.lower(): file for file in sorted(header.parent.glob("*")) if file.is_file() and file != header}
    for suffix in _BINARIES:
        if f"{stem}{suffix}" in beside:
            return beside[f"{stem}{suffix}"]
    others = [file for name, file in beside.items() if Path(name).stem == stem and file.stat().st_size == size]
    if len(others) == 1:
        return others[0]
    raise UserError(
        f"{header}: the binary file is missing; expected {header.stem} or {header.stem}.img beside it, "
        "or name the binary file itself"
    )


def _number(header: Path, fields: dict[str, str], name: str) -> float | None:
    if not fields.get(name):
        return None
    try:
        return float(fields[name])
    except ValueError:
        raise UserError(f"{header}: {name} is {fields[name]!r}; expected a number") from None


def _wavelengths(header: Path, fields: dict[str, str], bands: int) -> np.ndarray | None:
    """Band centres in nm; without a unit, values below 100 can only be micrometres."""
    if not fields.get("wavelength"):
        return None
    try:
        values = np.array([float(value) for value in fields["wavelength"].strip(" ,\n").split(",")])
    except ValueError as error:
        raise UserError(f"{header}: wavelength: {error}; expected numbers separated by commas") from None
    if len(values) != bands:
        raise UserError(f"{header}: lists {len(values)} wavelengths; expected one for each of the {bands} bands")
    return values * _IN_NM.get(fields.get("wavelength units", "").lower(), 1e3 if values.max() < 100 else 1.0)


def _place(fields: dict[str, str]) -> Georeference | None:
    """`map info = {projection, column, row, x, y, width, height, zone, hemisphere, datum}`; pixels from 1.

    The coordinate system is kept for UTM on WGS-84 and for plain longitude and latitude; otherwise
    only the coordinates are. What is no such list says nothing about the place.
    """
    info = [value.strip() for value in fields.get("map info", "").split(",")]
    if len(info) < 7 or "rotation" in fields["map info"].lower():
        return None
    try:
        column, row, x, y, width, height = (float(value) for value in info[1:7])
        zone = int(info[7]) if info[0].upper() == "UTM" and len(info) > 9 and "84" in info[9] else None
    except ValueError:
        return None
    tags: dict[int, tuple[float, ...] | str] = {33550: (width, height, 0.0)}
    tags[33922] = (column - 1, row - 1, 0.0, x, y, 0.0)
    if zone is not None:
        epsg = (32600 if info[8].lower() == "north" else 32700) + zone
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    elif "lat" in info[0].lower():
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    return Georeference(tags)
