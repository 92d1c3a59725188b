"""PNG files, as far as neither Pillow nor OpenCV supports them: EXIF data after the pixels, metadata with 16 bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO

import cv2
import numpy as np

START = b"\x89PNG\r\n\x1a\n"


def read_exif(file: IO[bytes]) -> bytes:
    """Read all chunks of a PNG without decoding the image; return the EXIF data, or b"" without any.

    Raises:
        ValueError: the file ends before the end of its last chunk.
    """
    exif = b""
    for name, position, length in _chunks(file):
        if name == b"eXIf":
            file.seek(position)
            exif = file.read(length)
    return exif


def encode(pixels: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode a 16-bit PNG.

    Args:
        pixels: `(H, W)` or `(H, W, C)` uint16, C from 1 to 4.
        profile: an ICC colour profile, or None.
        exif: EXIF data, or None.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        # OpenCV cannot write grey with alpha, so grey is written as three equal channels.
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    done, encoded = cv2.imencode(".png", pixels)
    assert done, "OpenCV encodes every 16-bit array of 1, 3 or 4 channels"
    data = encoded.tobytes()
    extra = b""
    if profile:
        extra += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))
    if exif:
        extra += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    after_header = len(START) + 25
    return data[:after_header] + extra + data[after_header:]


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name of every chunk up to IEND, and position and length of its content."""
    size = file.seek(0, 2)
    position, name = len(START), b""
    while name != b"IEND":
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if position + 12 + length > size:
            raise ValueError("the last chunk is truncated")
        yield name, position + 8, length
        position += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
