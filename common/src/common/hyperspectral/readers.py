"""Read arrays from the file formats of hyperspectral scenes: MATLAB, NumPy, ENVI and GeoTIFF.

`read_array("FILE[:KEY]", ranks)` returns one array with the wavelengths and the georeference that the file gives. The
values keep their type, except for bool, long floats and byte order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, extra
from common.hyperspectral import envi, geotiff
from common.hyperspectral.stored import Stored

# MATLAB's classes of numeric arrays, as scipy lists them.
_NUMERIC = ("double", "single", "logical", "sparse", *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)))
FORMATS = "MATLAB .mat, NumPy .npy or .npz, ENVI .hdr or GeoTIFF .tif"


def read_array(reference: str | Path, ranks: Collection[int]) -> Stored:
    """Read `FILE[:KEY]`.

    Args:
        reference: the key can be omitted if only one array of the file has a permitted number of axes.
        ranks: the permitted numbers of axes, of 2 and 3.

    Raises:
        UserError: the file is missing or damaged, its format or the key is unknown, or the array is not one of real
            numbers with a permitted number of axes.
    """
    path, key = _parse(str(reference))
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a {FORMATS} file")
    with damage_reported(path):
        stored = _read(path, key, ranks)
    kind = stored.values.dtype
    if kind.kind not in "buif":
        compound = kind.names == ("real", "imag")  # as HDF5 stores complex numbers
        what = "complex numbers" if kind.kind == "c" or compound else f"values of type {kind}"
        raise UserError(f"{stored.source}: holds {what}; expected real numbers")
    if stored.values.ndim not in ranks:
        raise UserError(f"{stored.source}: has shape {stored.values.shape}; expected {_describe(ranks)}")
    if not stored.values.size:
        raise UserError(f"{stored.source}: has shape {stored.values.shape}, so it holds nothing; expected values")
    # torch needs the machine's byte order and floats of at most 64 bits; bool values cannot be subtracted.
    native = np.dtype(np.float64) if kind.kind == "f" and kind.itemsize > 8 else kind.newbyteorder("=")
    native = np.dtype(np.uint8) if kind.kind == "b" else native
    return replace(stored, values=stored.values.astype(native, copy=False))


def _parse(reference: str) -> tuple[Path, str | None]:
    """FILE and KEY; a colon in the name of an existing file or after a drive letter does not separate them."""
    name, colon, key = reference.rpartition(":")
    folders = ("/" in key or "\\" in key) and not Path(name).is_file()  # an archive's keys may have slashes
    if not colon or Path(reference).exists() or folders:
        return Path(reference), None
    return Path(name), key


def _read(path: Path, key: str | None, ranks: Collection[int]) -> Stored:
    suffix = path.suffix.lower()
    if suffix in (".mat", ".h5", ".hdf5"):
        return _read_matlab(path, key, ranks)
    if suffix == ".npz":
        values, key = _read_archive(path, key, ranks)
        return Stored(values, f"{path}:{key}")
    if suffix in (".npy", ".tif", ".tiff"):
        header = None
    elif (header := envi.find_header(path)) is None:
        raise UserError(f"{path}: unknown kind of file; expected {FORMATS}, or an ENVI binary beside {path.stem}.hdr")
    if key is not None:
        raise UserError(f"{path}: holds one array without a name; remove :{key}")
    if header is not None:
        return envi.read(header, None if header == path else path)
    if suffix != ".npy":
        return geotiff.read(path)
    values = np.load(path, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path}: is a NumPy archive; rename it to {path.stem}.npz")
    return Stored(values, str(path))


def _read_matlab(path: Path, key: str | None, ranks: Collection[int]) -> Stored:
    """MATLAB v5 through scipy, v7.3 and plain HDF5 through h5py."""
    import scipy.io  # noqa: PLC0415 - slow to import

    with extra("fullpaper-common[hyperspectral]"):
        import h5py  # noqa: PLC0415

    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            shapes: dict[str, tuple[int, ...]] = {}
            other: list[str] = []
            for name, item in _datasets(file):
                text = item.attrs.get("MATLAB_class", b"") in (b"char", b"cell")
                if item.shape is None or item.dtype.kind not in "buifcV" or text:
                    other.append(name)
                else:
                    shapes[name] = item.shape
            key = _choose(path, key, shapes, ranks, other)
            dataset = file[key.replace(".", "/")]
            return Stored(_read_hdf5(dataset), f"{path}:{key}", no_data=_fill_value(dataset), notes=_scaled(dataset))
    listed = scipy.io.whosmat(path)
    shapes = {name: shape for name, shape, kind in listed if kind in _NUMERIC}
    key = _choose(path, key, shapes, ranks, [f"{name} ({kind})" for name, _, kind in listed if kind not in _NUMERIC])
    values = scipy.io.loadmat(path, variable_names=[key])[key]
    values = np.ascontiguousarray(values.toarray() if scipy.sparse.issparse(values) else values)
    return Stored(values, f"{path}:{key}")


def _datasets(group: Any, prefix: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every array of an HDF5 file with its name, which is GROUP.NAME inside a group (a MATLAB struct)."""
    for name, item in group.items():
        if hasattr(item, "items"):
            # MATLAB keeps the contents of cells in #refs#; a link may lead back to a group around it.
            if name != "#refs#" and item not in (*above, group):
                yield from _datasets(item, f"{prefix}{name}.", (*above, group))
        elif hasattr(item, "dtype"):
            yield f"{prefix}{name}", item


