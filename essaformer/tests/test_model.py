"""The attention against the N × N kernel, the network against its literal form, and the errors of both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from essaformer import ESSAformer, ESSAttention, create_model, imresize, list_models, literal
from essaformer.published import PARAMETERS
from support.kept import kept_for_backward

SMALL = {"bands": 5, "dim": 16, "scale": 2}


def gradients(module: torch.nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    output = run(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    (output * weights).sum().backward()
    return [output.detach(), x.grad, *(parameter.grad.clone() for parameter in module.parameters())]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("form", [literal.kernel_attention, literal.attention])
def test_attention_equals_the_kernel_form(order: int, form: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    module, x = ESSAttention(12, order).double(), torch.randn(2, 31, 12).double()
    for ours, expected in zip(
        gradients(module, module, x), gradients(module, lambda x: form(module, x), x), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_second_order_adds_to_the_first() -> None:
    torch.manual_seed(0)
    first, second, x = ESSAttention(8), ESSAttention(8, order=2), torch.randn(1, 9, 8)
    second.load_state_dict(first.state_dict())
    assert (first(x) - second(x)).abs().max() > 1e-3


def test_backward_is_the_derivative() -> None:
    torch.manual_seed(0)
    module = ESSAttention(4).double()
    assert torch.autograd.gradcheck(module, torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True))


def test_the_second_derivative_is_right_too() -> None:
    torch.manual_seed(0)
    module = ESSAttention(3).double()
    assert torch.autograd.gradgradcheck(module, torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True))


def test_compiled_in_one_graph_it_learns_the_same() -> None:
    torch.manual_seed(0)
    model = create_model("essaformer_small", **SMALL).double().train()
    torch.nn.init.normal_(model.conv_last.weight, std=0.1)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    x = torch.randn(1, 5, 4, 6).double()
    for ours, expected in zip(gradients(model, compiled, x), gradients(model, model, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_a_constant_spectrum_attends_to_nothing() -> None:
    """Equal queries everywhere: centred they are zero, and the attention's part of the output with them."""
    module = ESSAttention(6)
    with torch.no_grad():
        module.qkv.weight[:6] = 0
        module.qkv.bias[:6] = 2.5
    x = torch.randn(1, 7, 6, requires_grad=True)
    output = module(x)
    v = module.qkv(x)[..., 12:]
    torch.testing.assert_close(output, module.out(v))
    output.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_network_equals_its_literal_form_in_training(scale: int, dropout: float) -> None:
    torch.manual_seed(0)
    dim = 18 if scale == 3 else 16
    model = ESSAformer(5, dim, scale, dropout=dropout).double().train()
    x = torch.randn(2, 5, 4, 6).double()
    results = []
    for run in (model, lambda x: literal.essaformer(model, x)):
        torch.manual_seed(1)
        results.append(gradients(model, run, x))
    assert results[0][0].shape == (2, 5, 4 * scale, 6 * scale)
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-10)


def test_training_keeps_little_more_than_half_of_what_the_literal_form_keeps() -> None:
    model = create_model("essaformer", bands=16, dim=32).train()
    x = torch.rand(2, 16, 16, 16)
    assert kept_for_backward(model, model, x) < 0.55 * kept_for_backward(
        lambda x: literal.essaformer(model, x), model, x
    )


def test_gradient_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    model = ESSAformer(**SMALL).double().train()
    x, results = torch.randn(2, 5, 6, 4).double(), []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(1)
        results.append(gradients(model, model, x))
    for kept, computed_again in zip(*results, strict=True):
        torch.testing.assert_close(computed_again, kept, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("setting", PARAMETERS)
def test_parameter_counts_are_the_published_ones(setting: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = create_model("essaformer", bands=setting[0], scale=setting[1])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[setting]


def test_global_residual_starts_at_bicubic_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = create_model("essaformer_small", **SMALL)
    x = torch.rand(2, 5, 8, 6)
    torch.testing.assert_close(model(x), imresize(x, 2.0))
    torch.nn.init.normal_(model.conv_last.weight)  # at zero nothing below it receives a gradient
    model(x).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_a_batch_of_two_equals_two_batches_of_one() -> None:
    torch.manual_seed(0)
    model = ESSAformer(**SMALL).eval()
    x = torch.rand(2, 5, 7, 9)
    with torch.no_grad():
        apart = torch.cat([model(x[:1]), model(x[1:])])
        torch.testing.assert_close(model(x), apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = ESSAformer(**SMALL).train(), torch.rand(1, 5, 16, 16)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        output = model(x)
    output.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_saved_and_loaded_again(tmp_path) -> None:
    model = create_model("essaformer_small", **SMALL)
    torch.nn.init.normal_(model.conv_last.weight)
    model.save_pretrained(tmp_path)
    again, x = ESSAformer.from_pretrained(tmp_path), torch.rand(1, 5, 6, 6)
    assert again.global_residual and again.scale == 2
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "one of 2, 3, 4, 8"),
        ({"dim": 18, "scale": 4}, "multiple of 4 for scale 4"),
        ({"dim": 16, "scale": 3}, "multiple of 9 for scale 3"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"order": 3}, "order 0, 1 or 2"),
        ({"width": 64}, "has no width; its keywords are bands"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("essaformer", **arguments)


def test_wrong_names_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="essaformer, essaformer_small"):
        create_model("essaformer_huge")
    assert list_models()[0] == "essaformer"
    with pytest.raises(ValueError, match=r"batch, 5, height, width"):
        ESSAformer(**SMALL)(torch.rand(1, 6, 8, 8))
    with pytest.raises(ValueError, match=r"batch, tokens, 8"):
        ESSAttention(8)(torch.rand(1, 5, 7))


def test_onnx_runtime_computes_the_same(tmp_path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from essaformer.export import export_onnx

    torch.manual_seed(0)
    model = create_model("essaformer_small", **SMALL).eval()
    torch.nn.init.normal_(model.conv_last.weight, std=0.1)
    path = export_onnx(model, tmp_path / "essaformer.onnx", height=8, width=6)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.rand(3, 5, 8, 6)
    (output,) = session.run(["enlarged"], {"low": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(x), rtol=0, atol=1e-5)
