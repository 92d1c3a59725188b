"""Declarations of a file about its numbers have the same effect in memory and by windows."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from common.errors import UserError
from common.hyperspectral.raster import Raster
from common.hyperspectral.scene import Scene, make_scene, open_scene

rasterio = pytest.importorskip("rasterio", reason="scenes by windows need rasterio")

CUBE = np.random.default_rng(0).integers(1, 200, (6, 7, 3)).astype(np.float32)
VALID = np.ones((6, 7), dtype=bool)
VALID[2:4, 3] = False
HOLE = np.where(VALID[..., None], CUBE, -9999).astype(np.float32)


def both(path: Path) -> tuple[Scene, Scene, str]:
    """Return the scene read whole and read by windows, with all notes."""
    whole, raster = open_scene(path), Raster(path)
    return (
        whole,
        raster.read((slice(0, raster.shape[0]), slice(0, raster.shape[1]))),
        "; ".join({*whole.remarks, *raster.notes}),
    )


def write_envi(path: Path, cube: np.ndarray, interleave: str = "bsq", big: bool = False, extra: str = "") -> Path:
    """Write a scene after five other bytes; return the header's path."""
    values = cube.transpose({"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave])
    path.write_bytes(b"12345" + values.astype(cube.dtype.newbyteorder(">" if big else "<")).tobytes())
    header = path.with_suffix(".hdr")
    header.write_text(
        f"ENVI\nsamples = 7\nlines = 6\nbands = 3\nheader offset = 5\ndata type = {12 if cube.dtype == 'u2' else 4}\n"
        f"interleave = {interleave}\nbyte order = {int(big)}\n{extra}"
    )
    return header


def tif(path: Path, cube: np.ndarray, no_data: str | None = None) -> Path:
    tags = [] if no_data is None else [(42113, "s", 0, no_data, True)]
    tifffile.imwrite(path, cube, photometric="minisblack", planarconfig="contig", extratags=tags)
    return path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("byte order = 1", "byte  order = 1"),
        ("byte order = 1", "byte order = {1}"),
        ("byte order = 1", "Byte Order\t=1"),
    ],
)
def test_a_loosely_written_header_means_the_same_to_both(tmp_path: Path, written: str, meant: str) -> None:
    header = write_envi(tmp_path / "scene", CUBE, "bil", big=True)
    header.write_text(header.read_text().replace(written, meant))
    for scene in both(header)[:2]:
        np.testing.assert_array_equal(scene.cube, CUBE)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_windows_of_every_layout(tmp_path: Path, interleave: str) -> None:
    raster = Raster(write_envi(tmp_path / "scene", CUBE, interleave, big=True))
    np.testing.assert_array_equal(raster.read((slice(1, 4), slice(2, 6))).cube, CUBE[1:4, 2:6])


@pytest.mark.parametrize(
    ("text", "value", "sentence"),
    [
        ("-nan", np.nan, ""),
        ("none", 0, ""),
        ("-9999,0", -9999, "declares '-9999,0' for pixels without data, which is not a number; use --no-data"),
    ],
)
def test_no_data_as_programs_write_it(tmp_path: Path, text: str, value: float, sentence: str) -> None:
    cube = np.where(VALID[..., None], CUBE, value).astype(np.float32)
    whole, window, said = both(tif(tmp_path / "a.tif", cube, text))
    for scene in (whole, window):
        np.testing.assert_array_equal(scene.valid, VALID if text == "-nan" else np.ones_like(VALID))
    assert sentence in said


@pytest.mark.parametrize(("kind", "value"), [("u8", 2**64 - 1), ("i8", -(2**53) - 1)])
def test_no_data_of_64_bits_is_exact(tmp_path: Path, kind: str, value: int) -> None:
    cube = CUBE.astype(kind)
    cube[~VALID] = value
    for scene in both(tif(tmp_path / "a.tif", cube, str(value)))[:2]:
        np.testing.assert_array_equal(scene.valid, VALID)


