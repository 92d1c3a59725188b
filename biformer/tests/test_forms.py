"""Attentions and network in other precisions and memory formats, compiled, exported, and on the meta device."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from biformer import BiFormer, BiLevelRoutingAttention, FullAttention


def seeded(module: nn.Module) -> nn.Module:
    """Weights and statistics that all have an effect on the output."""
    torch.manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            nn.init.uniform_(value, 0.8, 1.2)
        elif value.is_floating_point():
            nn.init.normal_(value, std=0.1 if value.ndim == 1 else value[0].numel() ** -0.5)
    return module.eval()


def network() -> nn.Module:
    keywords = {"depths": (1, 1, 1, 1), "dims": (32, 64, 128, 256), "num_regions": 2, "num_classes": 5}
    return seeded(BiFormer(**keywords))


# A function that builds the module, and the shape of its input without the batch.
FORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "copied regions": (lambda: seeded(BiLevelRoutingAttention(16, 2, 3, 2)), (13, 10, 16)),
    "masked regions": (lambda: seeded(BiLevelRoutingAttention(16, 2, 3, 4)), (6, 6, 16)),
    "soft routing": (lambda: seeded(BiLevelRoutingAttention(16, 2, 3, 2, soft_routing=True)), (9, 9, 16)),
    "full attention": (lambda: seeded(FullAttention(16, 2)), (5, 7, 16)),
    "network": (network, (3, 64, 80)),
}
every_form = pytest.mark.parametrize("form", FORMS)


def inputs(form: str, seed: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, *FORMS[form][1], generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, share: float) -> None:
    """Compare with a tolerance that is a share of the largest expected value."""
    difference = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert difference <= share, f"{difference:.3g}"


@every_form
@pytest.mark.parametrize(("dtype", "share"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision(form: str, dtype: torch.dtype, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with float64 with the same rounded weights and routes; rounding could change the selected regions."""
    module, x = FORMS[form][0]().to(dtype), inputs(form, seed=1).to(dtype).requires_grad_()
    chosen, noted = BiLevelRoutingAttention.routes, []

    def note(attention: BiLevelRoutingAttention, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        noted.append(chosen(attention, q, k))
        return noted[-1]

    def repeat(attention: BiLevelRoutingAttention, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        routes, affinity = noted.pop(0)
        return routes, affinity.to(q.dtype)

    monkeypatch.setattr(BiLevelRoutingAttention, "routes", note)
    expected = copy.deepcopy(module).double()(x.detach().double())
    monkeypatch.setattr(BiLevelRoutingAttention, "routes", repeat)
    found = module(x)
    assert found.dtype == dtype and not noted
    found.float().square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    close(found, expected, share)


@every_form
def test_channels_last(form: str) -> None:
    module, x = FORMS[form][0](), inputs(form, seed=1)
    with torch.no_grad():
        expected = module(x)
        found = module.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    close(found, expected, 1e-5)


@every_form
def test_it_compiles_whole_and_trains(form: str) -> None:
    gradients = []
    for make in (lambda module: module, lambda module: torch.compile(module, fullgraph=True, backend="aot_eager")):
        module = FORMS[form][0]().train()
        make(module)(inputs(form, seed=1)).square().mean().backward()
        gradients.append([p.grad for p in module.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item() + 1e-7)


@every_form
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_gives_the_same_on_another_input(form: str, dynamo: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript")
    module = FORMS[form][0]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (inputs(form, seed=1),), tmp_path / "x.onnx", dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    other = inputs(form, seed=2)
    (found,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    with torch.no_grad():
        close(torch.from_numpy(np.asarray(found)), module(other), 1e-4)


@every_form
def test_built_on_the_meta_device_and_loaded(form: str) -> None:
    module, x = FORMS[form][0](), inputs(form, seed=1)
    with torch.device("meta"):
        empty = FORMS[form][0]()
    empty.to_empty(device="cpu").load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(empty(x), module(x))
