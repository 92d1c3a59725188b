"""Half precision, memory formats, the meta device, and both ONNX exporters on another input of another size."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from essaformer import ESSAttention, create_model


def network() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("essaformer_small", bands=5, dim=16, scale=2, order=2).eval()
    nn.init.normal_(model.conv_last.weight, std=0.1)
    return model


def attention() -> nn.Module:
    torch.manual_seed(0)
    return ESSAttention(12, order=2).eval()


CASES = {"network": (network, (2, 5, 11, 9)), "attention": (attention, (3, 77, 12))}


def apart(one: Tensor, other: Tensor) -> float:
    other = other.double()
    return ((one.double() - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=str)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_half_precision_is_near_double(case: str, dtype: torch.dtype, tolerance: float) -> None:
    build, shape = CASES[case]
    module, x = build().to(dtype), torch.rand(shape).to(dtype)
    exact = copy.deepcopy(module).double()(x.double())
    forms = [x, x.contiguous(memory_format=torch.channels_last)] if x.ndim == 4 else [x]
    for form in forms:
        output = module(form)
        assert output.dtype == dtype and apart(output, exact) < tolerance


def test_many_tokens_do_not_overflow_half_precision() -> None:
    module, x = attention().half(), (30 * torch.randn(1, 60_000, 12)).half()
    with torch.no_grad():
        output = module(x)
        assert apart(output, copy.deepcopy(module).double()(x.double())) < 0.01


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_built_on_the_meta_device_and_loaded_it_is_the_same(case: str) -> None:
    build, shape = CASES[case]
    module, x = build(), torch.rand(shape)
    with torch.device("meta"):
        empty = build().to_empty(device="cpu")
    empty.load_state_dict(module.state_dict())
    assert torch.equal(empty(x), module(x))


@pytest.mark.parametrize(("case", "dynamo"), [("attention", True), ("attention", False), ("network", False)])
def test_onnx_runtime_agrees_on_another_input_of_another_size(case: str, dynamo: bool, tmp_path: Path) -> None:
    """Exporting the network with the newer exporter takes 15 seconds: tests/test_model.py tests one size."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    build, shape = CASES[case]
    module, free = build(), {3: [0, 1], 4: [0, 2, 3]}[len(shape)]
    example = torch.rand([size + 2 if axis in free else size for axis, size in enumerate(shape)])
    options = {"dynamic_shapes": (dict.fromkeys(free, torch.export.Dim.DYNAMIC),)}
    if not dynamo:
        options = {"dynamic_axes": {"x": {axis: f"axis{axis}" for axis in free}}, "opset_version": 18}
    path = tmp_path / "module.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), path, dynamo=dynamo, input_names=["x"], verbose=False, **options)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for seed, size in enumerate([shape, tuple(example.shape)]):
        x = torch.rand(size, generator=torch.Generator().manual_seed(seed))
        (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            assert apart(torch.from_numpy(output), module(x)) < 1e-5
