"""The ONNX file against ONNX Runtime, on two sizes and another batch than the one traced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fftformer import FFTformer
from fftformer.export import export_onnx


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 32, 1), (20, 45, 3)])
def test_onnx_runtime_computes_the_same(height: int, width: int, batch: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    model = FFTformer(dim=8, num_blocks=(1, 1, 1), num_refinement_blocks=1).eval()
    torch.nn.init.normal_(model.encoder_level1[0].ffn.fft, mean=1.0, std=0.3)
    path = export_onnx(model, tmp_path / "deblur.onnx", height=height, width=width)
    x = torch.rand(batch, 3, height, width)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (restored,) = session.run(["restored"], {"blurred": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(restored), model(x), rtol=0, atol=1e-5)


def test_sizes_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        export_onnx(FFTformer(8, (1, 1, 1), 1), tmp_path / "deblur.onnx", height=0, width=8)
    assert not list(tmp_path.iterdir())
