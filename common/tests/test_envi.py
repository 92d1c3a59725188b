"""ENVI: headers as programs write them, pairs of any name, places and units."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from support.scenes import CODES, CUBE, UTM, envi


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
    assert "data gain values" in notes[1] and "map info cannot be read" in notes[2]
    assert read_array(envi(tmp_path, "bsq", extra="bbl = {1,1,1,1,1}\n"), (3,)).notes == ()


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        ("Wavenumber", "20000, 10000, 8000, 5000, 4000", [500, 1000, 1250, 2000, 2500]),
        ("Index", "1, 2, 3, 4, 5", None),
        ("Nanometers", "400, 500, 0, 700, 800", None),
        ("Wavenumber", "20000, nan, 8000, 5000, 4000", None),
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
