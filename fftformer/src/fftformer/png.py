"""What neither Pillow nor OpenCV does with PNG: EXIF data wherever it stands, 16 bits with profile and EXIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO

import cv2
import numpy as np

START = b"\x89PNG\r\n\x1a\n"


def read_exif(file: IO[bytes]) -> bytes:
    """Walk through the chunks of a PNG to its end without decoding, and return its EXIF data, or b"".

    Raises:
        ValueError: the file ends before its end chunk does.
    """
    exif = b""
    for name, position, length in _chunks(file):
        if name == b"eXIf":
            file.seek(position)
            exif = file.read(length)
    return exif


def encode(pixels: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode `(H, W)` or `(H, W, C)` uint16 pixels, C from 1 to 4, with a colour profile and EXIF data."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        # OpenCV has no grey with alpha: grey is written as three equal channels.
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
    """Name, position and length of every chunk's content, to the end chunk."""
    size = file.seek(0, 2)
    position, name = len(START), b""
    while name != b"IEND":
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if position + 12 + length > size:
            raise ValueError("the last chunk is cut off")
        yield name, position + 8, length
        position += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
