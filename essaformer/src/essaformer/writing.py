"""Enlarged scenes in the format of their input, with wavelengths, and the place scaled with the pixels.

`common.hyperspectral` reads ENVI, GeoTIFF, MATLAB and NumPy files; this module writes what it reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_path
from common.hyperspectral import envi
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.stored import Georeference

_ENVI_TYPES = {
    "uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13, "int64": 14,
    "uint64": 15,
}  # fmt: skip
FORMATS = (".hdr", ".img", ".dat", ".tif", ".tiff", ".mat", ".npy", ".npz")


def write_scene(
    path: Path, cube: np.ndarray, scale: int, *, wavelengths: np.ndarray | None = None,
    georeference: Georeference | None = None, source: str = "",
) -> list[Path]:  # fmt: skip
    """Write an enlarged cube; the suffix chooses the format.

    Args:
        path: `.hdr` (ENVI, with `.img` beside it), `.tif`, `.mat`, `.npz` or `.npy`.
        cube: `(H, W, bands)`.
        scale: by which it is larger than the scene that `georeference` describes.
        wavelengths: in nm. ENVI and MATLAB keep them in the file, GeoTIFF and NumPy beside it
            (`NAME.wavelengths.txt`).
        source: the input, `FILE[:KEY]`; an ENVI header's map info and a MATLAB key are taken from it.

    Returns:
        the files written.

    Raises:
        UserError: a suffix that is not written, or a type that the format does not have.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: unknown kind of file; expected one ending in {', '.join(FORMATS)}")
    if suffix in (".hdr", ".img", ".dat"):
        return _write_envi(path, cube, scale, wavelengths, source)
    if suffix in (".tif", ".tiff"):
        write_geotiff(path, cube, None if georeference is None else scaled_georeference(georeference, scale))
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
    listed = path.with_name(f"{path.stem}.wavelengths.txt")
    with atomic_path(listed) as temporary:
        temporary.write_text("".join(f"{value:g}\n" for value in wavelengths), encoding="utf-8")
    return [path, listed]


def scaled_georeference(georeference: Georeference, scale: int) -> Georeference:
    """The place of a picture whose pixels are `scale` times smaller; its upper left corner stays where it is.

    A tie point names a pixel position counted from the upper left corner, so positions grow with the scale.
    """
    tags = dict(georeference.tags)
    size, ties, matrix = tags.get(33550), tags.get(33922), tags.get(34264)
    if isinstance(size, tuple):
        tags[33550] = (size[0] / scale, size[1] / scale, *size[2:])
    if isinstance(ties, tuple):
        tags[33922] = tuple(value * scale if i % 6 < 2 else value for i, value in enumerate(ties))
    if isinstance(matrix, tuple):  # columns 0 and 1 of the 4 × 4 matrix multiply the column and the row
        tags[34264] = tuple(value / scale if i % 4 < 2 and i < 12 else value for i, value in enumerate(matrix))
    return Georeference(tags)


def _write_envi(path: Path, cube: np.ndarray, scale: int, wavelengths: np.ndarray | None, source: str) -> list[Path]:
    if cube.dtype.name not in _ENVI_TYPES:
        raise UserError(f"{path}: ENVI has no type {cube.dtype}; choose .npy or .tif for --output")
    header = path.with_suffix(".hdr")
    binary = path.with_suffix(".img") if path.suffix.lower() == ".hdr" else path
    lines = [
        "ENVI",
        "description = {enlarged by a factor of " + f"{scale}" + "}",
        f"samples = {cube.shape[1]}",
        f"lines = {cube.shape[0]}",
        f"bands = {cube.shape[2]}",
        "header offset = 0",
        "file type = ENVI Standard",
        f"data type = {_ENVI_TYPES[cube.dtype.name]}",
        "interleave = bsq",
        "byte order = 0",
    ]
    if wavelengths is not None:
        lines += [
            "wavelength units = Nanometers",
            "wavelength = {" + ", ".join(f"{value:.6g}" for value in wavelengths) + "}",
        ]
    lines += _scaled_place(source, scale)
    with atomic_path(binary) as temporary, temporary.open("wb") as file:
        for band in range(cube.shape[2]):  # band by band: a turned copy of the whole scene is not needed
            file.write(np.ascontiguousarray(cube[..., band], dtype=cube.dtype.newbyteorder("<")).tobytes())
    with atomic_path(header) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [header, binary]


def _scaled_place(source: str, scale: int) -> list[str]:
    """`map info` and `coordinate system string` of the input's header; pixels are counted from 1 there."""
    path = Path(source)
    found = envi.find_header(path) if path.is_file() and path.suffix.lower() not in FORMATS[3:] else None
    if found is None:
        return []
    text = found.read_text(encoding="utf-8", errors="replace")
    kept = re.findall(r"^\s*coordinate system string\s*=\s*\{[^}]*\}", text, flags=re.MULTILINE)
    info = re.search(r"^\s*map info\s*=\s*\{([^}]*)\}", text, flags=re.MULTILINE)
    if info is not None:
        fields = [field.strip() for field in info[1].split(",")]
        for i in (1, 2):
            fields[i] = f"{(float(fields[i]) - 1) * scale + 1:.10g}"
        for i in (5, 6):
            fields[i] = f"{float(fields[i]) / scale:.15g}"
        kept.insert(0, "map info = {" + ", ".join(fields) + "}")
    return [line.strip() for line in kept]
