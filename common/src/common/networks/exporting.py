"""Export of networks to ONNX files."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from packaging.version import Version
from torch import Tensor, nn

from common.files import atomic_path

ONNXSCRIPT = "0.7.1"
"""The earliest version that may be used: 0.7.0 writes an ESSAformer that computes other numbers, without an error."""


def write_onnx(model: nn.Module, example: Tensor, path: str | Path, *, argument: str, input: str, output: str) -> Path:
    """Write a network with one input and one output to an ONNX file, for the example's size and any batch size.

    Args:
        model: its device and mode are left as they are.
        example: an input with a batch of two, so that the exporter does not treat the batch size as a constant.
        path: the `.onnx` file to write.
        argument: name of the input in `forward`.
        input, output: names of input and output in the file.

    Returns:
        the path.

    Raises:
        ImportError: onnxscript is missing or too old.
    """
    found: str | None = None
    with contextlib.suppress(PackageNotFoundError):
        found = version("onnxscript")
    if found is None or Version(found) < Version(ONNXSCRIPT):
        raise ImportError(
            f"writing ONNX files needs onnxscript {ONNXSCRIPT} or later; found {found or 'none'}; "
            f"pip install onnx 'onnxscript>={ONNXSCRIPT}'"
        )
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
