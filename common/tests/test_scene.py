"""Scenes from files: every format gives the same arrays, and every kind of wrong file one sentence."""

from __future__ import annotations

import importlib.util

import h5py
import numpy as np
import pytest
import tifffile
from scipy.io import savemat

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.no_data import value_for
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import in_codes, make_scene, open_scene
from common.hyperspectral.stored import Georeference

RNG = np.random.default_rng(0)
CUBE = RNG.integers(0, 9000, (6, 7, 5)).astype(np.uint16)
CODES = np.zeros((6, 7), np.uint8)
CODES[1, 1:4], CODES[4, 2:6] = 10, 3
UTM = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32615)


@pytest.fixture
def files(tmp_path):
    savemat(tmp_path / "cube.mat", {"cube": CUBE, "labels": CODES, "names": np.array(["a", "b"], dtype=object)})
    savemat(tmp_path / "labels.mat", {"gt": CODES.astype(float)})
    savemat(tmp_path / "packed.mat", {"cube": CUBE}, do_compression=True)
    savemat(tmp_path / "alone.mat", {"cube": CUBE})
    with h5py.File(tmp_path / "new.mat", "w") as file:  # MATLAB v7.3 reverses the axes
        file["cube"], file["labels"] = CUBE.T, CODES.T
        file["cube"].attrs["MATLAB_class"] = file["labels"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["cube"] = CUBE
    np.save(tmp_path / "cube.npy", CUBE)
    np.save(tmp_path / "first.npy", np.moveaxis(CUBE, -1, 0))
    np.savez(tmp_path / "cube.npz", cube=CUBE, labels=CODES)
    tifffile.imwrite(
        tmp_path / "bands.tif", np.moveaxis(CUBE, -1, 0), photometric="minisblack", planarconfig="separate"
    )
    write_geotiff(tmp_path / "pixels.tif", CUBE)
    return tmp_path


def envi(folder, interleave, byte_order=0, offset=0, extra=""):
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    values = CUBE.transpose(axes).astype(">u2" if byte_order else "<u2")
    (folder / "scene.img").write_bytes(b"x" * offset + values.tobytes())
    (folder / "scene.hdr").write_text(
        f"ENVI\ndescription = {{made\n for = tests}}\nsamples = 7\nlines = 6\nbands = 5\nheader offset = {offset}\n"
        f"data type = 12\ninterleave = {interleave}\nbyte order = {byte_order}\n{extra}"
    )
    return folder / "scene.hdr"


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


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("byte_order", "offset"), [(0, 0), (1, 0), (0, 12)])
def test_envi_layouts(tmp_path, interleave, byte_order, offset):
    header = envi(tmp_path, interleave, byte_order, offset)
    np.testing.assert_array_equal(read_array(header, (3,)).values, CUBE)
    np.testing.assert_array_equal(read_array(header.with_suffix(".img"), (3,)).values, CUBE)


@pytest.mark.parametrize("unit", ["wavelength units = Micrometers\n", ""])
def test_envi_wavelengths_and_place(tmp_path, unit):
    extra = "wavelength = {0.46, 0.5,\n 0.55, 0.6, 0.64}\n" + unit
    extra += "map info = {UTM, 1.5, 1, 270000, 3290000, 2.5, 2.5, 15, North, WGS-84, units=Meters}\n"
    stored = read_array(envi(tmp_path, "bil", extra=extra), (3,))
    np.testing.assert_allclose(stored.wavelengths, [460, 500, 550, 600, 640])
    assert stored.georeference.tags[33922] == (0.5, 0, 0, 270000, 3290000, 0)
    assert stored.georeference.tags[34735] == UTM


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


def test_labels_without_an_unlabelled_pixel():
    assert make_scene("x", CUBE, np.where(CODES > 0, 7, 2)).class_counts.tolist() == [35, 7]


