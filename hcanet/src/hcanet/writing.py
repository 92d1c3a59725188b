"""Write denoised scenes as ENVI, GeoTIFF, MATLAB or NumPy files, with the input's type, wavelengths and georeference.

`common.hyperspectral` reads the same formats.
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
from common.hyperspectral.no_data import value_for
from common.hyperspectral.outputs import FORMATS, output_files
from common.hyperspectral.scene import Scene

ENVI, TIFF = FORMATS[:3], (".tif", ".tiff")
KEPT = ("map info", "coordinate system string", "wavelength units", "wavelength", "fwhm", "band names", "sensor type")
"""Fields of an ENVI header that a denoised scene shares with its input."""


def check_output(path: Path, dtype: np.dtype) -> None:
    """Refuse an output whose format does not support the type, before any work is done.

    Raises:
        UserError: names the type.
    """
    if path.suffix.lower() in ENVI and dtype.name not in envi.CODES:
        raise UserError(f"{path}: ENVI has no type {dtype}; choose .npy or .tif for --output")


def restored(values: np.ndarray, offset: float, divisor: float, scene: Scene) -> np.ndarray:
    """`(bands, H, W)` in [0, 1] → `(H, W, bands)` in the scene's type; integers are rounded and clipped, never wrapped.

    Pixels without data get the declared value again (NaN if a floating-point file declares none).
    """
    cube = np.moveaxis(values.astype(np.float64), 0, -1) * divisor + offset
    dtype = scene.cube.dtype
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        # float64 cannot hold the largest 64-bit integers: clip to the largest float below them.
        top = min(float(bounds.max), np.nextafter(2.0**63, 0)) if dtype.itemsize == 8 else float(bounds.max)
        cube = np.clip(np.rint(cube), float(bounds.min), top)
    cube = cube.astype(dtype)
    if not scene.valid.all():
        cube[~scene.valid] = value_for(dtype, scene.no_data)
    return cube


def write_scene(path: Path, cube: np.ndarray, scene: Scene) -> list[Path]:
    """Write a cube `(H, W, bands)`; the suffix determines the format, and `scene` has the input's metadata.

    Returns:
        the files written. For `.npy` and GeoTIFF the wavelengths are in `NAME.wavelengths.txt` beside the output.
    """
    suffix = path.suffix.lower()
    declared = None if scene.valid.all() else float(value_for(cube.dtype, scene.no_data))
    if suffix in ENVI:
        return _write_envi(path, cube, scene, declared)
    known: dict[str, Any] = {} if scene.wavelengths is None else {"wavelengths": scene.wavelengths}
    if suffix in TIFF:
        write_geotiff(path, cube, scene.georeference, no_data=declared)
    elif suffix == ".mat":
        import scipy.io  # noqa: PLC0415 - slow to import

        key = scene.source.rpartition(":")[2] if re.fullmatch(r".*\.mat:[A-Za-z]\w*", scene.source) else "cube"
        with atomic_path(path) as temporary:
            scipy.io.savemat(temporary, {key: cube, **known}, do_compression=True)
        return [path]
    else:
        with atomic_path(path) as temporary:
            if suffix == ".npz":
                np.savez(temporary, cube=cube, **known)
                return [path]
            np.save(temporary, cube)
    if scene.wavelengths is None:
        return [path]
    listed = output_files(path)[1]
    with atomic_path(listed) as temporary:
        temporary.write_text("".join(f"{value:g}\n" for value in scene.wavelengths), encoding="utf-8")
    return [path, listed]


def _write_envi(path: Path, cube: np.ndarray, scene: Scene, declared: float | None) -> list[Path]:
    header, binary = output_files(path)
    fields = {
        "description": "{denoised by HCANet}",
        "samples": cube.shape[1],
        "lines": cube.shape[0],
        "bands": cube.shape[2],
        "header offset": 0,
        "file type": "ENVI Standard",
        "data type": envi.CODES[cube.dtype.name],
        "interleave": "bsq",
        "byte order": 0,
    } | _of_input(scene)
    if declared is not None:
        fields["data ignore value"] = f"{declared:.17g}"
    with atomic_path(binary) as temporary, temporary.open("wb") as file:
        for band in range(cube.shape[2]):  # band by band, without a transposed copy of the whole scene
            file.write(np.ascontiguousarray(cube[..., band], dtype=cube.dtype.newbyteorder("<")).tobytes())
    with atomic_path(header) as temporary:
        lines = ["ENVI", *(f"{name} = {value}" for name, value in fields.items())]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [header, binary]


def _of_input(scene: Scene) -> dict[str, str]:
    """The input's ENVI fields about georeference and bands; for other formats, its wavelengths."""
    path = Path(scene.source)
    found = envi.find_header(path) if path.is_file() else None
    if found is not None:
        fields = envi.read_header(found)
        texts = {name: fields[name] for name in KEPT if fields.get(name)}
        return {
            name: value if name in ("wavelength units", "sensor type") else "{" + value.strip("{} ") + "}"
            for name, value in texts.items()
        }
    if scene.wavelengths is None:
        return {}
    listed = ", ".join(f"{value:.6g}" for value in scene.wavelengths)
    return {"wavelength units": "Nanometers", "wavelength": "{" + listed + "}"}
