"""ONNX files of the network, with routing as plain top-k and gathers."""

from __future__ import annotations

from pathlib import Path

import torch

from biformer.model import BiFormer
from common.files import atomic_path


def export_onnx(model: BiFormer, path: str | Path, *, height: int = 224, width: int = 224) -> Path:
    """Write the network for pictures of one size.

    One file serves one size and any batch. Input `pictures` is `(batch, channels, height, width)`
    float32, normalised as in training; output `logits` is `(batch, classes)`.

    Args:
        model: in evaluation mode; its device is left as it is.
        path: the `.onnx` file to write.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Returns:
        the path.

    Raises:
        ValueError: the model is in training mode, or the pictures are smaller than its region grid.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before exporting")
    path = Path(path)
    example = next(model.parameters()).new_zeros(2, model.in_chans, height, width)
    with torch.inference_mode():
        model(example)  # refuses a size that does not fit, in words
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1)}},
        verbose=False,
    )
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
    return path
