"""Export to ONNX; the transforms of patches become products with constant matrices."""

from __future__ import annotations

from pathlib import Path

import torch

from common.networks.exporting import write_onnx
from fftformer.model import FFTformer


def export_onnx(model: FFTformer, path: str | Path, *, height: int, width: int) -> Path:
    """Write the network for images of one size.

    The file accepts one size and any batch size: ONNX has no operator for the padding by reflection to multiples of
    32, so its indices are computed here. Input `blurred` and output `restored` are `(batch, 3, height, width)` in
    float32, with the values of the network.

    Args:
        model: its device and mode are not changed.
        path: the `.onnx` file to write.
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        the path.

    Raises:
        ValueError: a size is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    device = next(model.parameters()).device
    example = torch.zeros(2, 3, height, width, device=device)
    return write_onnx(model, example, path, argument="image", input="blurred", output="restored")
