"""Photographs: which files of a folder are images, and what the pixels of each kind of file are."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from common.errors import UserError
from common.photographs.images import list_images, printable, read_rgb

RANDOM = np.random.default_rng(0)
EIGHT = RANDOM.integers(256, size=(20, 30, 3), dtype=np.uint8)
SIXTEEN = RANDOM.integers(65536, size=(20, 30, 3), dtype=np.uint16)


def png(pixels: np.ndarray, depth: int, kind: int) -> bytes:
    """A PNG of any bit depth, from the format's definition: no library here writes 16 bits with alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else "u1")
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def pixels_of(data: bytes) -> np.ndarray:
    image = read_rgb(io.BytesIO(data), name="a")
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


class TestList:
    def test_hidden_files_and_folders_are_no_pictures(self, tmp_path: Path) -> None:
        names = ["a.png", "B.JPG", "deep/er/c.tiff", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "deep/.d/e.png"]
        for name in [*names, "notes.txt", "png", "f.webp"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
        assert found == ["B.JPG", "a.png", "deep/er/c.tiff", "f.webp"]
        assert [path.name for path in list_images(tmp_path, suffixes=(".webp",))] == ["f.webp"]

    def test_a_hidden_folder_that_is_named_is_listed(self, tmp_path: Path) -> None:
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache/a.png").touch()
        assert list_images(tmp_path / ".cache") == [tmp_path / ".cache/a.png"]

    def test_links_are_followed_once(self, tmp_path: Path) -> None:
        folder, other = tmp_path / "in", tmp_path / "elsewhere"
        for path in (folder / "real/a.png", other / "deep/b.png"):
            path.parent.mkdir(parents=True)
            path.touch()
        (folder / "linked").symlink_to(other)
        (folder / "again").symlink_to(folder / "real")  # sorts before "real", yet the real name wins
        (other / "back").symlink_to(folder)  # a cycle
        (folder / "c.png").symlink_to(other / "deep/b.png")
        (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
        found = [path.relative_to(folder).as_posix() for path in list_images(folder)]
        assert found == ["c.png", "gone.png", "linked/deep/b.png", "real/a.png"]
        (folder / "self.png").symlink_to(folder / "self.png")
        assert len(list_images(folder, outside=tmp_path / "out")) == 5
        with pytest.raises(UserError, match=r"gone\.png: the image does not exist"):
            read_rgb(folder / "gone.png")

    def test_the_own_output_is_left_out(self, tmp_path: Path) -> None:
        for name in ("a.png", "out/a.png", "outside/b.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "link").symlink_to(tmp_path / "out")
        for outside in (tmp_path / "out", str(tmp_path / "link")):
            assert list_images(tmp_path, outside=outside) == [tmp_path / "a.png", tmp_path / "outside/b.png"]
        assert tmp_path / "a.png" not in list_images(tmp_path, outside=tmp_path / "a.png")

    def test_what_cannot_be_listed_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        for path in (tmp_path / "none", tmp_path / "a.png"):
            with pytest.raises(UserError, match=f"{path.name}: cannot be listed"):
                list_images(path)

    def test_names_that_are_no_utf_8(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        (tmp_path / name).touch()
        assert [path.name for path in list_images(tmp_path)] == [name]
        assert printable(name) == "caf\\xe9.png"
        with pytest.raises(UserError) as caught:
            read_rgb(tmp_path / name)
        str(caught.value).encode("utf-8")


class TestPixels:
    @pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
    def test_png_of_8_and_16_bits_agree(self, kind: int, channels: int) -> None:
        pixels = RANDOM.integers(256, size=(20, 30, channels), dtype=np.uint8)
        expected = pixels[..., :3] if channels > 2 else grey_rgb(pixels[..., 0])
        np.testing.assert_array_equal(pixels_of(png(pixels, 8, kind)), expected)
        # Both ways in which 8 bits are widened: repeated, and shifted.
        for factor in (257, 256):
            np.testing.assert_array_equal(pixels_of(png(pixels.astype(np.uint16) * factor, 16, kind)), expected)

    def test_16_bits_are_scaled(self) -> None:
        ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
        for data in (png(ramp[..., None], 16, 0), tiff(ramp), tiff(ramp, byteorder=">"), tiff(ramp, compression="zlib"),
                     b"P5 32 32 65535\n" + ramp.astype(">u2").tobytes()):  # fmt: skip
            assert np.abs(pixels_of(data)[..., 0] - ramp / 257).max() <= 1

    @pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN], ids=["8", "16"])
    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"},
                                         {"compression": "zlib", "predictor": True}])  # fmt: skip
    def test_tiff_colours(self, pixels: np.ndarray, order: str, options: dict) -> None:
        expected = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        data = tiff(pixels, photometric="rgb", byteorder=order, **options)
        np.testing.assert_array_equal(pixels_of(data), expected)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        data = tiff(planes, photometric="rgb", planarconfig="separate", byteorder=order, **options)
        if pixels.dtype == np.uint16 and "compression" not in options:
            with pytest.raises(UserError, match="plane by plane"):
                pixels_of(data)
        else:
            np.testing.assert_array_equal(pixels_of(data), expected)

    def test_tiff_of_inverted_grey(self) -> None:
        np.testing.assert_array_equal(
            pixels_of(tiff(EIGHT[..., 0], photometric="miniswhite")), grey_rgb(255 - EIGHT[..., 0])
        )
        expected = grey_rgb((65535 - SIXTEEN[..., 0]) >> 8)
        np.testing.assert_array_equal(pixels_of(tiff(SIXTEEN[..., 0], photometric="miniswhite")), expected)

    def test_black_and_white(self) -> None:
        mask = EIGHT[..., 0] > 127
        expected = grey_rgb(mask * np.uint8(255))
        np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(mask), "PNG")), expected)
        np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(mask), "TIFF")), expected)

    @pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "BMP"])
    def test_palettes(self, form: str) -> None:
        image = Image.fromarray(EIGHT).quantize(16)
        np.testing.assert_array_equal(pixels_of(saved(image, form)), np.asarray(image.convert("RGB")))

    def test_palette_of_an_old_tiff(self) -> None:
        table = RANDOM.integers(256, size=(3, 256), dtype=np.uint16)
        for colours in (table * 257, table):  # 16 bits as the standard says, and 8 as old writers did
            data = tiff(EIGHT[..., 0], photometric="palette", colormap=colours)
            np.testing.assert_array_equal(pixels_of(data), table.T[EIGHT[..., 0]])

    def test_colours_under_alpha_are_kept(self, recwarn: pytest.WarningsRecorder) -> None:
        palette = Image.fromarray(EIGHT).quantize(16)
        expected = np.asarray(palette.convert("RGB"))
        for transparency in (3, bytes(range(0, 160, 10))):  # one colour; a table
            np.testing.assert_array_equal(pixels_of(saved(palette, "PNG", transparency=transparency)), expected)
        alpha = Image.fromarray(np.dstack([EIGHT, EIGHT[..., 0]]))
        for form in ("PNG", "TIFF"):
            np.testing.assert_array_equal(pixels_of(saved(alpha, form)), EIGHT)
        np.testing.assert_array_equal(pixels_of(saved(alpha, "WEBP", lossless=True, exact=True)), EIGHT)
        assert not recwarn.list

    def test_cmyk(self) -> None:
        smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None] * np.array([1, 1, 1], np.uint8)
        for form in ("JPEG", "TIFF"):
            data = saved(Image.fromarray(smooth).convert("CMYK"), form, **({"quality": 98} if form == "JPEG" else {}))
            assert np.abs(pixels_of(data).astype(int) - smooth).max() <= 4

    @pytest.mark.parametrize("turn", range(1, 9))
    @pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "wide"])
    def test_upright(self, form: str, turn: int) -> None:
        image, exif = Image.fromarray(EIGHT), Image.Exif()
        exif[0x0112] = image.getexif()[0x0112] = turn
        expected = np.asarray(ImageOps.exif_transpose(image))
        if form == "wide":
            data = tiff(EIGHT[..., 0] * np.uint16(257), extratags=[(274, "H", 1, turn, True)])
            expected = grey_rgb(expected[..., 0])
        else:
            data = saved(Image.fromarray(EIGHT), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
        np.testing.assert_array_equal(pixels_of(data), expected)

    def test_damaged_exif_does_not_cost_the_picture(self) -> None:
        for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(range(60))):
            assert pixels_of(saved(Image.fromarray(EIGHT), "JPEG", exif=exif)).shape == EIGHT.shape

    @pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
    def test_of_several_pictures_the_first_is_read_and_that_is_said(self, form: str) -> None:
        first, second = (Image.fromarray(grey_rgb(np.full((8, 9), value, np.uint8))) for value in (40, 200))
        options = {"lossless": True} if form == "WEBP" else {}
        data = saved(first, form, save_all=True, append_images=[second], **options)
        with pytest.warns(UserWarning, match="a: holds 2 images, the first is read"):
            assert (pixels_of(data) == 40).all()


