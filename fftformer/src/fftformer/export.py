"""ONNX files of the network, with the patch transforms as constant matrix products."""

from __future__ import annotations

from pathlib import Path

import torch

from common.networks.exporting import write_onnx
from fftformer.model import FFTformer


def export_onnx(model: FFTformer, path: str | Path, *, height: int, width: int) -> Path:
    """Write the network for images of one size.

    One file serves one size and any batch: ONNX has no operator for the reflection that fits a
    image to multiples of 32, so it is computed here. Input `blurred` and output `restored` are
    `(batch, 3, height, width)` in float32, values as the network's.

    Args:
        model: its device and mode are left as they are.
        path: the `.onnx` file to write.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        the path.

    Raises:
        ValueError: a size that is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    device = next(model.parameters()).device
    example = torch.zeros(2, 3, height, width, device=device)
    return write_onnx(model, example, path, argument="picture", input="blurred", output="restored")
