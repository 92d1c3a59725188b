"""Arrays out of the files hyperspectral scenes come in: MATLAB, NumPy, ENVI and GeoTIFF.

`read_array("FILE[:KEY]", ranks)` returns one array with whatever the file knows of wavelengths
and place. Nothing is converted: the type stays the file's, the axes become (rows, columns, bands).
ENVI is read here (`envi.py`) rather than by a package: the format is a text header and a flat
file, and a truncated one has to be refused, which GDAL and Spectral Python do not do.
GeoTIFF goes through tifffile, which scikit-image brings along: a map gets back the very tags its
scene came with, so GDAL's 25 MB are not needed. (LZW files need `pip install imagecodecs`.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_path

FORMATS = "MATLAB .mat, NumPy .npy or .npz, ENVI .hdr or GeoTIFF .tif"
_GEOTIFF_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}


@dataclass(frozen=True)
class Georeference:
    """Where a picture lies, as the tags with which a GeoTIFF says it.

    Attributes:
        tags: number → values: 33550 pixel size, 33922 tie point, 34264 matrix, 34735 keys of the
            coordinate system, 34736 and 34737 their numbers and texts.
    """

    tags: dict[int, tuple[float, ...] | str]


@dataclass(frozen=True)
class Stored:
    """One array of a file.

    Attributes:
        values: `(rows, columns)` or `(rows, columns, bands)`, in the file's own type.
        source: FILE or FILE:KEY, for messages.
        wavelengths: band centres in nm, `(bands,)`, or None.
    """

    values: np.ndarray
    source: str
    wavelengths: np.ndarray | None = None
    georeference: Georeference | None = None


def read_array(reference: str | Path, ranks: Collection[int]) -> Stored:
    """Read `FILE[:KEY]`.

    Args:
        reference: the key may be left out when just one array of the file has a fitting rank.
        ranks: how many axes the array may have.

    Raises:
        UserError: missing or damaged file, unknown format or key, complex or non-numeric values,
            or another rank.
    """
    path, key = _parse(str(reference))
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a {FORMATS} file")
    suffix = path.suffix.lower()
    if suffix in (".mat", ".h5", ".hdf5"):
        values, key = _read_matlab(path, key, ranks)
        stored = Stored(values, f"{path}:{key}")
    elif suffix in (".npy", ".npz"):
        values, key = _read_numpy(path, key, ranks)
        stored = Stored(values, f"{path}:{key}" if key else str(path))
    elif suffix in (".tif", ".tiff"):
        stored = _read_geotiff(path)
    else:
        from common.hyperspectral import envi  # noqa: PLC0415 - it needs the classes above

        header = envi.find_header(path)
        if header is None:
            raise UserError(f"{path}: unknown kind of file; expected {FORMATS}")
        stored = Stored(*envi.read(header))
    kind = stored.values.dtype
    if kind.kind not in "buif":
        what = "complex numbers" if kind.kind == "c" else f"values of type {kind}"
        raise UserError(f"{stored.source}: holds {what}; expected real numbers")
    if stored.values.ndim not in ranks:
        raise UserError(f"{stored.source}: has shape {stored.values.shape}; expected {_describe(ranks)}")
    return stored


def write_geotiff(path: str | Path, bands: np.ndarray, georeference: Georeference | None = None) -> None:
    """Write `(rows, columns)` or `(rows, columns, bands)` as a deflated GeoTIFF, atomically."""
    import tifffile  # noqa: PLC0415 - slow to import

    tags = georeference.tags.items() if georeference else ()
    extra = [(tag, _GEOTIFF_TAGS[tag], 0 if isinstance(v, str) else len(v), v, True) for tag, v in tags]
    plane = None if bands.ndim == 2 else "contig"
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as file:
        file.write(
            bands, photometric="minisblack", planarconfig=plane, compression="zlib", metadata=None, extratags=extra
        )


def _parse(reference: str) -> tuple[Path, str | None]:
    """FILE and KEY; a colon that belongs to an existing name or a drive letter is none."""
    name, colon, key = reference.rpartition(":")
    if not colon or Path(reference).exists() or "/" in key or "\\" in key:
        return Path(reference), None
    return Path(name), key


def _read_matlab(path: Path, key: str | None, ranks: Collection[int]) -> tuple[np.ndarray, str]:
    """MATLAB v5 through scipy, v7.3 and plain HDF5 through h5py."""
    import h5py  # noqa: PLC0415 - slow to import
    import scipy.io  # noqa: PLC0415

    if h5py.is_hdf5(path):
        with _damage_reported(path), h5py.File(path) as file:
            shapes = {name: item.shape for name, item in file.items() if isinstance(item, h5py.Dataset)}
        key = _choose(path, key, shapes, ranks)
        with _damage_reported(path), h5py.File(path) as file:
            return _read_hdf5(file[key]), key
    with _damage_reported(path):
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
    key = _choose(path, key, shapes, ranks)
    with _damage_reported(path):
        return np.ascontiguousarray(scipy.io.loadmat(path, variable_names=[key])[key]), key


def _read_hdf5(dataset: Any) -> np.ndarray:
    """The whole data set; what MATLAB wrote has its axes reversed and is turned slab by slab.

    A turned view would leave a pixel's bands far apart in memory, a turned copy of the whole
    needs twice the memory.
    """
    if "MATLAB_class" not in dataset.attrs or dataset.dtype.kind not in "buif":
        return dataset[()]
    values = np.empty(dataset.shape[::-1], dtype=dataset.dtype.newbyteorder("="))
    for start in range(0, dataset.shape[0], 16):
        values[..., start : start + 16] = dataset[start : start + 16].T
    return values


def _read_numpy(path: Path, key: str | None, ranks: Collection[int]) -> tuple[np.ndarray, str | None]:
    with _damage_reported(path):
        archive = np.load(path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        if key is not None:
            raise UserError(f"{path}: holds one array without a name; leave :{key} away")
        return archive, None
    with archive:
        with _damage_reported(path):
            shapes = {name: archive[name].shape for name in archive.files} if key is None else {}
        key = _choose(path, key, shapes or dict.fromkeys(archive.files, ()), ranks)
        with _damage_reported(path):
            return archive[key], key


def _read_geotiff(path: Path) -> Stored:
    import tifffile  # noqa: PLC0415 - slow to import

    with _damage_reported(path), tifffile.TiffFile(path) as file:
        series, known = file.series[0], file.pages.first.tags
        values, axes = series.asarray(), series.axes
        tags = {tag: known[tag].value for tag in _GEOTIFF_TAGS if tag in known}
    if values.ndim == 3:  # bands are samples of a pixel, planes or pages
        rows, columns = axes.index("Y"), axes.index("X")
        values = np.ascontiguousarray(values.transpose(rows, columns, 3 - rows - columns))
    return Stored(values, str(path), georeference=Georeference(tags) if tags else None)


def _choose(path: Path, key: str | None, shapes: dict[str, tuple[int, ...]], ranks: Collection[int]) -> str:
    held = ", ".join(f"{name} {shape}" if shape else name for name, shape in shapes.items()) or "no arrays"
    if key is not None:
        if key not in shapes:
            raise UserError(f"{path}: has no key {key!r}; it holds {held}")
        return key
    fitting = [name for name, shape in shapes.items() if len(shape) in ranks and min(shape) > 1]
    if len(fitting) != 1:
        wish = "several arrays could be meant" if fitting else f"no array is {_describe(ranks)}"
        raise UserError(f"{path}: {wish}; it holds {held}: name one as {path.name}:KEY")
    return fitting[0]


def _describe(ranks: Collection[int]) -> str:
    names = {2: "two-dimensional (rows, columns)", 3: "three-dimensional (rows, columns, bands)"}
    return " or ".join(names.get(rank, f"{rank}-dimensional") for rank in sorted(ranks))


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Whatever a format's library stumbles over becomes one sentence; they raise all kinds of errors."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: holds values of type object; expected an array of real numbers") from None
        if "imagecodecs" in str(error):
            raise UserError(f"{path}: is compressed in a way that needs: pip install imagecodecs") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read ({reason}); the file is damaged or incomplete, copy it again"
        ) from error
