"""Reading and writing images, keeping their format, bit depth, alpha channel and colour profile.

Two readers, because neither library does everything: Pillow reads JPEG and every 8-bit form and
notices a truncated JPEG, which OpenCV completes with grey; OpenCV reads 16 bits per colour, which
Pillow silently cuts to 8, and decodes an 8-bit PNG in less than half of Pillow's time.
No image is ever half decoded: what cannot be read to its end is refused by name.
`tiff` and `png` hold what neither of them does.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from common.files import atomic_path
from common.photographs.images import check_extent
from fftformer import png, tiff

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """One image file, upright, with what is needed to write a restored one in the same form.

    Attributes:
        rgb: `(H, W, 3)` uint8 or uint16; a grey image has three equal channels.
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
    """Read an image as `(H, W, 3)` float32 in [0, 1], upright, without its alpha channel.

    Raises:
        UserError: the file is missing, truncated or not a still JPEG, PNG or TIFF.
    """
    return to_float(np.asarray(read_pixels(path)))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read an image's colours as stored, `(H, W, 3)` uint8 or uint16, by the fastest way.

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
    if not data.startswith(png.START):
        return read_picture(path).rgb
    _, exif = _header(path, io.BytesIO(data))
    pixels = _decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return _upright(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), _orientation(exif))


def picture_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) from the header, upright; a PNG that was cut off is noticed here already.

    Raises:
        UserError: as `read_rgb`.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return read_pixels(path).shape[:2]
    with _file(path) as file:
        start = file.read(8)
        file.seek(0)
        if not start:
            raise _empty(path)
        if start.startswith(tiff.MAGIC):
            stored = tiff.read_tiff(path, file, pixels=False)
            height, width, orientation = stored.height, stored.width, stored.orientation
        else:
            image, exif = _header(path, file)
            (width, height), orientation = image.size, _orientation(exif)
        # The orientations 5 to 8 turn an image by a quarter.
        return (width, height) if orientation >= 5 else (height, width)


def read_picture(path: str | Path) -> Picture:
    """Read an image with its form.

    Raises:
        UserError: as `read_rgb`; also for several images in one file, CMYK and floating point.
    """
    path = Path(path)
    data = _read(path)
    if data.startswith(tiff.MAGIC):
        stored = tiff.read_tiff(path, io.BytesIO(data))
        assert stored.pixels is not None
        pixels = _upright(stored.pixels, stored.orientation)
        return _picture(pixels, "TIFF", profile=stored.profile, compression=stored.compression)
    image, exif = _header(path, io.BytesIO(data))
    form, orientation = image.format or "", _orientation(exif)
    # Phones write JPEGs with a second, hidden image (MPO); the first is the photograph.
    if form == "MPO":
        form = "JPEG"
    elif getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path}: found several images in one file, expected one; split the file")
    if form == "PNG" and data[24] == 16:
        pixels = _decode(path, data, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    else:
        try:
            image.load()
        except MemoryError:
            raise UserError(f"{path}: {image.width}x{image.height} pixels do not fit into memory") from None
        except Exception:  # Pillow's parsers raise whatever they meet in a damaged file
            raise _damaged(path) from None
        pixels = np.asarray(tiff.plain(path, image))
    profile = image.info.get("icc_profile")
    return _picture(_upright(pixels, orientation), form, profile=profile, exif=_without_orientation(exif))


def write_picture(path: str | Path, rgb: np.ndarray, like: Picture) -> None:
    """Write restored colours in the form of `like`: bit depth, grey, alpha, profile; atomically.

    The format follows the suffix of `path`, so a JPEG may be restored into a lossless file.
    JPEG is written at quality 95 without chroma subsampling; a 16-bit TIFF keeps no EXIF data.

    Args:
        rgb: `(H, W, 3)` floating, clipped to [0, 1] and rounded here.
        like: the image that was restored, of the same size.

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
            temporary.write_bytes(png.encode(pixels, like.profile, like.exif))
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


def _picture(
    pixels: np.ndarray, form: str, *, profile: bytes | None, exif: bytes | None = None, compression: str | None = None
) -> Picture:
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = pixels.shape[2]
    colours = pixels[..., : channels - 1 if channels in (2, 4) else channels]
    return Picture(
        rgb=np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))),
        alpha=np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None,
        grey=colours.shape[2] == 1,
        format=form,
        profile=profile,
        exif=exif,
        compression=compression,
    )


def _read(path: Path) -> bytes:
    with _file(path) as file:
        data = file.read()
    if not data:
        raise _empty(path)
    return data


def _file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: the image does not exist") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _header(path: Path, file: IO[bytes]) -> tuple[Image.Image, Image.Exif]:
    """Open a JPEG or PNG without decoding it; its EXIF data is empty where there is none or it is damaged."""
    # Large images are expected here; without this line Pillow refuses more than 180 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(file, formats=("PNG", "JPEG"))
        if image.format == "PNG":
            position = file.tell()
            exif = png.read_exif(file)
            file.seek(position)
            if exif:
                image.info["exif"] = exif
    except UnidentifiedImageError:
        raise UserError(f"{path}: found no image that can be read, expected JPEG, PNG or TIFF") from None
    except Exception:  # Pillow's parsers raise whatever they meet in a damaged file
        raise _damaged(path) from None
    check_extent(image.width, image.height, file.seek(0, io.SEEK_END), path)
    file.seek(0)
    try:
        # Pillow's own method for a PNG decodes the whole image, to look for EXIF data behind it.
        return image, Image.Image.getexif(image)
    except Exception:  # damaged EXIF data must not cost the image
        return image, Image.Exif()


def _orientation(exif: Image.Exif) -> int:
    try:
        value = int(exif.get(_ORIENTATION, 1))
    except (TypeError, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1


def _without_orientation(exif: Image.Exif) -> bytes | None:
    """EXIF data for an image that stands upright; None if it holds nothing else or cannot be written again."""
    exif.pop(_ORIENTATION, None)
    try:
        # Only data that holds something: an empty block would add a segment to the written file.
        return exif.tobytes() if len(exif) else None
    except Exception:  # tags of a type that their own standard forbids
        return None


def _decode(path: Path, data: bytes, flags: int) -> np.ndarray:
    """Decode a PNG by OpenCV, as stored: it would apply some forms of EXIF orientation by itself."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _damaged(path)
    return pixels


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
    return UserError(f"{path}: the image is truncated or damaged; copy it again")


def _empty(path: Path) -> UserError:
    return UserError(f"{path}: the file is empty; copy it again")
