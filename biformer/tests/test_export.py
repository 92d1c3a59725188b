"""ONNX Runtime computes the same as each variant, for another batch size than the traced one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from biformer import BiFormer, create_model, list_models
from biformer.export import export_onnx


def lively(model: BiFormer) -> BiFormer:
    """Weights of unit gain and random statistics, so that every operator has an effect on the logits."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


@pytest.mark.parametrize("name", list_models())
def test_onnx_runtime_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    # With fewer blocks, because tracing takes time for each block, and the variants also differ in widths and layout.
    model = lively(create_model(name, depths=(1, 1, 1, 1), num_classes=10))
    height, width = (224, 224) if name == "biformer_tiny" else (64, 90)
    path = export_onnx(model, tmp_path / "biformer.onnx", height=height, width=width)
    x = torch.randn(3, 3, height, width)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pictures": x.numpy()})
    with torch.no_grad():
        expected = model(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_wrong_exports_are_refused(tmp_path: Path) -> None:
    model = BiFormer(depths=(1, 1, 1, 1), dims=(32, 64, 128, 256), num_classes=2)
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(model, tmp_path / "biformer.onnx")
    with pytest.raises(ValueError, match="smaller than the grid"):
        export_onnx(model.eval(), tmp_path / "biformer.onnx", height=20, width=64)
    assert not list(tmp_path.iterdir())
