"""Smooth a scene on disk, window by window: toy_stream.py INPUT OUTPUT KILL NUMBER EXISTING [--cog].

It kills itself after KILL windows, with -1 never; NUMBER represents a flag that changes the result.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy import ndimage

from common.errors import command
from common.files import make_room
from common.hyperspectral.layers import Layer
from common.hyperspectral.streaming import Stream, halo

REACH = 3


@command
def main() -> None:
    """Write the means of 7 × 7 pixels, and a mask of twice the size: first band's mean above the scene's median."""
    output, left = Path(sys.argv[2]), int(sys.argv[3])
    if not make_room(output, sys.argv[5], windows=True):
        return
    flags = SimpleNamespace(no_data=None, memory="4G", device="cpu", existing=sys.argv[5], cog="--cog" in sys.argv)
    torch.manual_seed(0)
    stream = Stream(sys.argv[1], output, torch.nn.Linear(2, 2), flags)
    if not stream.begin(windows=32, number=int(sys.argv[4])):
        return
    source = stream.source
    mean = stream.once("mean", lambda: source.percentiles([50])[0])

    def compute(scene, box, inner):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        smooth = ndimage.uniform_filter(scene.cube.astype(np.float64), (7, 7, 1), mode="nearest")[inner]
        large = (smooth[..., :1] > mean).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        return [large, np.rint(smooth).astype(source.dtype)]

    layers = [
        Layer(output.with_name(f"large_{output.name}"), 1, np.dtype(np.uint8), 255, scale=2, names=("bright",)),
        Layer(output, source.bands, source.dtype, source.output_no_data),
    ]
    stream.run(layers, compute, halo(REACH), 32)


if __name__ == "__main__":
    main()
