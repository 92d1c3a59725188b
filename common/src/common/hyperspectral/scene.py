"""A hyperspectral scene in memory: the cube, its labels, and what is known about both.

`open_scene` reads a user's own files, `classification.catalogue` the published ones. Both call `make_scene`, which
refuses unusable scenes. The cube keeps the type of its file, mostly 16-bit integers; code that needs floats converts
a window or a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import UserError
from common.hyperspectral.labels import remap_labels
from common.hyperspectral.no_data import check_size, extent_of, filled, in_type, is_declared, note_on, valid_pixels
from common.hyperspectral.readers import read_array
from common.hyperspectral.stored import Georeference

BandAxis = Literal["first", "last"]


@dataclass(frozen=True, eq=False)
class Scene:
    """A cube with its labels.

    Attributes:
        name: short, for titles and file names.
        cube: `(H, W, bands)`, the file's own type, finite; pixels without data hold the nearest spectrum.
        labels: `(H, W)` int64; 0 is unlabelled or without data, classes are 1..K without gaps; None without labels.
        class_names: K names, class 1 first.
        codes: the file's codes of classes 1..K, which may have gaps.
        wavelengths: band centres in nm, `(bands,)`, or None.
        georeference: position and coordinate system of the scene, or None.
        composite_bands: numbers of the red, green and blue band for images, used without wavelengths.
        source: the files, for messages.
        valid: `(H, W)` bool, true for pixels with data; by default all.
        no_data: the value of pixels without data, declared by the file or named by the user, or None.
        remarks: sentences about the files, see `notes`.
    """

    name: str
    cube: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    wavelengths: np.ndarray | None = None
    georeference: Georeference | None = None
    composite_bands: tuple[int, int, int] | None = None
    source: str = ""
    valid: np.ndarray = field(default_factory=lambda: np.ones((0, 0), dtype=bool))
    no_data: float | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Without a given `valid`, all pixels have data."""
        if self.valid.shape != self.shape:
            object.__setattr__(self, "valid", np.ones(self.shape, dtype=bool))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.cube.shape[0], self.cube.shape[1]

    @property
    def bands(self) -> int:
        """Number of bands."""
        return self.cube.shape[2]

    @property
    def num_classes(self) -> int:
        """Number of classes K; unlabelled pixels are not a class."""
        return len(self.codes)

    @property
    def class_counts(self) -> np.ndarray:
        """Labelled pixels per class, `(K,)`, class 1 first."""
        return np.bincount(self.require_labels().ravel(), minlength=self.num_classes + 1)[1:]

    @property
    def data_pixels(self) -> np.ndarray | None:
        """Flat indices of the pixels with data, for statistics; None if all pixels have data."""
        return None if self.valid.all() else np.flatnonzero(self.valid)

    @property
    def extent(self) -> tuple[slice, slice]:
        """The smallest rectangle, rows and columns, that holds all pixels with data."""
        return extent_of(self.valid)

    def spectra(self, rows: slice = slice(None)) -> np.ndarray:
        """Return some rows of the cube; if some of their pixels have no data, all other spectra as `(1, n, bands)`."""
        cube, valid = self.cube[rows], self.valid[rows]
        return cube if valid.all() else cube[valid][None]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that every script prints about the scene: what its files declare, and pixels without data."""
        missing = int((~self.valid).sum())
        if not missing:
            return self.remarks
        share = 100 * missing / self.valid.size
        return (*self.remarks, f"{missing:,} pixels ({share:.1f} %) hold no data and are left out")

    @property
    def note(self) -> str:
        """The notes as lines of text; empty without notes."""
        return "\n".join(f"note: {note}" for note in self.notes)

    def require_labels(self) -> np.ndarray:
        """The labels.

        Raises:
            UserError: the scene has none.
        """
        if self.labels is None:
            raise UserError(f"{self.source or self.name}: has no labels; pass --labels FILE[:KEY]")
        return self.labels


def open_scene(
    cube: str | Path,
    labels: str | Path | None = None,
    *,
    name: str | None = None,
    band_axis: BandAxis | None = None,
    no_data: float | None = None,
) -> Scene:
    """Open a user's own scene.

    Args:
        cube: `FILE[:KEY]` of a `(H, W, bands)` or `(bands, H, W)` array.
        labels: `FILE[:KEY]` of a `(H, W)` array of class codes, 0 for unlabelled.
        name: by default the name of the cube's file.
        band_axis: axis of the bands; None: found from the labels' shape, or "last" without labels.
        no_data: the value of pixels without data, instead of the one that the file declares; NaN and
            infinity always mean no data.

    Raises:
        UserError: a file cannot be read or does not hold a scene; see `make_scene`.
    """
    stored = read_array(cube, (3,))
    if no_data is not None and not np.isnan(no_data) and in_type(no_data, stored.values.dtype) is None:
        raise UserError(
            f"{stored.source}: holds {stored.values.dtype} numbers, which can never be {no_data:g}; "
            "pass --no-data the value that its pixels without data hold"
        )
    if stored.bands is not None:
        # TIFF samples and ENVI's interleave determine the axis; pages are bands unless the labels' shape contradicts.
        pages = band_axis or ("first" if labels is None else None)
        band_axis = pages if stored.bands == "pages" else "last"
    codes, labels_source = None, ""
    if labels is not None:
        read = read_array(labels, (2, 3))
        codes, labels_source = read.values, read.source
        if read.no_data is not None:
            codes = np.where(is_declared(codes, read.no_data), np.zeros((), codes.dtype), codes)
        if read.mask is not None and read.mask.shape == codes.shape[:2]:
            codes = codes * read.mask.reshape(codes.shape[:2] + (1,) * (codes.ndim - 2)).astype(codes.dtype)
    scene = make_scene(
        name or Path(stored.source).name.partition(".")[0],
        stored.values,
        codes,
        wavelengths=stored.wavelengths,
        georeference=stored.georeference,
        band_axis=band_axis,
        source=stored.source,
        labels_source=labels_source,
        no_data=stored.no_data if no_data is None else no_data,
        mask=stored.mask,
        remarks=stored.notes + note_on(stored.no_data, stored.values.dtype),
    )
    if no_data and scene.valid.all():
        scene = replace(scene, remarks=(*scene.remarks, f"no pixel holds the value {no_data:g} of --no-data"))
    return scene


def refuse_without_cube(cube: str | None, **flags: object) -> None:
    """Refuse flags for a user's own scene when no such scene is given.

    Raises:
        UserError: one of these flags is given; names it.
    """
    for name, value in flags.items():
        if cube is None and value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is only for your own scene, --cube; add --cube or remove {flag}")


def make_scene(
    name: str,
    cube: np.ndarray,
    codes: np.ndarray | None = None,
    *,
    names: Mapping[int, str] | None = None,
    wavelengths: np.ndarray | None = None,
    georeference: Georeference | None = None,
    composite_bands: tuple[int, int, int] | None = None,
    band_axis: BandAxis | None = None,
    source: str = "",
    labels_source: str = "",
    no_data: float | None = None,
    mask: np.ndarray | None = None,
    remarks: tuple[str, ...] = (),
) -> Scene:
    """Check arrays and make a scene of them.

    Args:
        cube: `(H, W, bands)` or `(bands, H, W)`.
        codes: `(H, W)` class codes as in the file, 0 for unlabelled; the scene's labels have no gaps.
        names: class names by code; a class without a name is called "class CODE".
        no_data: see `open_scene`. Labels of pixels without data become 0, and a remark counts them.
        mask: `(H, W)` bool; where it is false, pixels have no data either.

    Raises:
        UserError: see `remap_labels` and `check_size`; or no pixel holds data, a labelled cube is constant, or sizes
            do not fit.
    """
    source, labels_source = source or name, labels_source or source or name
    if codes is not None and codes.ndim == 3 and 1 in codes.shape:
        codes = np.squeeze(codes)
    shape = None if codes is None else codes.shape
    cube = _bands_last(cube, shape, band_axis, source, labels_source)
    valid = valid_pixels(cube, no_data)
    if mask is not None:
        valid &= mask
    if not valid.any():
        raise UserError(f"{source}: no pixel holds data ({_why_empty(cube, no_data)})")
    check_size(cube, valid, source)
    labels: np.ndarray | None = None
    found: tuple[int, ...] = ()
    if codes is not None:
        if all((line == cube[0, 0]).all() for line in cube):
            raise UserError(f"{source}: all pixels hold the same values, so nothing can be learnt; name another cube")
        lost = int((codes[~valid] != 0).sum()) if codes.shape == valid.shape else 0
        if lost:
            remarks = (*remarks, f"{lost:,} labelled pixels hold no data and become unlabelled")
            codes = np.where(valid, codes, np.zeros((), codes.dtype))
        labels, found = remap_labels(codes, labels_source)
    return Scene(
        name,
        filled(cube, valid),
        labels,
        tuple((names or {}).get(code, f"class {code}") for code in found),
        found,
        wavelengths,
        georeference,
        composite_bands,
        source,
        valid,
        no_data,
        remarks,
    )


def _bands_last(
    cube: np.ndarray, shape: tuple[int, ...] | None, band_axis: BandAxis | None, source: str, labels_source: str
) -> np.ndarray:
    """The cube as `(H, W, bands)`; without `band_axis`, the labels' shape tells where the bands are."""
    if cube.ndim != 3:
        raise UserError(f"{source}: has shape {cube.shape}; expected three-dimensional (rows, columns, bands)")
    if shape is not None and band_axis is None:
        last, first = cube.shape[:2] == shape, cube.shape[1:] == shape
        if last and first:
            raise UserError(
                f"{source}: shape {cube.shape} fits the labels with bands first and with bands last; "
                "say which with --band-axis first or last"
            )
        band_axis = "first" if first else "last"
    if band_axis == "first":
        cube = np.ascontiguousarray(np.moveaxis(cube, 0, -1))
    if shape is not None and cube.shape[:2] != shape:
        hint = "; the labels look transposed" if cube.shape[:2] == shape[::-1] else ""
        raise UserError(
            f"{labels_source}: labels are {_by(shape)} pixels but the cube {source} is {_by(cube.shape[:2])} "
            f"with {cube.shape[2]} bands; expected equal sizes{hint}"
        )
    return cube


def _why_empty(cube: np.ndarray, no_data: float | None) -> str:
    """Why no pixel holds data: the bands that are empty everywhere."""
    empty = [band for band in range(cube.shape[2]) if not valid_pixels(cube[..., band : band + 1], no_data).any()]
    if not empty:
        return "each lacks a band or is masked out; name another value with --no-data"
    listed = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
    return f"bands {listed}, counted from 0, hold NaN, infinity or the no-data value everywhere; remove them"


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
