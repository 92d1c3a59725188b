"""Image files of every form are read and written again; damaged ones are refused."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from common.errors import UserError
from fftformer.images import picture_size, read_picture, read_pixels, read_rgb
from fftformer.writing import write_picture

HEIGHT, WIDTH = 22, 34


def noise(channels: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(channels)
    values = random.integers(np.iinfo(dtype).max + 1, size=(HEIGHT, WIDTH, channels), dtype=dtype)
    return values[..., 0] if channels == 1 else values


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an image, if possible with another library than the tested code uses for this form."""
    if pixels.dtype == np.uint16 and path.suffix == ".png":
        order = {2: [], 3: [2, 1, 0], 4: [2, 1, 0, 3]}
        assert cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., order[pixels.shape[2]]])
    elif path.suffix == ".tif":
        alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
        grey = pixels.ndim == 2 or pixels.shape[2] == 2
        tifffile.imwrite(
            path,
            pixels,
            photometric="minisblack" if grey else "rgb",
            planarconfig="contig" if pixels.ndim == 3 else None,
            extrasamples=["unassalpha"] if alpha else None,
        )
    else:
        Image.fromarray(pixels).save(path)
    return path


FORMS = [
    (suffix, channels, dtype)
    for suffix in (".png", ".tif")
    for channels in (1, 2, 3, 4)
    for dtype in (np.uint8, np.uint16)
    if (suffix, channels, dtype) != (".png", 2, np.uint16)  # no installed library writes it
    and (suffix, channels) != (".tif", 2)
]


@pytest.mark.parametrize(("suffix", "channels", "dtype"), FORMS)
def test_form_is_kept(tmp_path: Path, suffix: str, channels: int, dtype: type) -> None:
    pixels = noise(channels, dtype)
    source = save(tmp_path / f"in{suffix}", pixels)
    picture = read_picture(source)
    assert picture.bits == 8 * dtype().itemsize
    assert picture.grey == (channels in (1, 2))
    assert (picture.alpha is not None) == (channels in (2, 4))
    colours = pixels[..., None] if channels == 1 else pixels[..., : 1 if channels == 2 else 3]
    np.testing.assert_array_equal(picture.rgb, np.broadcast_to(colours, (HEIGHT, WIDTH, 3)))
    np.testing.assert_array_equal(read_pixels(source), picture.rgb)

    target = tmp_path / "folder" / f"out{suffix}"
    write_picture(target, picture.rgb / np.iinfo(dtype).max, like=picture)
    again = read_picture(target)
    assert (again.bits, again.grey, again.format) == (picture.bits, picture.grey, picture.format)
    np.testing.assert_array_equal(again.rgb, picture.rgb)
    if picture.alpha is not None:
        np.testing.assert_array_equal(again.alpha, pixels[..., -1])
    written = tifffile.imread(target) if suffix == ".tif" else cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert written.dtype == dtype


def test_jpeg_is_kept_closely(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8)[..., None] * np.array(
        [1, 2, 3], np.uint8
    )
    Image.fromarray(smooth).save(tmp_path / "in.jpg", quality=95)
    picture = read_picture(tmp_path / "in.jpg")
    write_picture(tmp_path / "out.jpg", picture.rgb / 255, like=picture)
    again = read_picture(tmp_path / "out.jpg")
    assert again.format == "JPEG" and not again.grey
    assert np.abs(again.rgb.astype(int) - picture.rgb).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["in.jpg", "in.png", "wide.png", "in.tif", "wide.tif"])
