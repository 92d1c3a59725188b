"""Export of the network to ONNX."""

from __future__ import annotations

from pathlib import Path

import torch

from common.networks.exporting import write_onnx
from essaformer.model import ESSAformer


def export_onnx(model: ESSAformer, path: str | Path, *, height: int, width: int) -> Path:
    """Write the network for images of one size.

    A file accepts one image size and any batch size, because the number of tokens is a constant of the attention. The
    input is `low` `(batch, bands, height, width)`, the output `enlarged`, both float32.

    Args:
        model: in evaluation mode; it is not changed.
        path: the `.onnx` file to write.
        height, width: of the low-resolution images, in pixels.

    Returns:
        the path.

    Raises:
        ValueError: a size is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    example = torch.zeros(2, model.bands, height, width, device=next(model.parameters()).device)
    return write_onnx(model, example, path, argument="picture", input="low", output="enlarged")
