"""Export to ONNX; routing becomes top-k and gather operators."""

from __future__ import annotations

from pathlib import Path

import torch

from biformer.model import BiFormer
from common.networks.exporting import write_onnx


def export_onnx(model: BiFormer, path: str | Path, *, height: int = 224, width: int = 224) -> Path:
    """Write the network for images of one size.

    The file accepts one size and any batch size. Input `pictures` is `(batch, channels, height, width)` float32,
    normalised as in training; output `logits` is `(batch, classes)`.

    Args:
        model: in evaluation mode; its device is not changed.
        path: the `.onnx` file to write.
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        the path.

    Raises:
        ValueError: the model is in training mode, or the images are smaller than its region grid.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before exporting")
    example = next(model.parameters()).new_zeros(2, model.in_chans, height, width)
    with torch.inference_mode():
        model(example)  # raises a clear error if the size is too small
    return write_onnx(model, example, path, argument="x", input="pictures", output="logits")
