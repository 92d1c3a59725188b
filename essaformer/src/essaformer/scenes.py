"""Read published scenes or a user's own, and cut them into training, validation and test regions that share no pixel.

| data set | files under the root (or up to two folders below) | training / validation / test |
|---|---|---|
| `chikusei` | `HyperspecVNIR_Chikusei_20140729.mat` | crop 2304 × 2048: rows 512.. but the last tenth / that tenth / \
rows 0:512 in four tiles of 512 |
| `pavia_centre` | `Pavia.mat` | columns 224.. but the last tenth of the rows / that tenth / columns 0:224 in four \
tiles of 224 |
| `cave` | `<scene>_ms/*.png`, 31 of 16 bits per scene | scenes by name: the first 20 but two / those two / the rest |
| `harvard` | `*.mat` with `ref` | scenes by name: all but every fifth / every fifth, odd / every fifth, even |
| `abu` | `abu-{airport-1,airport-2,airport-3,urban-4}.mat`, `abu-urban-3_205band.mat` | all but the test scene, \
without the last third of the last / that third / `--test-scene` |
| `jasper_ridge`, `pavia_crop`, `muufl`, a user's `--cube` | `jasperRidge2_R198.mat`, `abu-beach-4.mat`, `MUUFL.mat` | \
upper 48 % / next 12 % / lower 40 % of the rows |

Chikusei's crop and test tiles are the published ones. The publication validates on a random tenth of overlapping
patches; here it is a contiguous tenth, so that no validation pixel is trained on. All other splits are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import find
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import BandAxis, Scene, make_scene, open_scene, refuse_without_cube
from common.hyperspectral.synthetic import synthetic_scene
from essaformer.regions import Region, Regions, cut_to_multiples, scene_region, single_scene
from essaformer.scaling import Scaling

ABU = ("abu-airport-1", "abu-airport-2", "abu-airport-3", "abu-urban-3_205band", "abu-urban-4")
TITLES = {
    "chikusei": "Chikusei", "pavia_centre": "Pavia Centre", "cave": "CAVE", "harvard": "Harvard", "abu": "ABU",
    "jasper_ridge": "Jasper Ridge", "pavia_crop": "Pavia Centre crop", "muufl": "MUUFL crop", "demo": "synthetic",
}  # fmt: skip
SINGLE = {
    "jasper_ridge": "jasperRidge2_R198.mat",
    "pavia_crop": "abu-beach-4.mat",
    "muufl": "MUUFL.mat",
}


def load_regions(
    dataset: str, data_root: Path | None, scaling: Scaling, scale: int, *, test_scene: str | None = None,
    cube: str | None = None, band_axis: BandAxis | None = None, no_data: float | None = None,
) -> Regions:  # fmt: skip
    """Read a data set and cut it into regions.

    Args:
        dataset: one of `DATASETS`; unused when `cube` is given.
        data_root: folder that holds the files.
        scaling: how the values of every scene are scaled.
        scale: sides of validation and test regions are cut to multiples of this number.
        test_scene: the test scene of `abu`.
        cube: `FILE[:KEY]` of a user's scene.
        band_axis: axis of that scene's bands, "last" by default.
        no_data: value of that scene's pixels without data; it replaces the value that the file declares.

    Returns:
        the regions of each split; all have the same bands.

    Raises:
        UserError: the data set is unknown, files are missing or not as published, or a scene is too small.
    """
    refuse_without_cube(cube, band_axis=band_axis, no_data=no_data)
    if cube is not None:
        regions = single_scene(open_scene(cube, band_axis=band_axis, no_data=no_data), scaling)
    elif dataset == "demo":
        regions = single_scene(demo_scene(seed=3), scaling)
    elif dataset not in DATASETS:
        raise UserError(f"data set {dataset} does not exist; choose one of {', '.join(['demo', *DATASETS])}")
    elif data_root is None:
        raise UserError(f"the data set {dataset} needs --data-root, the folder that holds its files (see the README)")
    elif dataset == "abu":
        regions = _abu(data_root, scaling, test_scene or ABU[0])
    else:
        regions = DATASETS[dataset](data_root, scaling)
    for split in ("validation", "test"):
        regions[split] = [cut_to_multiples(region, scale) for region in regions[split]]
    return regions


def demo_scene(seed: int, height: int = 120, width: int = 160) -> Scene:
    """Return a synthetic scene of 31 bands with little variation inside its classes, so that it shows clear edges."""
    return synthetic_scene(height, width, bands=31, noise=0.01, variation=0.1, seed=seed)


def _single_published(name: str) -> Callable[[Path, Scaling], Regions]:
    def load(data_root: Path, scaling: Scaling) -> Regions:
        return single_scene(read_single(name, data_root), scaling)

    return load


def read_single(name: str, data_root: Path) -> Scene:
    """Read one of the small published scenes, whole."""
    path = find(data_root, SINGLE[name])
    if name == "jasper_ridge":
        # Pixels in MATLAB's column order: (bands, rows · columns).
        flat, rows = read_array(f"{path}:Y", (2,)).values, 100
        if flat.shape != (198, rows * rows):
            raise UserError(f"{path}: Y has shape {flat.shape}; expected (198, 10000)")
        cube = np.ascontiguousarray(flat.T.reshape(rows, rows, 198, order="F"))
        return make_scene(name, cube, source=str(path), composite_bands=(28, 18, 8))
    cube = read_array(f"{path}:data", (3,)).values
    first = name == "muufl" and cube.shape[0] == 64
    return make_scene(
        name, cube, source=str(path), band_axis="first" if first else None,
        composite_bands={"muufl": (26, 16, 6), "pavia_crop": (60, 30, 10)}[name],
    )  # fmt: skip


def _abu(data_root: Path, scaling: Scaling, test_scene: str) -> Regions:
    if test_scene not in ABU:
        raise UserError(f"--test-scene {test_scene} does not exist; choose one of {', '.join(ABU)}")
    scenes = [
        make_scene(
            name, read_array(f"{find(data_root, f'{name}.mat')}:data", (3,)).values,
            source=str(find(data_root, f"{name}.mat")), composite_bands=(36, 19, 9),
        )
        for name in ABU
    ]  # fmt: skip
    *whole, last = [scene for scene in scenes if scene.name != test_scene]
    (test,) = [scene for scene in scenes if scene.name == test_scene]
    height, width = last.shape
    cut = height - height // 3 // 4 * 4
    divisor = scaling.divisor(last.cube, last.source)
    return {
        "train": [scene_region(scene, scaling) for scene in whole] + [Region(last, 0, 0, cut, width, divisor)],
        "validation": [Region(last, cut, 0, height - cut, width, divisor)],
        "test": [scene_region(test, scaling)],
    }


def _chikusei(data_root: Path, scaling: Scaling) -> Regions:
    import h5py  # noqa: PLC0415 - slow to import

    path = find(data_root, "HyperspecVNIR_Chikusei_20140729.mat")
    try:
        with h5py.File(path) as file:
            stored = file["chikusei"]
            if stored.shape == (128, 2335, 2517):  # band, column, row, as MATLAB's v7.3 files are
                cube = stored[:, 143:2191, 106:2410].transpose(2, 1, 0)
            elif stored.shape == (128, 2517, 2335):
                cube = stored[:, 106:2410, 143:2191].transpose(1, 2, 0)
            else:
                raise UserError(f"{path}: chikusei has shape {stored.shape}; expected 128 bands of 2517 × 2335 pixels")
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: is not the published Chikusei file ({error}); copy it again") from None
    scene = make_scene("chikusei", np.ascontiguousarray(cube), source=f"{path}:chikusei", composite_bands=(56, 34, 19))
    divisor = scaling.divisor(scene.cube, scene.source)
    return {
        "train": [Region(scene, 512, 0, 1600, 2048, divisor)],
        "validation": [Region(scene, 2112, 0, 192, 2048, divisor)],
        "test": [Region(scene, 0, 512 * i, 512, 512, divisor) for i in range(4)],
    }


def _pavia_centre(data_root: Path, scaling: Scaling) -> Regions:
    path = find(data_root, "Pavia.mat")
    cube = read_array(f"{path}:pavia", (3,)).values
    if cube.shape[2] != 102 or min(cube.shape[:2]) < 640:
        raise UserError(f"{path}: pavia has shape {cube.shape}; expected (1096, 715, 102)")
    scene = make_scene("pavia_centre", cube, source=f"{path}:pavia", composite_bands=(60, 30, 10))
    height, width = scene.shape
    cut = height - height // 10 // 8 * 8
    divisor = scaling.divisor(scene.cube, scene.source)
    return {
        "train": [Region(scene, 0, 224, cut, width - 224, divisor)],
        "validation": [Region(scene, cut, 224, height - cut, width - 224, divisor)],
        "test": [Region(scene, 224 * i, 0, 224, 224, divisor) for i in range(4)],
    }


def _cave(data_root: Path, scaling: Scaling) -> Regions:
    folders = sorted({path.parent for path in data_root.rglob("*_ms_01.png")}, key=lambda folder: folder.name)
    if len(folders) < 4:
        raise UserError(f"{data_root}: found {len(folders)} CAVE scenes (NAME_ms/NAME_ms_01.png ...); expected 32")
    scenes = []
    for folder in folders:
        bands = []
        for path in sorted(folder.glob("*_ms_[0-9][0-9].png")):
            try:
                plane = np.asarray(Image.open(path))
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error}); copy it again") from None
            plane = plane[..., 0] if plane.ndim == 3 else plane
            bands.append(plane.astype(np.uint16) * np.uint16(257 if plane.dtype == np.uint8 else 1))
        if len(bands) != 31 or len({band.shape for band in bands}) != 1:
            raise UserError(f"{folder}: found {len(bands)} bands; expected 31 images of one size, copy it again")
        name = folder.name.removesuffix("_ms")
        scenes.append(
            make_scene(name, np.stack(bands, axis=-1), source=str(folder), wavelengths=np.arange(400.0, 701.0, 10.0))
        )
    tested = max(1, round(len(scenes) * 12 / 32))
    regions = [scene_region(scene, scaling) for scene in scenes]
    training = regions[:-tested]
    held_out = max(1, len(training) // 10)
    return {"train": training[:-held_out], "validation": training[-held_out:], "test": regions[-tested:]}


def _harvard(data_root: Path, scaling: Scaling) -> Regions:
    paths = [path for path in sorted(data_root.rglob("*.mat")) if "calib" not in path.name]
    if len(paths) < 10:
        raise UserError(f"{data_root}: found {len(paths)} .mat files; expected Harvard's 50 scenes with the key ref")
    regions = [
        scene_region(make_scene(path.stem, read_array(f"{path}:ref", (3,)).values, source=f"{path}:ref"), scaling)
        for path in paths
    ]
    return {
        "train": [region for i, region in enumerate(regions) if i % 5],
        "validation": regions[5::10],
        "test": regions[0::10],
    }


DATASETS: dict[str, Callable[[Path, Scaling], Regions]] = {
    "chikusei": _chikusei,
    "pavia_centre": _pavia_centre,
    "cave": _cave,
    "harvard": _harvard,
    "abu": lambda root, scaling: _abu(root, scaling, ABU[0]),
    **{name: _single_published(name) for name in SINGLE},
}
