"""Reading and writing pictures without losing their form.

Two readers, because neither library does everything: Pillow reads JPEG and every 8-bit form and
notices a truncated JPEG, which OpenCV completes with grey; OpenCV reads 16 bits per colour, which
Pillow silently cuts to 8, and decodes an 8-bit PNG in less than half of Pillow's time.
No picture is ever half decoded: what cannot be read to its end is refused by name.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from common.files import atomic_path

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_ORIENTATION = 0x0112
_TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")


@dataclass(frozen=True)
class Picture:
    """One picture file, upright, with what is needed to write a restored one in the same form.

    Attributes:
        rgb: `(H, W, 3)` uint8 or uint16; a grey picture has three equal channels.
        alpha: `(H, W)` of the same type, or None.
        grey: whether the file holds one colour channel.
        format: "PNG", "JPEG" or "TIFF".
        profile: the embedded ICC colour profile.
        exif: EXIF data, its orientation tag reset because `rgb` is upright already.
        compression: of a TIFF, in Pillow's names.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    format: str
    profile: bytes | None
    exif: bytes | None
    compression: str | None

    @property
    def bits(self) -> int:
        """Bits per channel, 8 or 16."""
        return self.rgb.dtype.itemsize * 8


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 or uint16 pixels as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def read_rgb(path: str | Path) -> np.ndarray:
    """Read a picture as `(H, W, 3)` float32 in [0, 1], upright, without its alpha channel.

    Raises:
        UserError: the file is missing, truncated or not a still JPEG, PNG or TIFF.
    """
    return to_float(np.asarray(read_pixels(path)))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read a picture's colours as stored, `(H, W, 3)` uint8 or uint16, by the fastest way.

    A `.npy` of the crop cache is mapped into memory instead: only what is sliced is read.

    Raises:
        UserError: as `read_rgb`.
    """
    path = Path(path)
    if path.suffix == ".npy":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be mapped as an array ({error}); run prepare.py again") from None
    data = _read(path)
    if not data.startswith(_PNG_START):
        return read_picture(path).rgb
    pixels = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise _damaged(path)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) from the header, upright; a PNG that was cut off is noticed here already.

    Raises:
        UserError: as `read_rgb`.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return read_pixels(path).shape[:2]
    with _file(path) as file:
        image = _header(path, file)
        if image.format == "PNG":
            file.seek(-len(_PNG_END), io.SEEK_END)
            if file.read() != _PNG_END:
                raise _damaged(path)
        width, height = image.size
        if image.format == "TIFF":  # whose `size` is turned already in some versions of Pillow
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        # The orientations 5 to 8 turn a picture by a quarter.
        return (width, height) if _exif(image).get(_ORIENTATION, 1) >= 5 else (height, width)


def read_picture(path: str | Path) -> Picture:
    """Read a picture with its form.

    Raises:
        UserError: as `read_rgb`; also for several pictures in one file, CMYK and floating point.
    """
    path = Path(path)
    data = _read(path)
    image = _header(path, io.BytesIO(data))
    form, exif = image.format or "", _exif(image)
    orientation = exif.get(_ORIENTATION, 1)
    if form == "TIFF" and orientation != 1:
        # Some versions of both libraries turn a TIFF themselves: they get it without the tag.
        data = _without_orientation(data)
        image = _header(path, io.BytesIO(data))
        exif = _exif(image)
    exif.pop(_ORIENTATION, None)
    # Phones write JPEGs with a second, hidden picture (MPO); the first is the photograph.
    if form == "MPO":
        form = "JPEG"
    elif getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path}: found several pictures in one file, expected one; split the file")
    profile, compression = image.info.get("icc_profile"), image.info.get("compression")
    if _bits(image, data) == 16:
        pixels = _decode(data, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise _damaged(path)
        pixels = _upright(pixels, orientation)
        if pixels.ndim == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    else:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, zlib.error, struct.error):
            raise _damaged(path) from None
        pixels = _upright(np.asarray(_plain(path, image)), orientation)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: found {pixels.dtype} values, expected 8 or 16 bits per channel; convert the file")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = pixels.shape[2]
    colours = pixels[..., : channels - 1 if channels in (2, 4) else channels]
    return Picture(
        rgb=np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))),
        alpha=np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None,
        grey=colours.shape[2] == 1,
        format=form,
        profile=profile,
        # Only data that holds something: an empty block would add a segment to the written file.
        exif=exif.tobytes() if len(exif) else None,
        compression=compression if compression in _TIFF_COMPRESSIONS else None,
    )


def write_picture(path: str | Path, rgb: np.ndarray, like: Picture) -> None:
    """Write restored colours in the form of `like`: bit depth, grey, alpha, profile; atomically.

    The format follows the suffix of `path`, so a JPEG may be restored into a lossless file.
    JPEG is written at quality 95 without chroma subsampling; a 16-bit TIFF keeps no EXIF data.

    Args:
        rgb: `(H, W, 3)` floating, clipped to [0, 1] and rounded here.
        like: the picture that was restored, of the same size.

    Raises:
        UserError: the suffix is unknown, or JPEG is asked for 16 bits or an alpha channel.
    """
    path = Path(path)
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UserError(f"{path}: unknown suffix {path.suffix or '(none)'}; use one of {', '.join(FORMATS)}")
    if form == "JPEG" and (like.bits == 16 or like.alpha is not None):
        found = "16 bits per channel" if like.bits == 16 else "an alpha channel"
        raise UserError(f"{path}: JPEG cannot hold {found} as the input does; write .png or .tif instead")
    if rgb.shape != like.rgb.shape:
        raise ValueError(f"expected {like.rgb.shape}, got {rgb.shape}")
    pixels = rgb.mean(axis=2, keepdims=True) if like.grey else rgb
    pixels = np.rint(pixels.clip(0, 1) * np.float32(np.iinfo(like.rgb.dtype).max)).astype(like.rgb.dtype)
    if like.alpha is not None:
        pixels = np.dstack([pixels, like.alpha])
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    with atomic_path(path) as temporary:
        if like.bits == 8:
            _write_8_bit(temporary, pixels, form, like)
        elif form == "PNG":
            temporary.write_bytes(_encode_16_bit_png(pixels, like))
        else:
            grey = pixels.ndim == 2 or pixels.shape[2] == 2
            tifffile.imwrite(
                temporary,
                pixels,
                photometric="minisblack" if grey else "rgb",
                planarconfig="contig" if pixels.ndim == 3 else None,
                extrasamples=None if like.alpha is None else ["unassalpha"],
                compression=None if like.compression == "raw" else "zlib",
                predictor=like.compression != "raw",
                iccprofile=like.profile,
                metadata=None,
            )


def _write_8_bit(path: Path, pixels: np.ndarray, form: str, like: Picture) -> None:
    options: dict[str, object] = {}
    if form == "JPEG":
        options = {"quality": 95, "subsampling": 0}
    elif form == "TIFF":
        options = {"compression": like.compression or "tiff_adobe_deflate"}
    if like.exif and not (form == "TIFF" or like.format == "TIFF"):
        # A TIFF's EXIF tags include its own layout (strips, sizes), which must not travel.
        options["exif"] = like.exif
    if like.profile:
        options["icc_profile"] = like.profile
    Image.fromarray(pixels).save(path, format=form, **options)


def _encode_16_bit_png(pixels: np.ndarray, like: Picture) -> bytes:
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        # OpenCV has no grey with alpha: grey is written as three equal channels.
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    done, encoded = cv2.imencode(".png", pixels)
    assert done, "OpenCV encodes every 16-bit array of 1, 3 or 4 channels"
    data = encoded.tobytes()
    extra = b""
    if like.profile:
        extra += _png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(like.profile))
    if like.exif and like.format != "TIFF":
        extra += _png_chunk(b"eXIf", like.exif.removeprefix(b"Exif\0\0"))
    after_header = len(_PNG_START) + 25
    return data[:after_header] + extra + data[after_header:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _read(path: Path) -> bytes:
    with _file(path) as file:
        data = file.read()
    if data.startswith(_PNG_START) and not data.endswith(_PNG_END):
        raise _damaged(path)
    return data


def _file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: the picture does not exist") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _header(path: Path, file: IO[bytes]) -> Image.Image:
    # Big pictures are wanted here, they are no attack; without this Pillow stops at 180 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(file, formats=("PNG", "JPEG", "TIFF"))
    except UnidentifiedImageError:
        raise UserError(f"{path}: found no picture that can be read, expected JPEG, PNG or TIFF") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        raise _damaged(path) from None
    return image


def _exif(image: Image.Image) -> Image.Exif:
    # For a PNG, Pillow's own method decodes the whole picture, to look for EXIF data behind it too.
    if image.format != "PNG":
        return image.getexif()
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif


def _without_orientation(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with tifffile.TiffFile(file) as tiff:
        tiff.pages[0].tags[_ORIENTATION].overwrite(1)  # type: ignore[union-attr]
        return file.getvalue()


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel as the file says, because Pillow opens 16-bit colour as if it had 8."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    return 8


def _plain(path: Path, image: Image.Image) -> Image.Image:
    """Turn palettes and black-and-white into plain grey or colour, with alpha where there is any."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image.convert(image.mode + "A") if "transparency" in image.info else image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    raise UserError(f"{path}: found colour mode {image.mode}, expected grey or RGB of 8 or 16 bits; convert the file")


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation tag, 1 to 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: the picture is truncated or damaged; copy it again")