def _fill_value(dataset: Any) -> float | None:
    """The no-data value that netCDF's attributes declare, or None."""
    declared = [dataset.attrs[name] for name in ("_FillValue", "missing_value") if name in dataset.attrs]
    value = np.ravel(declared[0])[0] if declared else None
    return value.item() if isinstance(value, np.number) and np.isrealobj(value) else None


def _scaled(dataset: Any) -> tuple[str, ...]:
    """A note where netCDF's attributes declare a scale or an offset."""
    names = [name for name in ("scale_factor", "add_offset") if name in dataset.attrs]
    return (f"the file declares {' and '.join(names)}, its numbers are taken as they are stored",) if names else ()


def _read_hdf5(dataset: Any) -> np.ndarray:
    """Read a whole data set; the axes of MATLAB's arrays are reversed and are transposed slab by slab.

    In a transposed view the bands of a pixel would be far apart in memory, and a transposed copy of the whole array
    would need twice the memory.
    """
    if "MATLAB_class" not in dataset.attrs or dataset.dtype.kind not in "buif":
        return dataset[()]
    values = np.empty(dataset.shape[::-1], dtype=dataset.dtype.newbyteorder("="))
    for start in range(0, dataset.shape[0], 16):
        values[..., start : start + 16] = dataset[start : start + 16].T
    return values


def _read_archive(path: Path, key: str | None, ranks: Collection[int]) -> tuple[np.ndarray, str]:
    with np.load(path, allow_pickle=False) as archive:
        shapes = {name: archive[name].shape if key is None else () for name in archive.files}
        key = _choose(path, key, shapes, ranks)
        return archive[key], key


def _choose(
    path: Path, key: str | None, shapes: dict[str, tuple[int, ...]], ranks: Collection[int], other: Sequence[str] = ()
) -> str:
    """The key that was asked for, or the only one with a permitted number of axes; `other`: non-numeric entries."""
    held = ", ".join([*(f"{name} {shape}" if shape else name for name, shape in shapes.items()), *other]) or "no arrays"
    if key is None:
        fitting = [name for name, shape in shapes.items() if len(shape) in ranks and min(shape) > 1]
        if len(fitting) != 1:
            wish = "several arrays could be meant" if fitting else f"no array is {_describe(ranks)}"
            raise UserError(f"{path}: {wish}; it holds {held}: name one as {path.name}:KEY")
        return fitting[0]
    if any(name.partition(" ")[0] == key for name in other):
        raise UserError(f"{path}:{key}: holds values of type object; expected real numbers, as one of: {held}")
    if key not in shapes:
        raise UserError(f"{path}: has no key {key!r}; it holds {held}")
    return key


def _describe(ranks: Collection[int]) -> str:
    names = {2: "two-dimensional (rows, columns)", 3: "three-dimensional (rows, columns, bands)"}
    return " or ".join(names[rank] for rank in sorted(ranks))


@contextlib.contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn any error of a format's library into an error message of one sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path}: holds values of type object; expected an array of real numbers") from None
        if "imagecodecs" in str(error) or isinstance(error, ImportError):
            remedy = "pip install imagecodecs (or rasterio)"
            raise UserError(f"{path}: is compressed in a way that needs: {remedy}") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read ({reason}); the file is damaged or incomplete, copy it again"
        ) from error
