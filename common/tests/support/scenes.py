"""Small scenes in files of every format."""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(0)
CUBE = RNG.integers(0, 9000, (6, 7, 5)).astype(np.uint16)
CODES = np.zeros((6, 7), np.uint8)
CODES[1, 1:4], CODES[4, 2:6] = 10, 3
UTM = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32615)
HOLE = np.zeros((6, 7), dtype=bool)
HOLE[:, 0], HOLE[2, 3] = True, True


def envi(folder, interleave, byte_order=0, offset=0, extra=""):
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    values = CUBE.transpose(axes).astype(">u2" if byte_order else "<u2")
    (folder / "scene.img").write_bytes(b"x" * offset + values.tobytes())
    (folder / "scene.hdr").write_text(
        f"ENVI\ndescription = {{made\n for = tests}}\nsamples = 7\nlines = 6\nbands = 5\nheader offset = {offset}\n"
        f"data type = 12\ninterleave = {interleave}\nbyte order = {byte_order}\n{extra}"
    )
    return folder / "scene.hdr"
