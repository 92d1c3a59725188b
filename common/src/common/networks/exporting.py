"""ONNX files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from common.files import atomic_path


def write_onnx(model: nn.Module, example: Tensor, path: str | Path, *, argument: str, input: str, output: str) -> Path:
    """Write a network of one input and one output for the example's size and any batch.

    Args:
        model: its device and mode are left as they are.
        example: an input; a batch of two, so that the batch is not taken for a constant.
        path: the `.onnx` file to write.
        argument: what `forward` calls its input.
        input, output: their names in the file.

    Returns:
        the path.
    """
    path = Path(path)
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[input],
            output_names=[output],
            dynamic_shapes={argument: {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
    return path
