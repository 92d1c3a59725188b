"""Writing a restored image in the form of its input: format, bit depth, grey, alpha channel, colour profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from common.errors import UserError
from common.files import atomic_path
from fftformer import png
from fftformer.images import FORMATS, Picture


def write_picture(path: str | Path, rgb: np.ndarray, like: Picture) -> None:
    """Write a restored image in the form of `like`: bit depth, grey, alpha channel, colour profile; atomically.

    The suffix of `path` chooses the format, so a restored JPEG can be written to a lossless file. JPEG is written at
    quality 95 without chroma subsampling. A 16-bit TIFF keeps no EXIF data.

    Args:
        path: the file to write, `.png`, `.jpg`, `.jpeg`, `.tif` or `.tiff`.
        rgb: `(H, W, 3)` floating point; it is clipped to [0, 1] and rounded here.
        like: the image that was restored, of the same size.

    Raises:
        UserError: the suffix is unknown, or a JPEG would have to hold 16 bits or an alpha channel.
        ValueError: the sizes differ.
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
        # The EXIF tags of a TIFF include its own layout (strips, sizes), which must not be copied.
        options["exif"] = like.exif
    if like.profile:
        options["icc_profile"] = like.profile
    Image.fromarray(pixels).save(path, format=form, **options)