def test_orientation_is_applied_once(tmp_path: Path, form: str, orientation: int) -> None:
    """Compare with Pillow's own transposition, for 8 bits and for 16 bits, which Pillow cannot read."""
    from PIL import ImageOps

    path = tmp_path / form
    pixels = np.kron(noise(3) // 2, np.ones((8, 8, 1), np.uint8))  # uniform blocks, which JPEG changes little
    exif = Image.Exif()
    exif[0x0112] = orientation
    oriented = Image.fromarray(pixels)
    oriented.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(oriented)).astype(float)
    if form == "wide.tif":
        wide = pixels.astype(np.uint16) * 257
        tifffile.imwrite(path, wide, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        expected *= 257
    elif form == "wide.png":
        data = cv2.imencode(".png", pixels[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
        chunk = io.BytesIO()
        oriented.save(chunk, format="PNG", exif=exif)
        start = chunk.getvalue().index(b"eXIf") - 4
        length = int.from_bytes(chunk.getvalue()[start : start + 4], "big") + 12
        path.write_bytes(data[:33] + chunk.getvalue()[start : start + length] + data[33:])
        expected *= 257
    else:
        Image.fromarray(pixels).save(
            path, exif=exif, **({"quality": 100, "subsampling": 0} if form == "in.jpg" else {})
        )
    picture = read_picture(path)
    assert picture.rgb.shape == expected.shape
    assert picture_size(path) == expected.shape[:2]
    assert np.abs(picture.rgb - expected).max() <= (4 if form == "in.jpg" else 0)
    np.testing.assert_array_equal(read_pixels(path), picture.rgb)

    write_picture(tmp_path / f"out_{form}", picture.rgb / np.iinfo(picture.rgb.dtype).max, like=picture)
    again = read_picture(tmp_path / f"out_{form}")
    assert np.abs(again.rgb.astype(float) - expected).max() <= (8 if form == "in.jpg" else 0)


def test_profile_and_exif_are_kept(tmp_path: Path) -> None:
    profile, exif = b"a colour profile, opaque to us" * 9, Image.Exif()
    exif[0x010F] = "the maker"
    for name in ("in.jpg", "in.png"):
        Image.fromarray(noise(3)).save(tmp_path / name, icc_profile=profile, exif=exif)
        picture = read_picture(tmp_path / name)
        write_picture(tmp_path / f"out_{name}", picture.rgb / 255, like=picture)
        with Image.open(tmp_path / f"out_{name}") as written:
            assert written.info["icc_profile"] == profile
            assert written.getexif()[0x010F] == "the maker"
    for name in ("wide.png", "wide.tif"):
        save(tmp_path / name, noise(3, np.uint16))
        picture = read_picture(tmp_path / name)
        picture = type(picture)(**vars(picture) | {"profile": profile, "exif": exif.tobytes()})
        write_picture(tmp_path / f"out_{name}", picture.rgb / 65535, like=picture)
        assert read_picture(tmp_path / f"out_{name}").profile == profile
        np.testing.assert_array_equal(read_picture(tmp_path / f"out_{name}").rgb, picture.rgb)


def test_palettes_become_colours(tmp_path: Path) -> None:
    image = Image.fromarray(noise(3)).quantize(16)
    image.save(tmp_path / "palette.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png").rgb, expected)
    np.testing.assert_array_equal(read_pixels(tmp_path / "palette.png"), expected)


@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint8), ("a.png", np.uint16), ("a.jpg", np.uint8),
                                             ("a.tif", np.uint8), ("a.tif", np.uint16)])  # fmt: skip
@pytest.mark.parametrize("kept", [0.5, 0.9, "all but 4 bytes", 8])
def test_truncated_is_refused(tmp_path: Path, name: str, dtype: type, kept: float | str) -> None:
    if kept == "all but 4 bytes" and name == "a.jpg":
        pytest.skip("a JPEG that lacks only its end mark shows every pixel")
    whole = save(tmp_path / name, np.kron(noise(3, dtype), np.ones((4, 4, 1), dtype)))
    data = whole.read_bytes()
    length = len(data) - 4 if isinstance(kept, str) else int(kept * len(data)) if kept < 1 else kept
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(data[:length])
    for read in (read_picture, read_pixels, read_rgb):
        with pytest.raises(UserError, match=f"cut{whole.suffix}"):
            read(cut)


