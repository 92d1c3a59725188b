"""The fast and the normal form against the published 3-D form, and other properties of the modules."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hcanet import CAFM, MSFN, HCANet, convert_released, create_model, fast, list_models
from hcanet.literal import HCANet3D, inflated, published_form
from hcanet.model import ChannelNorm, narrow
from support.kept import kept_for_backward

SMALL: dict[str, Any] = {"bands": 5, "dim": 8, "num_blocks": (1, 1, 1)}
FORMS = ("fast", "plain")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda form: monkeypatch.setattr(fast, "usable", lambda x: form == "fast")


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, input gradient, and every parameter's gradient."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    output = module(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    (output * weights).sum().backward()
    return [output.detach(), x.grad, *(parameter.grad.clone() for parameter in module.parameters())]


def varied(**keywords: Any) -> HCANet:
    """A network whose every parameter is away from its start."""
    torch.manual_seed(0)
    model = HCANet(**SMALL | keywords).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("keywords", "size"),
    [
        ({}, (1, 8, 12)),
        ({"local_mix": "pixel"}, (2, 8, 12)),
        ({"norm": "BiasFree"}, (2, 4, 4)),
        ({"bias": True, "local_mix": "pixel"}, (1, 12, 8)),
        ({"bias": True, "norm": "BiasFree", "heads": (2, 2, 8)}, (2, 8, 8)),
        ({"dim": 12, "heads": (3, 1, 4), "ffn_expansion": 1.3, "num_blocks": (1, 2, 1)}, (1, 16, 8)),
        ({"num_refinement_blocks": 0, "bands": 8}, (1, 8, 8)),
    ],
)
def test_both_forms_equal_the_published_3d_form(
    form: str, keywords: dict[str, Any], size: tuple[int, ...], use: Callable[[str], None]
) -> None:
    model = varied(**keywords)
    published = published_form(model)
    x = torch.randn(size[0], model.bands, *size[1:]).double()
    use(form)
    ours, theirs = gradients(model, x), gradients(published, x)
    names = ["output", "input", *(name for name, _ in model.named_parameters())]
    largest = max(value.abs().max().item() for value in theirs)
    for name, mine, value in zip(names, ours, theirs, strict=True):
        middle = value.shape[2] // 2 if value.ndim == 5 else None
        if middle is not None:
            assert not value[:, :, :middle].any() and not value[:, :, middle + 1 :].any(), f"{name}: an outer slice"
        expected = value if middle is None else value[:, :, middle]
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-11 * largest, msg=name)


@pytest.mark.parametrize("local_mix", ["released", "pixel"])
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 8, 2, 3), (3, 8, 7, 5), (1, 8, 1, 9)])
def test_modules_take_any_size_in_both_forms(
    local_mix: Any, shape: tuple[int, ...], use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("hcanet.fast.feedforward.VALUES", 64)  # several groups of hidden channels
    for module in (CAFM(8, 2, local_mix=local_mix), MSFN(8), MSFN(70, 1.0)):
        module.double()
        x = torch.randn(shape[0], module.dim, *shape[2:]).double()
        results = []
        for form in FORMS:
            use(form)
            results.append(gradients(module, x))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_fast_forms_have_second_derivatives() -> None:
    torch.manual_seed(0)
    for module in (CAFM(2, 2).double(), CAFM(2, 1, local_mix="pixel").double(), MSFN(2, 1.0).double()):
        x = torch.randn(1, module.dim, 2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(module, x)
        assert torch.autograd.gradgradcheck(module, x)


def test_training_keeps_a_quarter_of_what_the_published_form_keeps() -> None:
    model = create_model("hcanet_light", bands=8, dim=16)
    published, x = published_form(model), torch.rand(1, 8, 32, 32)
    assert kept_for_backward(model, model, x) < 0.3 * kept_for_backward(published, published, x)


def test_the_intended_branch_is_local_and_the_released_one_is_not() -> None:
    torch.manual_seed(0)
    changed = {}
    for mix in ("pixel", "released"):
        module = CAFM(8, local_mix=mix).double()  # type: ignore[arg-type]
        x = torch.randn(1, 24, 32, 32).double()
        other = x.clone()
        other[:, :, 15, 15] += 1
        difference = module._local(x) - module._local(other)
        changed[mix] = int((difference.abs().amax(dim=1) > 1e-12).sum())
    assert changed["pixel"] == 9
    assert changed["released"] > 100


@pytest.mark.parametrize(
    ("name", "published", "live"), [("hcanet", 4_607_741, 4_122_191), ("hcanet_light", 1_161_383, None)]
)
def test_parameter_counts(name: str, published: int, live: int | None) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert model.published_parameters() == published
    assert live is None or sum(parameter.numel() for parameter in model.parameters()) == live


def test_parameter_count_of_pavia() -> None:
    with torch.device("meta"), pytest.warns(UserWarning, match="at least 53% of the white noise of 103 bands"):
        assert create_model("hcanet", bands=103).published_parameters() == 4_887_677


def test_a_network_narrower_than_its_bands_keeps_noise() -> None:
    """The warning is true: outside of the first convolution's row space the output is the input."""
    with pytest.warns(UserWarning, match="take dim >= bands"):
        model = HCANet(bands=20, dim=8, num_blocks=(1, 1, 1)).eval()
    stem = model.patch_embed["proj"].weight.detach().sum((2, 3))  # of an image that is constant in space
    null = torch.linalg.svd(stem)[2][8:]
    noise = (torch.randn(12) @ null)[None, :, None, None].expand(1, -1, 8, 8)
    with torch.no_grad():
        inner = (slice(None), slice(None), slice(3, 5), slice(3, 5))
        assert (model.patch_embed["proj"](noise)[inner]).abs().max() < 1e-5
    assert narrow(31, 16).startswith("a network of width 16 passes at least 48%")