@pytest.mark.parametrize(
    ("cube", "labels", "sentence"),
    [
        ("none.mat", None, "none.mat: no such file; expected a MATLAB"),
        ("cube.mat:data", None, r"no key 'data'; it holds cube \(6, 7, 5\), labels \(6, 7\)"),
        ("cube.npz:data", None, "no key 'data'; it holds cube, labels"),
        ("cube.npy:data", None, "holds one array without a name; leave :data away"),
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


@pytest.mark.parametrize(
    ("text", "replacement", "sentence"),
    [
        ("ENVI", "NV", "does not begin with ENVI"),
        ("data type = 12", "data type = 99", "99 is missing or unknown; expected lines, samples, bands"),
        ("lines = 6\n", "", "'lines' is missing"),
        ("lines = 6", "lines = 9", r"scene.img: has 420 bytes but scene.hdr describes 630 \(9 × 7 × 5 of uint16\)"),
        ("bands = 5\n", "bands = 5\nwavelength = {1, 2}\n", "lists 2 wavelengths; expected one for each of the 5"),
    ],
)
def test_wrong_envi_headers(tmp_path, text, replacement, sentence):
    header = envi(tmp_path, "bsq")
    header.write_text(header.read_text().replace(text, replacement, 1))
    with pytest.raises(UserError, match=sentence):
        read_array(header, (3,))


def test_envi_without_its_binary(tmp_path):
    envi(tmp_path, "bsq").with_suffix(".img").unlink()
    with pytest.raises(UserError, match=r"the binary file is missing; expected scene or scene\.img"):
        read_array(tmp_path / "scene.hdr", (3,))


def test_labels_are_asked_for():
    with pytest.raises(UserError, match="has no labels; pass --labels"):
        make_scene("x", CUBE).require_labels()


@pytest.mark.parametrize(
    "field", ["sensor type =", "reflectance scale factor = ", "; interleave = bil", "bbl = {1,\n 1}"]
)
@pytest.mark.parametrize("interleave", ["bil", "bip"])
def test_an_empty_field_of_an_envi_header_is_empty(tmp_path, field, interleave):
    for line in ("byte order = 1", "header offset = 12", f"interleave = {interleave}", "samples = 7"):
        header = envi(tmp_path, interleave, byte_order=1, offset=12)
        header.write_text(header.read_text().replace(f"{line}\n", f"{field}\n{line}\n", 1))
        np.testing.assert_array_equal(read_array(header, (3,)).values, CUBE)


@pytest.mark.parametrize("change", ["bom", "crlf", "latin", "upper", "spaces"])
def test_envi_headers_as_other_programs_write_them(tmp_path, change):
    header = envi(tmp_path, "bil", byte_order=1)
    text = header.read_text()
    changed = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "latin": text.replace("made", "gew\xe4hlt").encode("latin-1"),
        "upper": text.replace("data type", "Data Type").replace("= bil", "= BIL").encode(),
        "spaces": text.replace("data type =", "  data   type=").encode(),
    }[change]
    header.write_bytes(changed)
    np.testing.assert_array_equal(read_array(header, (3,)).values, CUBE)


@pytest.mark.parametrize(
    ("header", "binary", "named"),
    [
        ("UP.HDR", "UP.IMG", "UP.HDR"),
        ("UP.HDR", "UP.IMG", "UP.IMG"),
        ("half.hdr", "half.DAT", "half.hdr"),
        ("air.hdr", "air.rfl", "air.rfl"),
        ("air.hdr", "air.rfl", "air.hdr"),
        ("air.img.hdr", "air.img", "air.img.hdr"),
        ("air.img.HDR", "air.img", "air.img"),
        ("plain.hdr", "plain", "plain"),
    ],
)
def test_envi_pairs_of_any_name(tmp_path, header, binary, named):
    made = envi(tmp_path, "bip")
    made.with_suffix(".img").rename(tmp_path / binary)
    made.rename(tmp_path / header)
    np.testing.assert_array_equal(read_array(tmp_path / named, (3,)).values, CUBE)


def test_the_binary_that_the_user_names_is_the_one_that_is_read(tmp_path):
    made = envi(tmp_path, "bip")
    (tmp_path / "scene.rfl").write_bytes((CUBE + 1).astype("<u2").tobytes())
    np.testing.assert_array_equal(read_array(tmp_path / "scene.rfl", (3,)).values, CUBE + 1)
    np.testing.assert_array_equal(read_array(made, (3,)).values, CUBE)


HOLE = np.zeros((6, 7), dtype=bool)
HOLE[:, 0], HOLE[2, 3] = True, True


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


def test_big_endian_arrays_become_the_machines(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE.astype(">u2"))
    stored = read_array(tmp_path / "cube.npy", (3,))
    assert stored.values.dtype.isnative
    np.testing.assert_array_equal(stored.values, CUBE)


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
    with pytest.raises(UserError, match="holds uint16 numbers, of which none can be -9999; pass --no-data the value"):
        open_scene(tmp_path / "cube.npy", no_data=-9999)
    assert open_scene(tmp_path / "cube.npy", no_data=60000).notes == ("no pixel holds the value 60000 of --no-data",)
    with pytest.raises(UserError, match=r"no pixel holds data \(bands 0, 1, 2, 3, 4"):
        make_scene("x", np.full((3, 3, 5), -1.0), no_data=-1)
    # A value that a file declares and its type cannot hold is in no pixel.
    assert make_scene("x", CUBE, no_data=-9999).valid.all()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("file compression = 1\n", "file compression is 1; expected a flat file"),
        ("major frame offsets = {8, 0}\n", "major frame offsets is 8, 0; expected a flat file"),
        ("description = {never\nclosed\n", "the brace of description is never closed"),
        ("data ignore value = lots\n", "data ignore value is 'lots'; expected a number"),
        ("byte order = 2\n", "byte order 0 or 1"),
        ("lines = 6.0\n", "lines is '6.0'; expected a whole number"),
        ("lines = 0\n", "describes 0 × 7 × 5 values; expected at least one"),
        ("data type =\n", "'data type' is missing or unknown"),
    ],
)
def test_envi_headers_that_are_not_understood(tmp_path, extra, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read_array(envi(tmp_path, "bsq", extra=extra), (3,))
    assert "\n" not in str(caught.value)


def test_envi_braces_and_comments(tmp_path):
    header = envi(tmp_path, "bil", byte_order=1)
    text = header.read_text().replace("samples = 7", "samples = 7 ; columns").replace("bands = 5", "bands = {5}")
    text = text.replace("{made\n for = tests}", "{made {twice}\n; lines = 3\n samples = 9\n}")
    header.write_text("\n" + text)
    np.testing.assert_array_equal(read_array(header, (3,)).values, CUBE)


def test_envi_notes(tmp_path):
    extra = "bbl = {1, 0, 1, 1.0, 0.0}\ndata gain values = {1, 2, 3, 4, 5}\nmap info = {Arbitrary, a, b, c, d, e, f}\n"
    notes = read_array(envi(tmp_path, "bsq", extra=extra), (3,)).notes
    assert "marks 2 bands as bad (counted from 0: 1, 4)" in notes[0]
    assert "data gain values" in notes[1] and "map info is not understood" in notes[2]
    assert read_array(envi(tmp_path, "bsq", extra="bbl = {1,1,1,1,1}\n"), (3,)).notes == ()


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        ("Wavenumber", "20000, 10000, 8000, 5000, 4000", [500, 1000, 1250, 2000, 2500]),
        ("Index", "1, 2, 3, 4, 5", None),
        ("Angstroms", "4000, 5000, 6000, 7000, 8000", [400, 500, 600, 700, 800]),
    ],
)
def test_units_of_wavelengths(tmp_path, unit, values, expected):
    stored = read_array(envi(tmp_path, "bsq", extra=f"wavelength units = {unit}\nwavelength = {{{values},}}\n"), (3,))
    if expected is None:
        assert stored.wavelengths is None
    else:
        np.testing.assert_allclose(stored.wavelengths, expected)


