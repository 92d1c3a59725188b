"""Write scenes as ENVI, GeoTIFF, MATLAB or NumPy files, with wavelengths and georeference, as `readers` reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_path
from common.hyperspectral import envi
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.outputs import output_files
from common.hyperspectral.stored import Georeference

_KEPT_LISTS = (
    "wavelength", "fwhm", "bbl", "band names", "default bands", "data gain values", "data offset values",
    "data reflectance gain values", "data reflectance offset values", "coordinate system string",
)  # fmt: skip
_KEPT_TEXTS = ("wavelength units", "sensor type", "acquisition time", "reflectance scale factor", "cloud cover")


def write_scene(
    path: Path, cube: np.ndarray, scale: int = 1, *, description: str = "", wavelengths: np.ndarray | None = None,
    georeference: Georeference | None = None, source: str = "", no_data: float | None = None,
) -> list[Path]:  # fmt: skip
    """Write a cube that a network made of a scene; the suffix chooses the format.

    Args:
        path: `.hdr` (ENVI, with `.img` beside it), `.tif`, `.mat`, `.npz` or `.npy`.
        cube: `(H, W, bands)`.
        scale: size of the cube relative to the scene that `source` and `georeference` describe.
        description: for ENVI's header.
        wavelengths: in nm. ENVI, MATLAB and `.npz` files contain them; for GeoTIFF and `.npy` they are in a file
            beside it (`NAME.wavelengths.txt`).
        source: the input, `FILE[:KEY]`; an ENVI header's map info and a MATLAB key are taken from it.
        no_data: value of pixels without data, which ENVI and GeoTIFF files declare.

    Returns:
        the files written.

    Raises:
        UserError: the suffix is unknown, or the format does not support the type.
    """
    check_type(path, cube.dtype)
    suffix = path.suffix.lower()
    if suffix in (".hdr", ".img", ".dat"):
        return _write_envi(path, cube, scale, description, wavelengths, georeference, source, no_data)
    if suffix in (".tif", ".tiff"):
        place = None if georeference is None else scaled_georeference(georeference, scale)
        write_geotiff(path, cube, place, no_data=no_data)
    elif suffix == ".mat":
        import scipy.io  # noqa: PLC0415 - slow to import

        key = source.rpartition(":")[2] if re.fullmatch(r".*\.mat:[A-Za-z]\w*", source) else "cube"
        extra = {} if wavelengths is None else {"wavelengths": wavelengths}
        with atomic_path(path) as temporary:
            scipy.io.savemat(temporary, {key: cube, **extra}, do_compression=True)
        return [path]
    else:
        with atomic_path(path) as temporary:
            if suffix == ".npz":
                known: dict[str, Any] = {} if wavelengths is None else {"wavelengths": wavelengths}
                np.savez(temporary, cube=cube, **known)
                return [path]
            np.save(temporary, cube)
    if wavelengths is None:
        return [path]
    listed = output_files(path)[1]
    with atomic_path(listed) as temporary:
        temporary.write_text("".join(f"{value:g}\n" for value in wavelengths), encoding="utf-8")
    return [path, listed]


def check_type(path: Path, dtype: np.dtype) -> None:
    """Refuse an output whose format does not support the type, before any work is done.

    Raises:
        UserError: the format does not support the type, or the suffix is unknown.
    """
    header = output_files(path)[0]
    if header.suffix == ".hdr" and dtype.name not in envi.CODES:
        raise UserError(f"{path}: ENVI has no type {dtype}; choose .npy or .tif for --output")


def scaled_georeference(georeference: Georeference, scale: int) -> Georeference:
    """Return the georeference of an image with `scale` times smaller pixels and the same upper left corner.

    A tie point gives a pixel position, counted from the upper left corner of the first pixel, or from its centre if key
    1025 is 2. Only positions from the corner are proportional to the scale.
    """
    tags = dict(georeference.tags)
    size, ties, matrix = tags.get(33550), tags.get(33922), tags.get(34264)
    first = 0.5 if geo_key(georeference, 1025) == 2 else 0.0
    if isinstance(size, tuple):
        tags[33550] = (size[0] / scale, size[1] / scale, *size[2:])
    if isinstance(ties, tuple):
        tags[33922] = tuple((v + first) * scale - first if i % 6 < 2 else v for i, v in enumerate(ties))
    if isinstance(matrix, tuple):  # columns 0 and 1 of the 4 × 4 matrix multiply the column and the row
        values = [value / scale if i % 4 < 2 and i < 12 else value for i, value in enumerate(matrix)]
        for row in (0, 4, 8):
            values[row + 3] += first * (matrix[row] + matrix[row + 1]) * (1 / scale - 1)
        tags[34264] = tuple(values)
    return Georeference(tags)


def geo_key(georeference: Georeference, key: int) -> int | None:
    """Return a number of a GeoTIFF's key directory, such as 3072, the projected coordinate system's EPSG code."""
    directory = georeference.tags.get(34735)
    if not isinstance(directory, tuple):
        return None
    entries = [directory[i : i + 4] for i in range(4, len(directory), 4)]
    return next((int(value) for number, location, _, value in entries if number == key and location == 0), None)


def _write_envi(  # noqa: PLR0917
    path: Path, cube: np.ndarray, scale: int, description: str, wavelengths: np.ndarray | None,
    georeference: Georeference | None, source: str, no_data: float | None,
) -> list[Path]:  # fmt: skip
    header, binary = output_files(path)
    lines = [
        "ENVI",
        "description = {" + description + "}",
        f"samples = {cube.shape[1]}",
        f"lines = {cube.shape[0]}",
        f"bands = {cube.shape[2]}",
        "header offset = 0",
        "file type = ENVI Standard",
        f"data type = {envi.CODES[cube.dtype.name]}",
        "interleave = bsq",
        "byte order = 0",
    ]
    if no_data is not None:
        lines.append(f"data ignore value = {no_data:.17g}")
    known = _header_fields(source)
    lines += [f"{name} = {known[name]}" for name in _KEPT_TEXTS if known.get(name)]
    lines += [f"{name} = {{{known[name]}}}" for name in _KEPT_LISTS if known.get(name)]
    if wavelengths is not None and not known.get("wavelength"):
        lines += [
            "wavelength units = Nanometers",
            "wavelength = {" + ", ".join(f"{value:.6g}" for value in wavelengths) + "}",
        ]
    lines += _map_info(known, georeference, scale)
    with atomic_path(binary) as temporary, temporary.open("wb") as file:
        for band in range(cube.shape[2]):  # band by band, without a transposed copy of the whole scene
            file.write(np.ascontiguousarray(cube[..., band], dtype=cube.dtype.newbyteorder("<")).tobytes())
    with atomic_path(header) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [header, binary]


def _header_fields(source: str) -> dict[str, str]:
    """The fields of the input's ENVI header; empty for another format."""
    path = Path(source)
    found = envi.find_header(path) if path.is_file() else None
    return envi.read_header(found) if found else {}


