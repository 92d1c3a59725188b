"""Read clean scenes, scaled to [0, 1], and cut them into training, validation and test regions that share no pixel.

| data set | files under the root (or up to two folders below) | training / validation / test |
|---|---|---|
| `icvl` | 201 `NAME.mat` with `rad`, 31 bands | the published list of 100 but its last four / \
those four / a list of 50 or 51 |
| `pavia` | `PaviaU.mat` | rows 364.. / rows 340:364 / rows 0:340, the released test script's |
| `abu` | `abu-{airport-1,airport-2,airport-3,urban-4}.mat`, `abu-urban-3_205band.mat` | all but urban-3, without the \
last fifth of urban-4 / that fifth / urban-3 |
| `jasper_ridge`, a user's `--cube` | `jasperRidge2_R198.mat` | upper 48 % / next 12 % / lower 40 % of the rows |
| `demo` | none: a synthetic scene without noise | as a user's scene |

ICVL's lists are those of QRNN3D; its two test lists (for Gaussian and for complex noise) share no scene with the
training list or with each other. Pavia's test rows are inferred from the released test script, because no paper with
the split was accessible.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import UserError
from common.files import find
from common.hyperspectral import regions
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import BandAxis, Scene, make_scene, open_scene, refuse_without_cube
from common.hyperspectral.synthetic import synthetic_scene

Scaling = Literal["percentile", "minmax"]
IcvlList = Literal["train", "test_gauss", "test_complex"]
IcvlPreparation = Literal["mafnet", "qrnn3d"]
ABU_TRAIN = ("abu-airport-1", "abu-airport-2", "abu-airport-3", "abu-urban-4")
ABU_TEST = "abu-urban-3_205band"
TITLES = {
    "icvl": "ICVL",
    "pavia": "Pavia University",
    "abu": "ABU",
    "jasper_ridge": "Jasper Ridge",
    "demo": "synthetic",
}
SMALLEST = 32
"""Smallest number of rows and columns of a scene that is cut into three regions."""


@dataclass(frozen=True, eq=False)
class Region(regions.Region):
    """A rectangle of a scene.

    Attributes:
        offset, divisor: values are `(stored − offset) / divisor`, clipped to [0, 1].
    """

    offset: float
    divisor: float

    def values(self) -> np.ndarray:
        """`(bands, height, width)` float32 in [0, 1]."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return scaled(self.scene.cube[rows, columns], self.offset, self.divisor)


Regions = dict[str, list[Region]]
"""Split ("train", "validation", "test") → its regions."""


def load_regions(
    dataset: str,
    data_root: Path | None,
    scaling: Scaling = "percentile",
    *,
    cube: str | None = None,
    band_axis: BandAxis | None = None,
    no_data: float | None = None,
) -> Regions:
    """Read a data set (except `icvl`, which is too large) and cut it into regions.

    Args:
        dataset: see the table above; unused when `cube` is given.
        data_root: folder that holds the files.
        scaling: how the values of every scene are scaled.
        cube: `FILE[:KEY]` of a user's scene.
        band_axis, no_data: axis of that scene's bands, and value of its pixels without data.

    Raises:
        UserError: the data set is unknown, files are missing or not as published, or a scene is too small.
    """
    if cube is not None:
        return _single(open_scene(cube, band_axis=band_axis, no_data=no_data), scaling)
    refuse_without_cube(None, band_axis=band_axis, no_data=no_data)
    if dataset == "demo":
        return _single(demo_scene(seed=3), scaling)
    if dataset not in TITLES:
        raise UserError(f"data set {dataset} does not exist; choose one of {', '.join(TITLES)}")
    root = require_root(dataset, data_root)
    if dataset == "abu":
        return _abu(root, scaling)
    if dataset == "pavia":
        return _pavia(root, scaling)
    return _single(_jasper_ridge(root), scaling)


def require_root(dataset: str, data_root: Path | None) -> Path:
    """Return the data root.

    Raises:
        UserError: --data-root was not given.
    """
    if data_root is None:
        raise UserError(f"the data set {dataset} needs --data-root, the folder that holds its files (see the README)")
    return data_root


def demo_scene(seed: int, height: int = 112, width: int = 128) -> Scene:
    """Return a synthetic scene of 31 bands without noise: smooth light on classes with sharp borders."""
    return synthetic_scene(height, width, bands=31, noise=0.0, variation=0.0, seed=seed)


def limits(cube: np.ndarray, valid: np.ndarray, scaling: Scaling, source: str) -> tuple[float, float]:
    """Return offset and divisor of a scene `(H, W, bands)`, from its pixels with data.

    Raises:
        UserError: the scene is constant, or has no positive value.
    """
    values = cube if valid.all() else cube[valid]
    if scaling == "minmax":
        offset, top = float(values.min()), float(values.max())
    else:
        offset, top = 0.0, float(np.percentile(values, 99.9))
    if not top > offset:
        raise UserError(f"{source}: values lie between {values.min():g} and {values.max():g}; expected positive ones")
    return offset, top - offset


def scaled(cube: np.ndarray, offset: float, divisor: float) -> np.ndarray:
    """Scale `(H, W, bands)` of any type to `(bands, H, W)` float32, clipped to [0, 1]."""
    values = (np.moveaxis(cube, -1, 0).astype(np.float32) - np.float32(offset)) / np.float32(divisor)
    return np.clip(np.ascontiguousarray(values), 0, 1)


