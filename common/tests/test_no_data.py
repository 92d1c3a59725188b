"""Pixels without data: recognised in every format, filled, kept out of labels and marked in outputs."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.no_data import value_for
from common.hyperspectral.scene import make_scene, open_scene
from support.scenes import CODES, CUBE, HOLE, envi


def with_hole(value, kind=np.float32):
    cube = CUBE.astype(kind)
    cube[HOLE] = value
    return cube


@pytest.mark.parametrize(
    ("form", "kind", "value"),
    [
        ("tif", np.float32, -3.4028235e38),
        ("tif", np.int16, -9999),
        ("tif", np.uint16, 0),
        ("tif", np.float64, np.nan),
        ("envi", np.float32, -9999),
        ("envi", np.int16, -1),
        ("npy", np.float32, np.nan),
        ("npy", np.float32, np.inf),
        ("flag", np.float32, -9999),
        ("flag", np.uint16, 65535),
    ],
)
def test_pixels_without_data_are_recognised_and_filled(tmp_path, form, kind, value):
    cube = with_hole(value, kind)
    options = {}
    if form == "tif":
        path = tmp_path / "scene.tif"
        write_geotiff(path, cube, no_data=value)
        rasterio = pytest.importorskip("rasterio", reason="rasterio is the independent reader of this check")
        with rasterio.open(path) as file:
            np.testing.assert_equal(np.array(file.nodata).astype(kind), np.array(value).astype(kind))
    elif form == "envi":
        path = envi(tmp_path, "bip", extra=f"data ignore value = {value}\n")
        path.write_text(path.read_text().replace("data type = 12", f"data type = {4 if kind == np.float32 else 2}"))
        path.with_suffix(".img").write_bytes(cube.tobytes())
    else:
        path = tmp_path / "scene.npy"
        np.save(path, cube)
        options = {"no_data": value} if form == "flag" else {}
    np.save(tmp_path / "codes.npy", np.ones((6, 7), int))
    scene = open_scene(path, tmp_path / "codes.npy", **options)
    np.testing.assert_array_equal(scene.valid, ~HOLE)
    np.testing.assert_array_equal(scene.labels, np.where(HOLE, 0, 1))
    np.testing.assert_array_equal(scene.cube[~HOLE], cube[~HOLE])
    # Column 0 holds its neighbour's spectrum.
    np.testing.assert_array_equal(scene.cube[:, 0], cube[:, 1])
    assert any(np.array_equal(scene.cube[2, 3], cube[spot]) for spot in ((1, 3), (3, 3), (2, 2), (2, 4)))
    assert any("7 pixels (16.7 %) hold no data" in note for note in scene.notes)
    np.testing.assert_array_equal(scene.data_pixels, np.flatnonzero(~HOLE))


def test_zero_is_no_data_only_in_all_bands(tmp_path):
    cube = CUBE.copy() + 1
    cube[0, 0, 2], cube[1, 1] = 0, 0
    np.save(tmp_path / "scene.npy", cube)
    scene = open_scene(tmp_path / "scene.npy", no_data=0)
    assert np.argwhere(~scene.valid).tolist() == [[1, 1]]
    assert open_scene(tmp_path / "scene.npy").notes == ()


@pytest.mark.parametrize(
    ("kind", "declared", "value"),
    [("f4", -9999.0, -9999.0), ("f4", None, np.nan), ("u2", -9999.0, 0), ("i2", -9999.0, -9999), ("u1", 255.0, 255)],
)
def test_outputs_hold_the_declared_value_where_their_type_can(kind, declared, value):
    np.testing.assert_equal(value_for(np.dtype(kind), declared), value)


def test_no_data_of_labels_is_unlabelled(tmp_path):
    codes = np.where(CODES > 0, CODES, 255).astype(np.uint8)
    write_geotiff(tmp_path / "codes.tif", codes, no_data=255)
    np.save(tmp_path / "cube.npy", CUBE)
    scene = open_scene(tmp_path / "cube.npy", tmp_path / "codes.tif")
    assert scene.codes == (3, 10)
    np.testing.assert_array_equal(scene.labels > 0, CODES > 0)


def test_labels_without_data_are_counted(tmp_path):
    np.save(tmp_path / "cube.npy", with_hole(np.nan))
    codes = CODES.copy()
    codes[2, 3] = codes[0, 0] = 3
    np.save(tmp_path / "codes.npy", codes)
    scene = open_scene(tmp_path / "cube.npy", tmp_path / "codes.npy")
    assert "2 labelled pixels hold no data and become unlabelled" in scene.notes
    np.testing.assert_array_equal(scene.labels > 0, CODES > 0)


@pytest.mark.parametrize("text", ["-3.4028235e+38", "-3.40282346638528860e+38", "-3.4028234663852886e+38"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_smallest_float_is_found_however_it_is_written(kind, text):
    cube = with_hole(np.finfo(np.float32).min, kind)
    np.testing.assert_array_equal(make_scene("x", cube, no_data=float(text)).valid, ~HOLE)


def test_a_no_data_flag_that_names_nothing_is_said(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    with pytest.raises(UserError, match="holds uint16 numbers, which can never be -9999; pass --no-data the value"):
        open_scene(tmp_path / "cube.npy", no_data=-9999)
    assert open_scene(tmp_path / "cube.npy", no_data=60000).notes == ("no pixel holds the value 60000 of --no-data",)
    with pytest.raises(UserError, match=r"no pixel holds data \(bands 0, 1, 2, 3, 4"):
        make_scene("x", np.full((3, 3, 5), -1.0), no_data=-1)
    # A value that a file declares and its type cannot hold is in no pixel.
    assert make_scene("x", CUBE, no_data=-9999).valid.all()


def test_a_declared_float_of_eight_digits_is_read_quietly(tmp_path, caplog):
    tifffile.imwrite(
        tmp_path / "scene.tif", with_hole(np.finfo(np.float32).min), photometric="minisblack", planarconfig="contig",
        metadata=None, extratags=[(42113, "s", 0, "-3.4028235e+38", True)],
    )  # fmt: skip
    np.testing.assert_array_equal(open_scene(tmp_path / "scene.tif").valid, ~HOLE)
    assert not caplog.records
