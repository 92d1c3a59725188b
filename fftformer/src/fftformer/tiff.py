"""Reading TIFF files in all their forms: 8 or 16 bits, pixels or planes, strips or tiles, palettes, inverted grey.

Pillow opens 16-bit colour as 8 bits and mixes up the bytes of uncompressed planes. OpenCV mixes up planes too, and
leaves inverted grey (white stored as 0) inverted. tifffile decodes all forms, except for compressions that need
another package. Those are decoded with OpenCV if it is known to be right, and are refused otherwise.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from common.errors import UserError
from common.photographs.images import check_extent

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ORIENTATION = 0x0112
_UNSIGNED = (1, 4)  # the sample formats "unsigned" and "undefined"
_ASSOCIATED = 1
_COMPRESSIONS = {1: "raw", 5: "tiff_lzw", 8: "tiff_adobe_deflate", 32773: "packbits"}
_GREY_OR_COLOUR = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE")


@dataclass(frozen=True)
class Stored:
    """The content of a TIFF file, not yet turned upright.

    Attributes:
        pixels: `(H, W, C)` uint8 or uint16, C from 1 to 4; the second or fourth channel is alpha. None if the
            pixels were not read.
        height, width: of the stored image, in pixels.
        orientation: the EXIF orientation, 1 to 8.
        profile: the embedded ICC colour profile, or None.
        compression: by Pillow's name; None for compressions that this project does not write.
    """

    pixels: np.ndarray | None
    height: int
    width: int
    orientation: int
    profile: bytes | None
    compression: str | None


def read_tiff(path: Path, file: IO[bytes], *, pixels: bool = True) -> Stored:
    """Read a TIFF file.

    Args:
        path: of the file, for error messages.
        file: the open file.
        pixels: False reads only the header.

    Raises:
        UserError: the file is damaged, or is not one grey or RGB image of 8 or 16 bits: it has floating-point or
            signed values, several images, more channels, or another colour model.
    """
    try:
        with tifffile.TiffFile(file) as tiff:
            page, *following = list[Any](tiff.pages)
            _check_form(path, page)
            check_extent(page.imagewidth, page.imagelength, tiff.filehandle.size, path)
            # Reduced copies and masks of the same image may follow it.
            others = [other for other in following if not (other.is_reduced or other.is_mask)]
            if others or (tiff.imagej_metadata or {}).get("images", 1) > 1:
                raise UserError(f"{path}: found several images in one file, expected one; split the file")
            orientation = page.tags.valueof(_ORIENTATION, 1)
            profile = page.tags.valueof(34675)
            return Stored(
                pixels=_pixels(path, file, page) if pixels else None,
                height=page.imagelength,
                width=page.imagewidth,
                orientation=orientation if orientation in range(1, 9) else 1,
                profile=profile if isinstance(profile, bytes) else None,
                compression=_COMPRESSIONS.get(int(page.compression)),
            )
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path}: the image does not fit into memory") from None
    except Exception:  # the libraries raise exceptions of many types for damaged files
        raise UserError(f"{path}: the image is truncated or damaged; copy it again") from None


def _check_form(path: Path, page: Any) -> None:
    bits, photometric = page.bitspersample, getattr(page.photometric, "name", str(page.photometric))
    extra = len(page.extrasamples)
    found = ""
    if page.sampleformat not in _UNSIGNED:
        found = f"{page.dtype or 'mixed'} values"
    elif bits not in (1, 2, 4, 8, 16):
        found = f"{bits} bits per channel"
    elif page.imagedepth > 1:
        found = f"a volume of {page.imagedepth} slices"
    elif page.samplesperpixel - extra not in (1, 3, 4) or extra > 1:
        found = f"{page.samplesperpixel} channels"
    elif photometric not in _GREY_OR_COLOUR and (bits == 16 or photometric != "YCBCR"):
        found = f"colour mode {'CMYK' if photometric == 'SEPARATED' else photometric}"
    if found:
        raise UserError(f"{path}: found {found}, expected grey or RGB of 8 or 16 bits; convert the file")


def _pixels(path: Path, file: IO[bytes], page: Any) -> np.ndarray:
    colours = None
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        colours = np.asarray(page.colormap, np.uint16).T
        colours = colours * 257 if colours.max() < 256 else colours  # old programs wrote colours of 8 bits
    if page.bitspersample < 16:
        values = _by_pillow(path, file)
        return values if colours is None else (colours >> 8).astype(np.uint8)[values[..., 0]]
    if _decodable(page):
        values = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and values.ndim == 3:
            values = values.transpose(1, 2, 0)
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        raise UserError(
            f"{path}: found 16-bit planes with compression {page.compression.name}, which cannot be read here; "
            "save the image with deflate or without compression"
        )
    else:
        values = _by_opencv(file)
    values = np.ascontiguousarray(values.astype(np.uint16))
    if colours is not None:
        return colours[values]
    values = values[..., None] if values.ndim == 2 else values
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values[..., :1] = 65535 - values[..., :1]
    if page.extrasamples and int(page.extrasamples[0]) == _ASSOCIATED:
        # The stored colours are multiplied by alpha. Divide by it, because restored images are written without this.
        alpha = values[..., -1:].astype(np.float64)
        single = values[..., :-1] * np.divide(65535.0, alpha, out=np.zeros_like(alpha), where=alpha > 0)
        values[..., :-1] = np.rint(single.clip(0, 65535))
    return values


def _decodable(page: Any) -> bool:
    try:
        return bool(tifffile.TIFF.DECOMPRESSORS[page.compression])
    except KeyError:
        return False


def _by_pillow(path: Path, file: IO[bytes]) -> np.ndarray:
    """Decode an image of up to 8 bits with Pillow, without the orientation, which some versions of Pillow apply."""
    file.seek(0)
    copy = io.BytesIO(file.read())
    with tifffile.TiffFile(copy) as tiff:
        tag = tiff.pages[0].tags.get(_ORIENTATION)  # type: ignore[union-attr]
        if tag is not None:
            tag.overwrite(1)
        data = copy.getvalue()
    image = Image.open(io.BytesIO(data), formats=("TIFF",))
    image.load()
    # An image with a palette keeps its indices.
    pixels = np.asarray(image if image.mode == "P" else plain(path, image))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _by_opencv(file: IO[bytes]) -> np.ndarray:
    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return pixels


def plain(path: Path, image: Image.Image) -> Image.Image:
    """Convert an image with a palette or of 1 bit to grey or RGB, with an alpha channel if it has transparency.

    Raises:
        UserError: the image has another colour model, such as CMYK.
    """
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image.convert(image.mode + "A") if "transparency" in image.info else image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode == "YCbCr":
        return image.convert("RGB")
    raise UserError(f"{path}: found colour mode {image.mode}, expected grey or RGB of 8 or 16 bits; convert the file")
