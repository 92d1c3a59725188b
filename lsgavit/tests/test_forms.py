"""Attention and network in other forms: precisions, memory formats, compiled, exported, built without memory."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lsgavit import LSGAttention, SpectralSpatialTokenizer, create_model

SMALL = {"image_size": (4, 6), "bands": 6, "num_classes": 4, "embed_dim": 24, "depths": (1, 1), "num_heads": (3, 3)}


def inputs(shape: tuple[int, ...], seed: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def attention(**switches: object) -> nn.Module:
    torch.manual_seed(0)
    # Released initial values are too small for the bias and the mixing to show.
    module = LSGAttention(24, 3, (4, 6), sigma=2.0, **switches)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def network(**switches: object) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(**SMALL | switches).train()
    for _ in range(3):  # batch norms that have seen data
        model(inputs((6, 4, 6), seed=0) + 1)
    return model.eval()


def tokenizer() -> nn.Module:
    torch.manual_seed(0)
    return SpectralSpatialTokenizer(6, 24).eval()


FORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (attention, (24, 24)),
    "spatial attention": (lambda: attention(position_bias="spatial"), (24, 24)),
    "plain attention": (lambda: attention(light=False, token_mixing=False, position_bias="none"), (24, 24)),
    "network": (network, (6, 4, 6)),
    "tokenizer": (tokenizer, (6, 4, 6)),
}
every_form = pytest.mark.parametrize("form", FORMS)


def close(found: Tensor, expected: Tensor, share: float) -> None:
    """Within a share of the largest expected value."""
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= share * expected.abs().max().item(), f"{difference / expected.abs().max().item():.3g}"


@every_form
@pytest.mark.parametrize(("dtype", "share"), [(torch.float16, 0.005), (torch.bfloat16, 0.04)])
def test_half_precision(form: str, dtype: torch.dtype, share: float) -> None:
    make, shape = FORMS[form]
    module = make().to(dtype)
    x = inputs(shape, seed=1).to(dtype)
    found = module(x.requires_grad_())
    assert found.dtype == dtype
    found.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    close(found, module.double()(x.double()), share)


@every_form
def test_autocast(form: str) -> None:
    make, shape = FORMS[form]
    module, x = make(), inputs(shape, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = module(x)
    lowered.float().sum().backward()
    close(lowered, module(x), 0.04)


@pytest.mark.parametrize("form", ["network", "tokenizer"])
def test_channels_last(form: str) -> None:
    make, shape = FORMS[form]
    module, x = make(), inputs(shape, seed=1)
    expected = module.double()(x.double())
    moved = make().to(memory_format=torch.channels_last)
    assert {name: value.shape for name, value in moved.state_dict().items()} == {
        name: value.shape for name, value in module.state_dict().items()
    }
    close(moved(x.to(memory_format=torch.channels_last)), expected, 1e-5)
    close(moved(x), expected, 1e-5)
    moved.train()(x.to(memory_format=torch.channels_last)).sum().backward()


@pytest.mark.parametrize("form", ["attention", "network"])
def test_compiled_without_breaks_it_trains(form: str) -> None:
    make, shape = FORMS[form]
    steps = []
    for compiled in (False, True):
        module = make()
        forward = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for seed in (1, 2):
            optimizer.zero_grad()
            forward(inputs(shape, seed)).square().mean().backward()
            optimizer.step()
        steps.append(module.state_dict())
    for name, value in steps[0].items():
        torch.testing.assert_close(steps[1][name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("form", "dynamo", "frozen"),
    [(form, False, frozen) for form in FORMS for frozen in (False, True)]
    + [("attention", True, False), ("network", True, True)],
)
@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_agrees_on_another_input(form: str, dynamo: bool, frozen: bool) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    make, shape = FORMS[form]
    module = make().requires_grad_(not frozen)
    file, names = io.BytesIO(), {"input_names": ["x"], "output_names": ["y"]}
    example = inputs(shape, seed=1)
    if dynamo:
        batch = {"dynamic_shapes": {"x": {0: torch.export.Dim("batch", min=1)}}}
        torch.onnx.export(module, (example,), dynamo=True, verbose=False, **names, **batch).save(file)
    else:
        batch = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
        torch.onnx.export(module, (example,), file, dynamo=False, **names, **batch)
    session = runtime.InferenceSession(file.getvalue())
    assert [value.name for value in session.get_inputs()] == ["x"]
    for seed, count in ((2, 3), (3, 5), (4, 1)):
        other = inputs(shape, seed, count)
        (found,) = session.run(None, {"x": other.numpy()})
        close(torch.from_numpy(found), module(other), 1e-5)


@every_form
@pytest.mark.parametrize("assign", [False, True], ids=["to_empty", "assign"])
def test_built_without_memory(form: str, assign: bool) -> None:
    make, shape = FORMS[form]
    module, x = make(), inputs(shape, seed=1)
    with torch.device("meta"):
        empty = make_empty(module)
    assert {value.device.type for value in empty.parameters()} == {"meta"}
    if not assign:
        empty = empty.to_empty(device="cpu")
        for value in (*empty.parameters(), *empty.buffers()):
            if not any(value is constant for constant in constants(empty)):
                value.data.fill_(7)
    empty.load_state_dict(module.state_dict(), assign=assign)
    assert torch.equal(empty.eval()(x), module(x))


def make_empty(like: nn.Module) -> nn.Module:
    """A module of the same configuration, built inside whatever device is the default."""
    if isinstance(like, LSGAttention):
        switches = {"token_mixing": like.mix_tokens is not None, "light": like.light}
        return LSGAttention(24, 3, (4, 6), sigma=2.0, position_bias=like.position_bias, **switches)
    return SpectralSpatialTokenizer(6, 24) if isinstance(like, SpectralSpatialTokenizer) else create_model(**SMALL)


def constants(module: nn.Module) -> list[Tensor]:
    return [part.bias for part in module.modules() if isinstance(part, LSGAttention) and part.bias is not None]


@every_form
def test_copies(form: str) -> None:
    make, shape = FORMS[form]
    module, x = make(), inputs(shape, seed=1)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), make().double().float()):
        assert torch.equal(other(x), module(x))


def test_the_bias_is_exact_in_every_precision() -> None:
    module = attention(position_bias="spatial")
    exact = copy.deepcopy(module).double().bias
    assert torch.equal(module.half().double().bias, exact)
    assert torch.equal(module.float().bias, exact.float())
    assert "bias" not in module.state_dict()


def test_an_empty_batch() -> None:
    assert network()(torch.zeros(0, 6, 4, 6)).shape == (0, 4)
    assert attention()(torch.zeros(0, 24, 24)).shape == (0, 24, 24)
