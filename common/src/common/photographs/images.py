"""List and read photographs of any origin.

Every project uses these functions, so an image that one script accepts is accepted by all of them, with the same
pixels.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from common.files import printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")
"""File name endings that `list_images` accepts, in upper or lower case."""

# Named, because Pillow would also start Ghostscript for an EPS file that is called photo.jpg.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_EXPECTED = "JPEG, PNG, TIFF, WebP, BMP, GIF or PPM"
_PLAIN = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_FEW_PIXELS = 16_000_000
_PIXELS_PER_BYTE = 5000  # an empty white sheet takes a byte for 340 pixels as PNG and for about 100 as JPEG
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_images(
    folder: str | Path, *, outside: str | Path | None = None, suffixes: Collection[str] = SUFFIXES
) -> list[Path]:
    """List the images of a folder at any depth, sorted.

    Hidden files and folders (`._a.png` from macOS, `.ipynb_checkpoints`, thumbnails) are left out. Links to files and
    folders are followed. A folder that can be reached in several ways, or that contains itself through a link, is
    listed once, if possible under its own name. A broken link is listed, so that reading it gives an error.

    Args:
        folder: where to look.
        outside: a file, or a folder with all its content, to leave out, for example the script's own output.
        suffixes: file name endings, in lower case with the dot.

    Returns:
        The paths, each beginning with `folder`; empty if there is no image.

    Raises:
        UserError: `folder` or a folder in it is missing, is not a folder or cannot be read.
    """
    excluded = None if outside is None else os.path.realpath(outside)
    endings = {suffix.lower() for suffix in suffixes}
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # Links are followed after all real folders, so that a folder is listed under its own name.
    folders, links = [Path(folder)], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        try:
            status = current.stat()
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{printable(current)}: cannot be listed ({error.strerror}); correct the folder") from None
        if (status.st_dev, status.st_ino) in seen or os.path.realpath(current) == excluded:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = current / entry.name
            link = entry.is_symlink()
            # For a link to itself os.path.isdir returns False, whereas entry.is_dir raises an error.
            if os.path.isdir(path) if link else entry.is_dir():
                (links if link else folders).append(path)
            elif path.suffix.lower() in endings and (link or entry.is_file()):
                found.append(path)
    return sorted(path for path in found if excluded is None or os.path.realpath(path) != excluded)


def refuse_shared(training: Iterable[Path], validation: Sequence[Path]) -> None:
    """Refuse images that are in both splits, because of links or because both splits are one folder.

    Only files of equal names are compared, which is fast for large data sets.

    Raises:
        UserError: an image is in both splits.
    """
    names = {path.name for path in validation}
    known = {os.path.realpath(path): path for path in training if path.name in names and path.is_file()}
    both = [path for path in validation if os.path.realpath(path) in known] if known else []
    if both:
        raise UserError(
            f"{printable(both[0])}: is the training image {printable(known[os.path.realpath(both[0])])} too, as are "
            f"{len(both) - 1} others, so scores would say nothing; give both splits images of their own"
        )


def read_rgb(source: str | Path | IO[bytes], *, name: str | Path | None = None, upright: bool = True) -> Image.Image:
    """Read a photograph as 8-bit RGB, upright.

    - EXIF orientation is applied, so that the image is upright as the camera shows it.
    - 16 or 12 bits per channel are reduced to the 8 highest bits.
    - Grey, black-and-white, palette and CMYK become RGB.
    - Alpha is dropped and the stored colours are kept, as torchvision and timm do.
    - Of an animation or a file with several pages, the first image is read, with a warning.

    Args:
        source: a file's name, or an open binary file, for example a member of an archive.
        name: name of an open file in error messages.
        upright: False leaves the pixels as they are stored, for protocols that ignore EXIF.

    Returns:
        A loaded image of mode "RGB".

    Raises:
        UserError: the file is missing, empty, truncated or damaged, or its values cannot be turned into
            8-bit colours without a decision of the user (floating point, signed, Lab).
    """
    shown = printable(name if name is not None else source if isinstance(source, (str, Path)) else "image")
    data = _bytes(source, shown)
    Image.MAX_IMAGE_PIXELS = None  # large images are expected here
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UserError(f"{shown}: found no image that can be read, expected {_EXPECTED}") from None
    except Exception:  # on a damaged file Pillow's parsers raise errors of any type
        raise _damaged(shown) from None
    check_extent(image.width, image.height, len(data), shown)
    try:
        frames = getattr(image, "n_frames", 1)
        image.load()
    except MemoryError:
        raise UserError(f"{shown}: {image.width}x{image.height} pixels do not fit into memory") from None
    except Exception:
        raise _damaged(shown) from None
    # Phones write JPEGs with a second, hidden image (MPO); the first is the photograph.
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        warnings.warn(f"{shown}: holds {frames} images, the first is read", stacklevel=2)
    turn = _TURNS.get(orientation(image)) if upright else None
    rgb = _eight_bit(image, shown)
    return rgb if turn is None else rgb.transpose(turn)


def check_extent(width: int, height: int, size: int, shown: str | Path) -> None:
    """Refuse a file of `size` bytes whose header gives far more pixels than it can hold.

    No format compresses a photograph that much; decoding such a damaged file would fill the memory before it fails.

    Raises:
        UserError: the file is damaged.
    """
    if width * height > max(_FEW_PIXELS, _PIXELS_PER_BYTE * size):
        raise UserError(f"{shown}: {size} bytes cannot hold {width}x{height} pixels; it is damaged, copy it again")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if 1 <= int(value) <= 8 else 1
    except Exception:  # an image with damaged EXIF data can still be read
        return 1


def _bytes(source: str | Path | IO[bytes], shown: str) -> bytes:
    try:
        data = Path(source).read_bytes() if isinstance(source, (str, Path)) else source.read()
    except FileNotFoundError:
        raise UserError(f"{shown}: the image does not exist") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror or error})") from None
    if not data:
        raise UserError(f"{shown}: the file is empty; copy it again")
    return data


def _eight_bit(image: Image.Image, shown: str) -> Image.Image:
    """Turn any mode into RGB of 8 bits."""
    bits, white_is_zero = (8, False) if image.format != "TIFF" else _tiff_form(image, shown)
    # Pillow's 32-bit mode holds 16 bits for a PNG of older versions and for a PGM.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64) >> (bits - 8 if 8 < bits < 16 else 8)
        grey = values.clip(0, 255).astype(np.uint8)
        return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")
    if image.mode not in _PLAIN:
        raise UserError(f"{shown}: found colour mode {image.mode}, expected 8 or 16 bits of grey or RGB; convert it")
    if image.mode in ("P", "PA", "RGBa", "La"):
        # Through RGBA, because palettes may have transparent colours and RGBa has premultiplied ones.
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy an RGB image


def _tiff_form(image: Image.Image, shown: str) -> tuple[int, bool]:
    """Return bits per channel and whether 0 is white; refuse files that Pillow would decode to wrong values."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(258, (1,)))
    if any(form not in (1, 4) for form in tags.get(339, (1,))) or bits > 16:
        raise UserError(f"{shown}: found {bits}-bit signed or floating-point values, expected 8 or 16 bits; convert it")
    if bits == 16 and tags.get(284) == 2 and tags.get(277, 1) > 1 and tags.get(259, 1) == 1:
        raise UserError(
            f"{shown}: found 16-bit colours stored plane by plane without compression, which this reader does not "
            "take; save it as PNG or as TIFF of interleaved pixels"
        )
    colours = tags.get(320, (65535,))
    if image.mode == "P" and max(colours) < 256:
        # Old programs stored 8-bit colours in the 16-bit colour table, of which Pillow uses the high byte.
        image.putpalette(np.array(colours, np.uint8).reshape(3, -1).T.tobytes())
    # Pillow itself inverts the forms up to 8 bits.
    return bits, tags.get(262) == 0


def _damaged(shown: str) -> UserError:
    return UserError(f"{shown}: the image is truncated or damaged; copy it again")
