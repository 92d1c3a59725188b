"""Reading images with all that is needed to write a restored image in the same form (`writing`).

Two libraries are used because neither reads everything. Pillow reads JPEG and all 8-bit forms, and notices a
truncated JPEG, which OpenCV fills with grey. OpenCV reads 16 bits per colour, which Pillow silently cuts to 8, and
decodes an 8-bit PNG in less than half of Pillow's time. `tiff` and `png` read what neither library reads.
An image that cannot be decoded to its end is refused with an error that names it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from common.photographs.images import check_extent
from fftformer import png, tiff

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """One image file, turned upright, with what is needed to write a restored image in the same form.

    Attributes:
        rgb: `(H, W, 3)` uint8 or uint16; a grey image has three equal channels.
        alpha: `(H, W)` of the same type, or None.
        grey: whether the file has only one colour channel.
        format: "PNG", "JPEG" or "TIFF".
        profile: the embedded ICC colour profile, or None.
        exif: EXIF data without the orientation, because `rgb` is upright already; or None.
        compression: of a TIFF, by Pillow's name; None for other formats and compressions.
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
    """Convert uint8 or uint16 pixels to float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an image as `(H, W, 3)` float32 in [0, 1], upright, without its alpha channel.

    Raises:
        UserError: the file is missing, truncated or not a still JPEG, PNG or TIFF.
    """
    return to_float(np.asarray(read_pixels(path)))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read the colours of an image as fast as possible: `(H, W, 3)` uint8 or uint16, upright.

    A `.npy` file of the crop cache is mapped into memory, so that only the requested part is read.

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
    """Read the height and width of an image, turned upright, without decoding it.

    Raises:
        UserError: as `read_rgb`; truncated PNGs are found, truncated JPEGs and TIFFs only when they are decoded.
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
        # The orientations 5 to 8 exchange height and width.
        return (width, height) if orientation >= 5 else (height, width)


def read_picture(path: str | Path) -> Picture:
    """Read an image and the form in which it is stored.

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
    # Phones write JPEGs with a second, hidden image (format MPO); the first one is the photograph.
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
        except Exception:  # Pillow raises exceptions of many types for damaged files
            raise _damaged(path) from None
        pixels = np.asarray(tiff.plain(path, image))
    profile = image.info.get("icc_profile")
    return _picture(_upright(pixels, orientation), form, profile=profile, exif=_without_orientation(exif))


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
    """Open a JPEG or PNG without decoding it; the EXIF data is empty if it is missing or damaged."""
    # Large images are expected here. Without this line Pillow refuses more than 180 megapixels.
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
    except Exception:  # Pillow raises exceptions of many types for damaged files
        raise _damaged(path) from None
    check_extent(image.width, image.height, file.seek(0, io.SEEK_END), path)
    file.seek(0)
    try:
        # The method of Pillow's PNG class would decode the whole image, to look for EXIF data after the pixels.
        return image, Image.Image.getexif(image)
    except Exception:  # an image with damaged EXIF data is still read
        return image, Image.Exif()


def _orientation(exif: Image.Exif) -> int:
    try:
        value = int(exif.get(_ORIENTATION, 1))
    except (TypeError, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1


def _without_orientation(exif: Image.Exif) -> bytes | None:
    """EXIF data without the orientation tag; None if nothing else is in it or it cannot be written again."""
    exif.pop(_ORIENTATION, None)
    try:
        # Empty data would add an empty segment to the written file.
        return exif.tobytes() if len(exif) else None
    except Exception:  # some tags have types that the EXIF standard forbids
        return None


def _decode(path: Path, data: bytes, flags: int) -> np.ndarray:
    """Decode a PNG with OpenCV, without the EXIF orientation, which OpenCV applies in some cases only."""
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
