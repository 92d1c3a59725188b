"""ONNX files of the network, with the patch transforms as constant matrix products."""

from __future__ import annotations

from pathlib import Path

import torch

from common.files import atomic_path
from fftformer.model import FFTformer


def export_onnx(model: FFTformer, path: str | Path, *, height: int, width: int) -> Path:
    """Write the network for pictures of one size.

    One file serves one size and any batch: ONNX has no operator for the reflection that fits a
    picture to multiples of 32, so it is computed here. Input `blurred` and output `restored` are
    `(batch, 3, height, width)` in float32, values as the network's.

    Args:
        model: its device and mode are left as they are.
        path: the `.onnx` file to write.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Returns:
        the path.

    Raises:
        ValueError: a size that is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    path = Path(path)
    device = next(model.parameters()).device
    example = torch.zeros(2, 3, height, width, device=device)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["blurred"],
        output_names=["restored"],
        dynamic_shapes={"picture": {0: torch.export.Dim("batch", min=1)}},
        verbose=False,
    )
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
    return path