def _map_info(known: dict[str, str], georeference: Georeference | None, scale: int) -> list[str]:
    """`map info` of the smaller pixels, in which positions count from 1 at the corner of the first pixel."""
    info = [field.strip() for field in known.get("map info", "").split(",")]
    if len(info) >= 7:
        try:
            place = [(float(value) - 1) * scale + 1 for value in info[1:3]]
            size = [float(value) / scale for value in info[5:7]]
        except ValueError:  # not a valid map info
            return []
        return [_joined_info(info[0], place, info[3:5], size, info[7:])]
    tags = scaled_georeference(georeference, scale).tags if georeference else {}
    size_tag, ties = tags.get(33550), tags.get(33922)
    if georeference is None or not isinstance(size_tag, tuple) or not isinstance(ties, tuple):
        return []
    first = 1.5 if geo_key(georeference, 1025) == 2 else 1.0
    place = [float(ties[0]) + first, float(ties[1]) + first]
    code = geo_key(georeference, 3072) or 0
    name, rest = "Arbitrary", []
    if code // 100 in (326, 327):
        name, rest = "UTM", [str(code % 100), "North" if code // 100 == 326 else "South", "WGS-84", "units=Meters"]
    elif geo_key(georeference, 2048) == 4326:
        name, rest = "Geographic Lat/Lon", ["WGS-84", "units=Degrees"]
    corner = [f"{float(value):.15g}" for value in ties[3:5]]
    return [_joined_info(name, place, corner, [float(value) for value in size_tag[:2]], rest)]


def _joined_info(name: str, place: list[float], corner: list[str], size: list[float], rest: list[str]) -> str:
    numbers = [*(f"{v:.10g}" for v in place), *corner, *(f"{v:.15g}" for v in size)]
    return "map info = {" + ", ".join([name, *numbers, *rest]) + "}"