def test_a_value_that_the_type_cannot_hold_is_said(tmp_path: Path) -> None:
    wanted = "declares -9999 for pixels without data, which uint16 numbers cannot be: name another"
    assert wanted in both(tif(tmp_path / "a.tif", CUBE.astype("u2"), "-9999"))[2]
    assert wanted in both(write_envi(tmp_path / "b", CUBE.astype("u2"), extra="data ignore value = -9999\n"))[2]


@pytest.mark.parametrize("form", ["aux.xml", "msk", "alpha"])
def test_what_stands_beside_the_values_counts(tmp_path: Path, form: str) -> None:
    path, cube = tmp_path / "a.tif", HOLE if form == "aux.xml" else CUBE
    if form == "alpha":
        alpha = np.where(VALID, 255, 0).astype(np.uint8)[..., None]
        tifffile.imwrite(path, np.concatenate([CUBE.astype(np.uint8), alpha], axis=-1), photometric="rgb")
    else:
        tif(path, cube)
    if form == "aux.xml":
        band = "<PAMRasterBand band='{}'><NoDataValue>-9.99900000000000E+03</NoDataValue></PAMRasterBand>"
        xml = "".join(band.format(i) for i in (1, 2, 3))
        Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{xml}</PAMDataset>")
    if form == "msk":
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
            warnings.simplefilter("ignore")
            with rasterio.open(path, "r+") as file:
                file.write_mask(VALID)
        assert Path(f"{path}.msk").exists()
    whole, window, said = both(path)
    for scene in (whole, window):
        np.testing.assert_array_equal(scene.valid, VALID)
        np.testing.assert_array_equal(scene.cube[VALID], CUBE[VALID])
    assert bool(re.search("band 4 is marked as alpha", said)) == (form == "alpha")


def test_a_mask_of_labels_is_unlabelled(tmp_path: Path) -> None:
    cube, labels = tif(tmp_path / "a.tif", CUBE), tmp_path / "b.tif"
    grey_and_alpha = np.stack([np.full_like(VALID, 4, np.uint8), VALID.astype(np.uint8)], axis=-1)
    tifffile.imwrite(labels, grey_and_alpha, photometric="minisblack", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(open_scene(cube, labels).labels, VALID)


def test_wavelengths_of_a_geotiff(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", CUBE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "r+") as file:
            for band in (1, 2, 3):
                file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{0.4 + band / 10:.1f}")
    for scene in both(path)[:2]:
        assert scene.wavelengths is not None
        np.testing.assert_allclose(scene.wavelengths, [500, 600, 700])


@pytest.mark.parametrize("text", ["0.5 µm", "0..5", "1e-.", "", "-1"])
def test_wavelengths_that_are_no_numbers_cost_nothing(tmp_path: Path, text: str) -> None:
    path = tif(tmp_path / "a.tif", CUBE)
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as file:
        for band in (1, 2, 3):
            file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=text)
    assert all(scene.wavelengths is None for scene in both(path)[:2])


def test_an_undeclared_huge_value_is_no_measured_one(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", np.where(VALID[..., None], CUBE, np.finfo(np.float32).min).astype(np.float32))
    for read in (open_scene, lambda path: Raster(path).read((slice(0, 6), slice(0, 7)))):
        with pytest.raises(UserError, match=r"holds -3.40282e\+38, which is no measured value.*--no-data"):
            read(path)
    assert open_scene(path, no_data=-3.4028235e38).valid.sum() == VALID.sum()


def test_a_constant_cube_is_not_learnt_from() -> None:
    with pytest.raises(UserError, match="all pixels hold the same values"):
        make_scene("a", np.full((6, 7, 3), 4.0), VALID.astype(int))


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
def test_what_netcdf_s_attributes_declare(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["labels"] = HOLE, np.where(VALID, 4, 255).astype(np.uint8)
        file["cube"].attrs[name], file["cube"].attrs["scale_factor"] = np.float32([-9999]), 0.1
        file["labels"].attrs[name] = np.uint8(255)
    scene = open_scene(f"{tmp_path / 'a.h5'}:cube", f"{tmp_path / 'a.h5'}:labels")
    np.testing.assert_array_equal(scene.valid, VALID)
    np.testing.assert_array_equal(scene.labels, VALID)
    assert "the file declares scale_factor, its numbers are taken as they are stored" in scene.remarks