class TestRefusals:
    @pytest.mark.parametrize("kept", [0, 0.3, 0.9])
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
    def test_what_is_cut_off(self, tmp_path: Path, form: str, kept: float) -> None:
        data = saved(Image.fromarray(np.kron(EIGHT, np.ones((4, 4, 1), np.uint8))), form)
        (tmp_path / "cut.jpg").write_bytes(data[: int(kept * len(data))])
        with pytest.raises(UserError, match=r"cut\.jpg: (the file is empty|the image is truncated|found no image)"):
            read_rgb(tmp_path / "cut.jpg")

    def test_every_damaged_byte_is_a_sentence_or_a_picture(self) -> None:
        """The reader raises only UserError, whichever byte of a small file is wrong."""
        small = Image.fromarray(EIGHT[:6, :5])
        for data in (saved(small, "PNG"), saved(small, "TIFF"), saved(small, "GIF"), saved(small, "BMP")):
            for position in range(0, len(data), 3):
                broken = bytearray(data)
                broken[position] ^= 0x5A
                with contextlib.suppress(UserError):
                    assert pixels_of(bytes(broken)).ndim == 3

    def test_a_header_that_promises_too_much(self) -> None:
        """Decoding would fill the memory before the missing data is noticed."""
        data = bytearray(saved(Image.fromarray(EIGHT), "PNG"))
        data[16:24] = struct.pack(">II", 60_000, 60_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        with pytest.raises(UserError, match=r"a: \d+ bytes cannot hold 60000x60000 pixels"):
            pixels_of(bytes(data))

    def test_values_without_a_range(self) -> None:
        floats = RANDOM.random((8, 9), dtype=np.float32)
        for pixels in (floats, (floats * 1000).astype(np.int16), (floats * 100).astype(np.int8), floats.astype("u4")):
            with pytest.raises(UserError, match="a: found"):
                pixels_of(tiff(pixels))

    def test_paths(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"none\.png: the image does not exist"):
            read_rgb(tmp_path / "none.png")
        with pytest.raises(UserError, match="cannot be read"):
            read_rgb(tmp_path)
        (tmp_path / "text.png").write_text("no image" * 50)
        with pytest.raises(UserError, match=r"text\.png: found no image that can be read, expected JPEG, PNG"):
            read_rgb(tmp_path / "text.png")
        # An EPS file would start Ghostscript.
        (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
        with pytest.raises(UserError, match="found no image"):
            read_rgb(tmp_path / "a.jpg")
