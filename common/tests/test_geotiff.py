"""GeoTIFF as GDAL and tifffile write it: forms, masks, scales, places."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tifffile

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import open_scene
from common.hyperspectral.stored import Georeference
from support.scenes import CODES, CUBE, HOLE, RNG, UTM


def test_a_map_keeps_its_scenes_place(tmp_path):
    place = Georeference({33550: (2.5, 2.5, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 3e6, 0.0), 34735: UTM})
    write_geotiff(tmp_path / "scene.tif", CUBE, place)
    write_geotiff(tmp_path / "map.tif", CODES, read_array(tmp_path / "scene.tif", (3,)).georeference)
    stored = read_array(tmp_path / "map.tif", (2,))
    np.testing.assert_array_equal(stored.values, CODES)
    assert stored.georeference == place
    rasterio = pytest.importorskip("rasterio", reason="rasterio is the independent reader of this check")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.crs.to_epsg() == 32615
        assert tuple(file.transform)[:6] == (2.5, 0, 5e5, 0, -2.5, 3e6)


def rasterio_file(path, bands, mask=None, **profile):
    """Write `(rows, columns, bands)` with GDAL, the independent writer of these checks."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio writes the files of this check")
    bands = np.moveaxis(np.atleast_3d(bands), -1, 0)
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **size, **profile) as file,
    ):
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "profile",
    [
        {"interleave": "band"},
        {"interleave": "pixel"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "deflate", "predictor": 2},
        {"compress": "packbits"},
        {"compress": "lzw"},
        {"compress": "zstd", "interleave": "band"},
        {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"photometric": "MINISWHITE"},
    ],
    ids=str,
)
def test_geotiff_as_gdal_writes_it(tmp_path, profile):
    stored = read_array(rasterio_file(tmp_path / "scene.tif", CUBE, **profile), (3,))
    assert stored.values.dtype == np.uint16 and stored.values.dtype.isnative
    np.testing.assert_array_equal(stored.values, CUBE)
    assert bool(stored.notes) == ("photometric" in profile)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_compression_that_cannot_be_undone_is_said(tmp_path, monkeypatch):
    path = rasterio_file(tmp_path / "scene.tif", CUBE.astype(np.float32), compress="lzw", predictor=3)
    np.testing.assert_array_equal(read_array(path, (3,)).values, CUBE)
    if importlib.util.find_spec("imagecodecs"):
        return
    monkeypatch.setattr("common.hyperspectral.geotiff.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"is compressed in a way that needs: pip install imagecodecs \(or rasterio\)"):
        read_array(path, (3,))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_inside_a_geotiff_counts(tmp_path):
    path = rasterio_file(tmp_path / "scene.tif", CUBE, mask=np.where(HOLE, 0, 255).astype(np.uint8))
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.valid, ~HOLE)
    np.testing.assert_array_equal(scene.cube[:, 0], CUBE[:, 1])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_declared_scale_is_said(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio writes the files of this check")
    path = rasterio_file(tmp_path / "scene.tif", CUBE)
    assert open_scene(path).notes == ()
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.0001] * 5, [0.0] * 5
    (note,) = open_scene(path).notes
    assert "declares scale 0.0001, its numbers are taken as they are stored" in note


def test_pages_are_bands_unless_the_labels_say_rows(files, tmp_path):
    tifffile.imwrite(tmp_path / "bands_as_pages.tif", np.moveaxis(CUBE, -1, 0), photometric="minisblack")
    tifffile.imwrite(tmp_path / "rows_as_pages.tif", CUBE, photometric="minisblack")  # what NumPy users write
    for labels in (None, f"{files}/labels.mat"):
        np.testing.assert_array_equal(open_scene(tmp_path / "bands_as_pages.tif", labels).cube, CUBE)
    np.testing.assert_array_equal(open_scene(tmp_path / "rows_as_pages.tif", f"{files}/labels.mat").cube, CUBE)
    np.testing.assert_array_equal(open_scene(tmp_path / "rows_as_pages.tif", band_axis="last").cube, CUBE)


@pytest.mark.parametrize("band_axis", [None, "first", "last"])
def test_a_format_that_says_where_its_bands_are_is_believed(tmp_path, band_axis):
    square = RNG.integers(0, 9000, (5, 5, 5)).astype(np.uint16)
    write_geotiff(tmp_path / "scene.tif", square)
    np.save(tmp_path / "codes.npy", np.ones((5, 5), int))
    scene = open_scene(tmp_path / "scene.tif", tmp_path / "codes.npy", band_axis=band_axis)
    np.testing.assert_array_equal(scene.cube, square)