def test_starts_at_the_published_scale() -> None:
    torch.manual_seed(0)
    ours, published = create_model("hcanet_light"), HCANet3D(dim=32, num_blocks=(1, 1, 1))
    for (name, mine), theirs in zip(ours.named_parameters(), published.parameters(), strict=True):
        if mine.numel() > 200 and mine.std() > 0:
            assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.15), name


def test_any_size_is_padded_and_cropped() -> None:
    torch.manual_seed(0)
    model = create_model("hcanet_light", **SMALL).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (3, 2), (5, 9), (8, 8)):
            x = torch.rand(2, 5, height, width)
            y = model(x)
            assert y.shape == x.shape
        padded = torch.nn.functional.pad(torch.rand(1, 5, 6, 7), (0, 1, 0, 2), mode="reflect")
        torch.testing.assert_close(model(padded[..., :6, :7]), model(padded)[..., :6, :7])


def test_a_batch_of_two_equals_two_batches_of_one() -> None:
    torch.manual_seed(0)
    model = create_model("hcanet_light", **SMALL).eval()
    x = torch.rand(2, 5, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.cat([model(x[:1]), model(x[1:])]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns(form: str, use: Callable[[str], None]) -> None:
    use(form)
    torch.manual_seed(0)
    model = create_model("hcanet_light", **SMALL)
    model(torch.rand(1, 5, 8, 8)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.06), (torch.float16, 0.01)])
@pytest.mark.parametrize("how", ["cast", "autocast"])
def test_half_precision_stays_near_float64(dtype: torch.dtype, tolerance: float, how: str) -> None:
    for module in (varied(dim=8), varied(norm="BiasFree", local_mix="pixel"), CAFM(16, 2), MSFN(16), ChannelNorm(16)):
        torch.manual_seed(1)
        bands = getattr(module, "bands", 16)
        x = torch.rand(1, bands, 32, 32).double()
        exact = module.double()(x)
        if how == "cast":
            result = copy.deepcopy(module).to(dtype)(x.to(dtype))
            assert result.dtype == dtype
        else:
            with torch.autocast("cpu", dtype):
                result = copy.deepcopy(module).float()(x.float())
        error = (result.double() - exact).abs().max() / exact.abs().max()
        assert error < tolerance, f"{type(module).__name__}: {error:.3g}"


