"""Scenes from files: every format gives the same arrays, and every kind of wrong file one sentence."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.labels import in_codes
from common.hyperspectral.outputs import refuse_inputs
from common.hyperspectral.raster import larger_than
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import make_scene, open_scene
from support.scenes import CODES, CUBE, envi


@pytest.mark.parametrize(
    "name",
    [
        "cube.mat",
        "cube.mat:cube",
        "new.mat",
        "plain.h5",
        "cube.npy",
        "cube.npz",
        "cube.npz:cube",
        "bands.tif",
        "pixels.tif",
    ],
)
def test_every_format_gives_the_same_cube(files, name):
    stored = read_array(f"{files}/{name}", (3,))
    assert stored.values.dtype == np.uint16
    assert stored.values.flags.c_contiguous
    np.testing.assert_array_equal(stored.values, CUBE)


def test_labels_lose_their_gaps_and_keep_their_codes(files):
    scene = open_scene(f"{files}/cube.mat:cube", f"{files}/labels.mat")
    assert scene.codes == (3, 10)
    assert scene.class_names == ("class 3", "class 10")
    assert scene.class_counts.tolist() == [4, 3]
    np.testing.assert_array_equal(scene.labels, np.select([CODES == 3, CODES == 10], [1, 2]))
    assert (scene.shape, scene.bands, scene.num_classes, scene.name) == ((6, 7), 5, 2, "cube")


def test_bands_first_is_found_from_the_labels(files):
    np.testing.assert_array_equal(open_scene(files / "first.npy", f"{files}/labels.mat").cube, CUBE)
    np.testing.assert_array_equal(open_scene(files / "first.npy", band_axis="first").cube, CUBE)
    with pytest.raises(UserError, match="fits the labels with bands first and with bands last"):
        make_scene("x", np.zeros((4, 4, 4)), np.ones((4, 4), int))


def test_a_key_may_follow_a_name_with_a_colon(tmp_path):
    np.save(tmp_path / "a:b.npy", CUBE)
    np.testing.assert_array_equal(read_array(tmp_path / "a:b.npy", (3,)).values, CUBE)


def test_a_key_of_an_archive_may_hold_slashes(tmp_path):
    np.savez(tmp_path / "a.npz", **{"day/cube": CUBE, "night/cube": CUBE + 1})
    np.testing.assert_array_equal(read_array(f"{tmp_path / 'a.npz'}:night/cube", (3,)).values, CUBE + 1)


def test_a_group_that_holds_itself(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("day")["cube"] = CUBE
        file["day/all"] = h5py.SoftLink("/")
    np.testing.assert_array_equal(read_array(tmp_path / "a.h5", (3,)).values, CUBE)


@pytest.mark.parametrize("name", ["cube.npy", "cube.npz", "cube.mat", "plain.h5", "pixels.tif"])
def test_a_header_beside_a_file_of_another_format_is_not_its_own(files, name):
    """A scene that was saved in two formats: the header belongs to the binary."""
    header = files / f"{name.partition('.')[0]}.hdr"
    envi(files, "bsq").rename(header)
    (files / "scene.img").rename(header.with_suffix(".img"))
    key = ":cube" if name == "cube.mat" else ""
    assert not larger_than(10**9, str(files / name), 4)
    np.testing.assert_array_equal(open_scene(f"{files / name}{key}", band_axis="last").cube, CUBE)
    refuse_inputs([header], [f"{files / name}{key}"])
    for reference in (header, header.with_suffix(".img")):
        for output in (header, header.with_suffix(".img")):
            with pytest.raises(UserError, match="would replace a file of the input"):
                refuse_inputs([output], [str(reference)])


def test_labels_without_an_unlabelled_pixel():
    assert make_scene("x", CUBE, np.where(CODES > 0, 7, 2)).class_counts.tolist() == [35, 7]


@pytest.mark.parametrize(
    ("cube", "labels", "sentence"),
    [
        ("none.mat", None, "none.mat: no such file; expected a MATLAB"),
        ("cube.mat:data", None, r"no key 'data'; it holds cube \(6, 7, 5\), labels \(6, 7\)"),
        ("cube.npz:data", None, "no key 'data'; it holds cube, labels"),
        ("cube.npy:data", None, "holds one array without a name; remove :data"),
        ("two.npz", None, r"several arrays could be meant; it holds a \(6, 7, 5\), b \(6, 7, 5\): name one"),
        ("labels.mat", None, r"no array is three-dimensional \(rows, columns, bands\); it holds gt \(6, 7\)"),
        ("labels.mat:gt", None, r"labels.mat:gt: has shape \(6, 7\); expected three-dimensional"),
        ("cube.npy", "small.npy", r"labels are 6 × 6 pixels but the cube .*cube.npy is 6 × 7 with 5 bands"),
        ("cube.npy", "turned.npy", "the labels look transposed"),
        ("complex.npy", None, "holds complex numbers; expected real numbers"),
        ("complex.mat", None, "holds complex numbers; expected real numbers"),
        ("cube.mat:names", None, "holds values of type object; expected real numbers"),
        ("object.npy", None, "holds values of type object"),
        ("nan.npy", None, r"no pixel holds data \(bands 1, 4, counted from 0, hold NaN, infinity or the no-data value"),
        ("cube.npy", "zero.npy", "expected at least one labelled pixel"),
        ("cube.npy", "half.npy", "labels hold 0.5; expected whole numbers"),
        ("cube.npy", "nan_labels.npy", "labels hold nan; expected whole numbers"),
        ("cube.npy", "negative.npy", "labels hold -1; expected codes from 0"),
        ("archive.npy", None, "archive.npy: is a NumPy archive; rename it to archive.npz"),
        ("notes.txt", None, "unknown kind of file; expected MATLAB"),
    ],
)
def test_wrong_input_is_said_in_one_sentence(files, cube, labels, sentence):
    nan = CUBE.astype(np.float32)
    nan[..., 1], nan[..., 4] = np.nan, np.inf
    for name, value in {
        "small": CODES[:, :6], "turned": CODES.T, "complex": CUBE * 1j, "nan": nan, "zero": CODES * 0,
        "half": CODES / 6, "nan_labels": np.where(CODES > 0, np.nan, 1), "negative": CODES.astype(int) - 1,
    }.items():  # fmt: skip
        np.save(files / name, value)
    np.save(files / "object.npy", np.array([CUBE, None], dtype=object), allow_pickle=True)
    np.savez(files / "two.npz", a=CUBE, b=CUBE)
    (files / "archive.npy").write_bytes((files / "two.npz").read_bytes())
    savemat(files / "complex.mat", {"cube": CUBE * 1j})
    (files / "notes.txt").write_text("no scene")
    np.save(files / "half.npy", np.where(CODES == 3, 0.5, 1.0))
    with pytest.raises(UserError, match=sentence) as caught:
        open_scene(f"{files}/{cube}", labels and f"{files}/{labels}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["alone.mat", "packed.mat", "new.mat", "cube.npy", "cube.npz", "bands.tif", "pixels.tif"]
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(files, name, share):
    content = (files / name).read_bytes()
    (files / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"{name}.*(damaged or incomplete|it holds)"):
        open_scene(files / name)


def test_labels_are_asked_for():
    with pytest.raises(UserError, match="has no labels; pass --labels"):
        make_scene("x", CUBE).require_labels()


def test_big_endian_arrays_become_the_machines(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE.astype(">u2"))
    stored = read_array(tmp_path / "cube.npy", (3,))
    assert stored.values.dtype.isnative
    np.testing.assert_array_equal(stored.values, CUBE)


def test_matlab_files_with_more_than_arrays(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    everything = {
        "cube": CUBE,
        "info": {"sensor": "x"},
        "title": "a scene",
        "cells": np.array([["a", "b"]], dtype=object),
    }
    savemat(tmp_path / "scene.mat", everything | {"gt": sparse.csc_matrix(CODES)})
    np.testing.assert_array_equal(read_array(tmp_path / "scene.mat", (3,)).values, CUBE)
    np.testing.assert_array_equal(read_array(tmp_path / "scene.mat", (2,)).values, CODES)
    with pytest.raises(UserError, match=r"info: holds values of type object; expected real .* info \(struct\), title"):
        read_array(f"{tmp_path}/scene.mat:info", (3,))
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["scene/cube"] = CUBE
        file["#refs#/a"] = CUBE
        file["title"] = np.frombuffer("a scene".encode("utf-16-le"), np.uint16).reshape(-1, 1)
        file["title"].attrs["MATLAB_class"] = np.bytes_("char")
        file["complex"] = CUBE * 1j
        file.create_dataset("nothing", dtype="f4")
    np.testing.assert_array_equal(read_array(f"{tmp_path}/new.mat:scene.cube", (3,)).values, CUBE)
    with pytest.raises(UserError, match=r"several arrays could be meant; it holds complex \(6, 7, 5\), scene.cube"):
        read_array(tmp_path / "new.mat", (3,))
    with pytest.raises(UserError, match="title: holds values of type object; expected real numbers"):
        read_array(f"{tmp_path}/new.mat:title", (2,))
    with pytest.raises(UserError, match="remove :cube"):
        read_array(f"{write(tmp_path)}:cube", (3,))


def write(folder):
    write_geotiff(folder / "named.tif", CUBE)
    return folder / "named.tif"


@pytest.mark.parametrize(
    ("codes", "kind"),
    [((3, 255), "u1"), ((1, 256), "u2"), ((1, 65536), "u4"), ((7, 3301010101), "u4"), ((1, 2**40), "i8")],
)
def test_maps_come_in_the_codes_of_their_labels(tmp_path, codes, kind):
    written = in_codes(np.array([[0, 1], [2, 1]]), codes)
    assert written.dtype == kind
    assert written.tolist() == [[0, codes[0]], [codes[1], codes[0]]]
    write_geotiff(tmp_path / "map.tif", written, no_data=0)
    savemat(tmp_path / "map.mat", {"classes": written})
    for name in ("map.tif", "map.mat"):
        stored = read_array(tmp_path / name, (2,))
        assert stored.values.dtype == kind
        np.testing.assert_array_equal(stored.values, written)
    rasterio = pytest.importorskip("rasterio", reason="rasterio is the independent reader of this check")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.nodata == 0
        np.testing.assert_array_equal(file.read(1), written)


@pytest.mark.parametrize(
    ("cube", "codes", "sentence"),
    [
        (np.zeros((0, 7, 5)), CODES, r"has shape \(0, 7, 5\), so it holds nothing"),
        (CUBE, np.where(CODES > 0, 1e300, 0), "labels hold 1e[+]300; expected class codes of at most 64 bits"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, cube, codes, sentence):
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "codes.npy", codes)
    with pytest.raises(UserError, match=sentence):
        open_scene(tmp_path / "cube.npy", tmp_path / "codes.npy")


def test_long_floats_become_doubles(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE.astype(np.longdouble))
    assert read_array(tmp_path / "cube.npy", (3,)).values.dtype == np.float64


def test_truth_values_become_numbers(tmp_path):
    np.save(tmp_path / "a.npy", CUBE > 4000)
    cube = open_scene(tmp_path / "a.npy").cube
    assert cube.dtype == np.uint8 and np.array_equal(cube, CUBE > 4000)