def test_a_turned_envi_scene_lies_where_gdal_puts_it(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is the independent reader of this check")
    place = "map info = {UTM, 1, 1, 270000, 3290000, 2.5, 2.5, 15, North, WGS-84, units=Meters, rotation=30}\n"
    header = envi(tmp_path, "bsq", extra=place)
    write_geotiff(tmp_path / "map.tif", CODES, read_array(header, (3,)).georeference)
    with rasterio.open(header.with_suffix(".img")) as file, rasterio.open(tmp_path / "map.tif") as ours:
        np.testing.assert_allclose(tuple(ours.transform), tuple(file.transform), rtol=1e-12)
        assert ours.crs.to_epsg() == 32615
    # The pixel that the header names keeps its place: column 2, row 3, counted from 1.
    header.write_text(header.read_text().replace("{UTM, 1, 1,", "{UTM, 2, 3,"))
    matrix = np.reshape(read_array(header, (3,)).georeference.tags[34264], (4, 4))
    np.testing.assert_allclose(matrix @ [1, 2, 0, 1], [270000, 3290000, 0, 1])


def test_the_binary_of_the_right_size_is_taken(tmp_path):
    header = envi(tmp_path, "bsq")
    (tmp_path / "scene.dat").write_bytes(b"notes of the flight")
    np.testing.assert_array_equal(read_array(header, (3,)).values, CUBE)
    (tmp_path / "scene.dat").write_bytes((tmp_path / "scene.img").read_bytes())
    with pytest.raises(UserError, match=r"scene\.dat and scene\.img could be its binary file; name the binary"):
        read_array(header, (3,))
    (tmp_path / "scene.dat").unlink()
    (tmp_path / "scene.img").write_bytes(CUBE.tobytes() + b"x")
    with pytest.raises(UserError, match=r"has 421 bytes but scene\.hdr describes 420.*the header does not fit"):
        read_array(header, (3,))


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
    with pytest.raises(UserError, match="leave :cube away"):
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


def test_a_declared_float_of_eight_digits_is_read_quietly(tmp_path, caplog):
    tifffile.imwrite(
        tmp_path / "scene.tif", with_hole(np.finfo(np.float32).min), photometric="minisblack", planarconfig="contig",
        metadata=None, extratags=[(42113, "s", 0, "-3.4028235e+38", True)],
    )  # fmt: skip
    np.testing.assert_array_equal(open_scene(tmp_path / "scene.tif").valid, ~HOLE)
    assert not caplog.records