def test_damage_inside_a_png_is_refused(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.png", noise(3)).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "b.png").write_bytes(data)
    for read in (read_picture, read_pixels):
        with pytest.raises(UserError, match=r"b\.png.*damaged"):
            read(tmp_path / "b.png")


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image at all, but long enough to be looked at" * 5)
    (tmp_path / "empty.png").touch()
    Image.fromarray(noise(4)).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(noise(3)).save(tmp_path / "two.tif", save_all=True, append_images=[Image.fromarray(noise(3))])
    tifffile.imwrite(tmp_path / "float.tif", noise(1).astype(np.float32))
    for name, message in {
        "text.png": "expected JPEG, PNG or TIFF",
        "empty.png": "the file is empty",
        "missing.png": "does not exist",
        "print.jpg": "CMYK",
        "two.tif": "several images",
        "float.tif": "found float32 values, expected grey or RGB of 8 or 16 bits",
    }.items():
        with pytest.raises(UserError, match=rf"{name}.*{message}"):
            read_picture(tmp_path / name)


def test_jpeg_cannot_hold_alpha_or_16_bits(tmp_path: Path) -> None:
    for name, pixels in {"alpha.png": noise(4), "wide.png": noise(3, np.uint16)}.items():
        picture = read_picture(save(tmp_path / name, pixels))
        with pytest.raises(UserError, match="JPEG cannot hold"):
            write_picture(tmp_path / "out.jpg", picture.rgb / np.iinfo(pixels.dtype).max, like=picture)
    with pytest.raises(UserError, match=r"unknown suffix \.bmp"):
        write_picture(tmp_path / "out.bmp", picture.rgb / 65535, like=picture)
    assert not list(tmp_path.glob("out*"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = read_picture(save(tmp_path / "a.png", noise(3)))
    before = (tmp_path / "a.png").read_bytes()

    def full(self: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_picture(tmp_path / "a.png", picture.rgb / 255, like=picture)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class TestTiff:
    """TIFF files as other programs write them: the stored values are read, or an error names the reason."""

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("channels", [3, 4])
    @pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True},
                                         {"compression": "zlib", "tile": (16, 16)}, {"rowsperstrip": 5}])  # fmt: skip
    def test_pixels_and_planes(self, tmp_path: Path, channels: int, dtype: type, order: str, options: dict) -> None:
        pixels, path = noise(channels, dtype), tmp_path / "a.tif"
        options = options | {"extrasamples": ["unassalpha"] if channels == 4 else None, "byteorder": order}
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        for stored, form in ((pixels, "contig"), (planes, "separate")):
            tifffile.imwrite(path, stored, photometric="rgb", planarconfig=form, **options)
            for picture in (read_picture(path), read_picture(path)):
                np.testing.assert_array_equal(picture.rgb, pixels[..., :3])
            np.testing.assert_array_equal(read_pixels(path), picture.rgb)
            if channels == 4:
                np.testing.assert_array_equal(picture.alpha, pixels[..., 3])
            assert picture_size(path) == (HEIGHT, WIDTH)

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_white_is_zero(self, tmp_path: Path, dtype: type, order: str, compression: str | None) -> None:
        pixels, path = noise(1, dtype), tmp_path / "a.tif"
        tifffile.imwrite(path, pixels, photometric="miniswhite", byteorder=order, compression=compression)
        picture = read_picture(path)
        assert picture.grey
        np.testing.assert_array_equal(picture.rgb[..., 0], np.iinfo(dtype).max - pixels)

    @pytest.mark.parametrize("white", [False, True])
    def test_lzw(self, tmp_path: Path, white: bool) -> None:
        """A compression that is read with OpenCV, which does not correct inverted grey."""
        pixels, path = noise(1, np.uint16), tmp_path / "a.tif"
        Image.fromarray(pixels).save(path, compression="tiff_lzw")
        if white:
            with tifffile.TiffFile(path, mode="r+b") as tiff:
                tiff.pages[0].tags[262].overwrite(0)
        np.testing.assert_array_equal(read_picture(path).rgb[..., 0], 65535 - pixels if white else pixels)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_palette(self, tmp_path: Path, dtype: type) -> None:
        table = np.random.default_rng(1).integers(256, size=(3, np.iinfo(dtype).max + 1), dtype=np.uint16)
        for colours in (table * 257, table):  # 16 bits as in the standard, and 8 bits as old programs wrote them
            tifffile.imwrite(tmp_path / "a.tif", noise(1, dtype), photometric="palette", colormap=colours)
            picture = read_picture(tmp_path / "a.tif")
            scale = 1 if picture.bits == 8 else 257
            np.testing.assert_array_equal(picture.rgb, (table.T * scale)[noise(1, dtype)])

    def test_grey_with_alpha(self, tmp_path: Path) -> None:
        for dtype in (np.uint8, np.uint16):
            pixels, path = noise(2, dtype), tmp_path / "a.tif"
            tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
            picture = read_picture(path)
            assert picture.grey
            np.testing.assert_array_equal(picture.rgb[..., 0], pixels[..., 0])
            np.testing.assert_array_equal(picture.alpha, pixels[..., 1])

    def test_colours_that_alpha_multiplied(self, tmp_path: Path) -> None:
        pixels = noise(4, np.uint16)
        multiplied = pixels.copy()
        multiplied[..., :3] = np.rint(pixels[..., :3] * (pixels[..., 3:] / 65535))
        tifffile.imwrite(tmp_path / "a.tif", multiplied, photometric="rgb", extrasamples=["assocalpha"])
        picture = read_picture(tmp_path / "a.tif")
        opaque = pixels[..., 3] > 6000
        assert np.abs(picture.rgb.astype(int) - pixels[..., :3])[opaque].max() <= 6
        np.testing.assert_array_equal(picture.alpha, pixels[..., 3])

    @pytest.mark.parametrize(
        ("pixels", "options", "message"),
        [
            (noise(3).astype(np.float32), {"photometric": "rgb"}, "float32 values"),
            (noise(1).astype(np.float16), {}, "float16 values"),
            (noise(1).astype(np.int8), {}, "int8 values"),
            (noise(1).astype(np.int16), {}, "int16 values"),
            (noise(1).astype(np.uint32), {}, "32 bits per channel"),
            (noise(5, np.uint16), {"photometric": "rgb", "planarconfig": "contig"}, "5 channels"),
            (noise(4, np.uint16), {"photometric": "separated"}, "colour mode CMYK"),
            (noise(4), {"photometric": "separated"}, "colour mode CMYK"),
            (noise(3), {"photometric": "cielab"}, "colour mode CIELAB"),
            (np.stack([noise(3)] * 2), {"photometric": "rgb"}, "several images"),
        ],
    )
    def test_other_values_are_named(self, tmp_path: Path, pixels: np.ndarray, options: dict, message: str) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels, **({"photometric": "minisblack"} | options))
        for read in (read_picture, read_pixels, picture_size):
            with pytest.raises(UserError, match=rf"a\.tif: found {message}"):
                read(tmp_path / "a.tif")

    def test_twelve_bits_are_not_taken_for_sixteen(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", noise(1, np.uint16))
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags[258].overwrite(12)
        with pytest.raises(UserError, match="12 bits per channel"):
            read_picture(path)

    def test_a_reduced_copy_is_not_a_second_image(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            tiff.write(noise(3), photometric="rgb")
            tiff.write(noise(3)[::2, ::2].copy(), photometric="rgb", subfiletype=1)
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").rgb, noise(3))


def test_exif_after_the_pixels_of_a_png(tmp_path: Path) -> None:
    """Some programs write it there; size, crops and the whole image must all use it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(noise(3)).save(file, format="PNG", exif=exif)
    data = file.getvalue()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    path = tmp_path / "a.png"
    path.write_bytes(data[:start] + data[start + len(chunk) : -12] + chunk + data[-12:])
    expected = np.rot90(noise(3), -1)
    np.testing.assert_array_equal(read_picture(path).rgb, expected)
    np.testing.assert_array_equal(read_pixels(path), expected)
    assert picture_size(path) == expected.shape[:2]


def test_an_image_with_damaged_exif_is_read(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(range(60))):
        Image.fromarray(noise(3)).save(tmp_path / "a.jpg", exif=exif)
        picture = read_picture(tmp_path / "a.jpg")
        write_picture(tmp_path / "b.jpg", picture.rgb / 255, like=picture)
        assert picture_size(tmp_path / "b.jpg") == (HEIGHT, WIDTH)


def test_bytes_after_a_png_are_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(3))
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    np.testing.assert_array_equal(read_pixels(path), noise(3))
    assert picture_size(path) == (HEIGHT, WIDTH)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(noise(3)).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.asarray(image.convert("RGB")))