def whole(scene: Scene, scaling: Scaling) -> Region:
    """Return a whole scene as one region."""
    return Region(scene, 0, 0, *scene.shape, *limits(scene.cube, scene.valid, scaling, scene.source or scene.name))


def icvl_names(which: IcvlList) -> list[str]:
    """Return the file names of a published list."""
    text = resources.files("hcanet").joinpath(f"icvl/{which}.txt").read_text(encoding="utf-8")
    return text.split()


def read_icvl(data_root: Path, name: str) -> np.ndarray:
    """Read one scene, `(rows, columns, 31)`.

    Raises:
        UserError: the file is missing or damaged, or does not have 31 bands.
    """
    path = find(data_root, name)
    cube = read_array(f"{path}:rad", (3,)).values
    if cube.shape[2] != 31 and cube.shape[0] == 31:
        cube = np.moveaxis(cube, 0, -1)
    if cube.shape[2] != 31 or min(cube.shape[:2]) < 512:
        raise UserError(f"{path}: rad has shape {cube.shape}; expected about 1392 × 1300 pixels of 31 bands")
    return cube


def icvl_test_region(data_root: Path, name: str, preparation: IcvlPreparation, *, complex_noise: bool) -> Region:
    """Return a test scene, prepared as in a publication.

    `mafnet`: min–max scaling of the whole cube, then the central 340 × 340 pixels; for complex noise the crop is
    shifted by −230 rows and +100 columns. `qrnn3d`: rotation by 90°, the central 512 × 512 pixels, min–max scaling of
    the crop.
    """
    cube = read_icvl(data_root, name)
    title = Path(name).stem
    if preparation == "qrnn3d":
        cube = np.rot90(cube)
        top, left = ((side - 512) // 2 for side in cube.shape[:2])
        cropped = np.ascontiguousarray(cube[top : top + 512, left : left + 512])
        return whole(make_scene(title, cropped, source=name), "minmax")
    scene = make_scene(title, cube, source=name)
    offset, divisor = limits(cube, scene.valid, "minmax", name)
    shift = (-230, 100) if complex_noise else (0, 0)
    places = [min(max((side - 340) // 2 + by, 0), side - 340) for side, by in zip(cube.shape[:2], shift, strict=True)]
    return Region(scene, places[0], places[1], 340, 340, offset, divisor)


def _single(scene: Scene, scaling: Scaling) -> Regions:
    height, width = scene.shape
    source = scene.source or scene.name
    if min(height, width) < SMALLEST:
        raise UserError(f"{source}: has {height} × {width} pixels; expected at least {SMALLEST} × {SMALLEST}")
    cut = round(0.6 * height / 4) * 4
    first = cut - max(round(0.12 * height / 4) * 4, 8)
    # The test rows have no influence on the scaling.
    scale = limits(scene.cube[:cut], scene.valid[:cut], scaling, source)
    return {
        "train": [Region(scene, 0, 0, first, width, *scale)],
        "validation": [Region(scene, first, 0, cut - first, width, *scale)],
        "test": [Region(scene, cut, 0, height - cut, width, *scale)],
    }


def _jasper_ridge(data_root: Path) -> Scene:
    path = find(data_root, "jasperRidge2_R198.mat")
    # Pixels in MATLAB's column order: (bands, rows · columns).
    flat, rows = read_array(f"{path}:Y", (2,)).values, 100
    if flat.shape != (198, rows * rows):
        raise UserError(f"{path}: Y has shape {flat.shape}; expected (198, 10000)")
    cube = np.ascontiguousarray(flat.T.reshape(rows, rows, 198, order="F"))
    return make_scene("jasper_ridge", cube, source=str(path), composite_bands=(28, 18, 8))


def _abu(data_root: Path, scaling: Scaling) -> Regions:
    found = []
    for name in (*ABU_TRAIN, ABU_TEST):
        path = find(data_root, f"{name}.mat")
        cube = read_array(f"{path}:data", (3,)).values
        found.append(whole(make_scene(name, cube, source=str(path), composite_bands=(36, 19, 9)), scaling))
    *training, test = found
    last = training.pop()
    cut = last.height - last.height // 5
    scale = last.offset, last.divisor
    return {
        "train": [*training, Region(last.scene, 0, 0, cut, last.width, *scale)],
        "validation": [Region(last.scene, cut, 0, last.height - cut, last.width, *scale)],
        "test": [test],
    }


def _pavia(data_root: Path, scaling: Scaling) -> Regions:
    path = find(data_root, "PaviaU.mat")
    cube = read_array(f"{path}:paviaU", (3,)).values
    if cube.shape != (610, 340, 103):
        raise UserError(f"{path}: paviaU has shape {cube.shape}; expected (610, 340, 103)")
    scene = make_scene("pavia", cube, source=f"{path}:paviaU", composite_bands=(60, 30, 10))
    scale = limits(cube[340:], scene.valid[340:], scaling, str(path))
    boxes = {"train": (364, 246), "validation": (340, 24), "test": (0, 340)}
    return {split: [Region(scene, top, 0, height, 340, *scale)] for split, (top, height) in boxes.items()}