def test_large_values_do_not_overflow_in_half_precision() -> None:
    torch.manual_seed(0)
    x = 300 * torch.randn(1, 8, 64, 64)
    module = CAFM(8, 2)
    exact = module(x)
    result = module.half()(x.half())
    assert torch.isfinite(result).all()
    assert (result.float() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("form", FORMS)
def test_memory_formats_give_the_same(
    form: str, memory_format: torch.memory_format, use: Callable[[str], None]
) -> None:
    use(form)
    model = varied().to(memory_format=memory_format)
    x = torch.randn(2, 5, 8, 12).double().to(memory_format=memory_format)
    torch.testing.assert_close(model(x), published_form(model)(x), rtol=1e-9, atol=1e-10)


def test_compiles_as_one_graph_and_trains() -> None:
    torch.manual_seed(0)
    model = HCANet(bands=4, dim=4, num_blocks=(0, 0, 1), num_refinement_blocks=0)
    x = torch.rand(1, 4, 8, 8)
    expected = gradients(model, x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(gradients(compiled, x), expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


def test_meta_device_then_empty_then_loaded() -> None:
    model = create_model("hcanet_light", **SMALL).eval()
    with torch.device("meta"):
        other = create_model("hcanet_light", **SMALL)
    other = other.to_empty(device="cpu").eval()
    other.load_state_dict(model.state_dict())
    x = torch.rand(1, 5, 8, 8)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


def test_saved_and_loaded_again(tmp_path) -> None:
    model = create_model("hcanet_light", **SMALL, local_mix="pixel")
    model.save_pretrained(tmp_path)
    again, x = HCANet.from_pretrained(tmp_path), torch.rand(1, 5, 6, 6)
    assert again.encoder_level1[0].attn.local_mix == "pixel"
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))


@pytest.mark.parametrize(("dynamo", "local_mix"), [(True, "released"), (False, "released"), (False, "pixel")])
def test_onnx_runtime_computes_the_same_on_another_image(dynamo: bool, local_mix: Any, tmp_path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    model = HCANet(bands=4, dim=8, num_blocks=(0, 0, 1), num_refinement_blocks=0, local_mix=local_mix).eval()
    path = tmp_path / "hcanet.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.rand(1, 4, 10, 8),), str(path), dynamo=dynamo, input_names=["noisy"], verbose=False
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    second = torch.randn(1, 4, 10, 8)
    (output,) = session.run(None, {"noisy": second.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(second), rtol=0, atol=1e-5)


def test_published_tensors_convert_back() -> None:
    model = varied(bias=True, heads=(2, 4, 4), ffn_expansion=1.7)
    published = inflated(model.state_dict())
    assert published["patch_embed.proj.weight"].shape == (8, 5, 3, 3, 3)
    assert published["encoder_level1.0.ffn.dwconv2.weight"].ndim == 4
    for name, value in convert_released(published).items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 9}, "dim even"),
        ({"bands": 0}, "bands must be at least 1"),
        ({"heads": (1, 2)}, "three numbers each"),
        ({"heads": (1, 2, 5)}, "multiple of num_heads, got dim 192 and num_heads 5"),
        ({"norm": "Batch"}, "one of WithBias, BiasFree"),
        ({"local_mix": "some"}, "one of released, pixel, none"),
        ({"ffn_expansion": 0.0}, "expansion 0.0"),
        ({"width": 64}, "has no width; its keywords are bands"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("hcanet", **arguments)


def test_wrong_names_and_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="hcanet, hcanet_light"):
        create_model("hcanet_huge")
    assert list_models() == ["hcanet", "hcanet_light"]
    with pytest.raises(ValueError, match=r"batch, 5, height, width"):
        HCANet(**SMALL)(torch.rand(1, 6, 8, 8))
    for module in (CAFM(8), MSFN(8)):
        with pytest.raises(ValueError, match=r"batch, 8, height, width"):
            module(torch.rand(1, 7, 8, 8))
