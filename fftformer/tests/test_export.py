"""ONNX Runtime computes the same for another input and another batch size than the traced ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fftformer import DFFN, FSAS, FFTformer
from fftformer.export import export_onnx
from fftformer.fast import strips


@pytest.mark.parametrize(("height", "width", "batch"), [(20, 45, 3)])
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


@pytest.mark.parametrize(
    ("part", "dynamo"),
    [
        ("fsas", False),
        ("fsas", True),
        ("dffn", False),
        ("dffn", True),
        ("network", False),
    ],  # the network with dynamo is tested above
)
def test_both_exporters_on_a_second_input(part: str, dynamo: bool, tmp_path: Path) -> None:
    """The maps are so large that the modules would work in strips, which cannot be exported."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    module, shape = {
        "fsas": (FSAS(8), (1, 8, 224, 224)),
        "dffn": (DFFN(8), (1, 8, 224, 224)),
        "network": (FFTformer(8, (1, 1, 1), 1), (1, 3, 40, 70)),
    }[part]
    with torch.no_grad():
        assert part == "network" or strips.worthwhile(torch.rand(shape).permute(0, 2, 3, 1), 48)
    path = tmp_path / "part.onnx"
    torch.onnx.export(module.eval(), (torch.rand(shape),), path, dynamo=dynamo, input_names=["x"], verbose=False)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    (ours,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(torch.from_numpy(ours), expected, rtol=0, atol=2e-6 * expected.abs().max().item())


def test_sizes_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        export_onnx(FFTformer(8, (1, 1, 1), 1), tmp_path / "deblur.onnx", height=0, width=8)
    assert not list(tmp_path.iterdir())
