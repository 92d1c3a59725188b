"""The whole network: sizes, batches, gradients, precisions, variants."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from fftformer import DFFN, FSAS, FFTformer, create_model, list_models, literal
from fftformer.fast import strips
from fftformer.model import pad_to_multiple


@pytest.fixture
def model() -> FFTformer:
    torch.manual_seed(0)
    return FFTformer(dim=8, num_blocks=(1, 1, 1), num_refinement_blocks=1)


@pytest.mark.parametrize("conjugate", [False, True])
def test_network_equals_the_literal_equations(conjugate: bool) -> None:
    torch.manual_seed(0)
    model = FFTformer(8, (1, 2, 1), 1, 2.5, conjugate).double()
    x, projection = torch.rand(2, 2, 3, 40, 64, dtype=torch.float64)
    results = []
    for compute in (model, lambda image: literal.fftformer(model, image)):
        output = compute(x)
        used = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append([output.detach(), *torch.autograd.grad((output * projection).sum(), used)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "count"), [("fftformer", 16_560_474), ("fftformer_tiny", 496_478)])
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in create_model(name).parameters()) == count


def test_every_parameter_is_trained_but_the_unused_one(model: FFTformer) -> None:
    model(torch.rand(1, 3, 32, 32)).square().mean().backward()
    untrained = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == ["reduce_chan_level2.weight"]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (33, 64), (50, 31), (64, 17)])
def test_any_size(model: FFTformer, height: int, width: int) -> None:
    x = torch.rand(1, 3, height, width)
    with torch.no_grad():
        restored = model(x)
        assert restored.shape == x.shape
        whole = model(pad_to_multiple(x))[..., :height, :width]
    torch.testing.assert_close(restored, whole)


@pytest.mark.parametrize(("height", "width"), [(33, 60), (17, 95), (64, 32)])
def test_padding_is_reflection_at_the_right_and_bottom(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    expected = F.pad(x, (0, -width % 32, 0, -height % 32), mode="reflect")
    assert torch.equal(pad_to_multiple(x), expected)


def test_an_image_smaller_than_its_padding_is_reflected_several_times() -> None:
    x = torch.tensor([10.0, 20.0, 30.0]).view(1, 1, 1, 3)
    padded = pad_to_multiple(x, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 5].tolist() == [10, 20, 30, 20, 10, 20, 30, 20]


def test_batch_of_two_equals_two_of_one(model: FFTformer) -> None:
    x = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    model.double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.cat([model(x[:1]), model(x[1:])]), rtol=0, atol=1e-12)


def test_channels_last_images(model: FFTformer) -> None:
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x))


def test_bfloat16_autocast_trains(model: FFTformer) -> None:
    x = torch.rand(1, 3, 32, 32)
    exact = model(x)
    exact.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        restored = model(x)
        restored.float().square().mean().backward()
    assert (restored.float() - exact).norm() < 0.05 * exact.norm()
    for name, parameter in model.named_parameters():
        if name in expected:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32
            assert F.cosine_similarity(parameter.grad.flatten(), expected[name].flatten(), dim=0) > 0.9, name


TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("part", ["network", "fsas", "dffn"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_other_types_and_memory_formats(
    model: FFTformer, part: str, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    """Compare with double precision; the weights are rounded too."""
    module = {"network": model, "fsas": FSAS(8), "dffn": DFFN(8)}[part]
    torch.manual_seed(0)
    x = torch.rand(2, 3, 40, 72) if part == "network" else torch.randn(2, 8, 16, 24)
    with torch.no_grad():
        expected = deepcopy(module).double()(x.double())
        module = module.to(dtype).to(memory_format=memory_format)
        result = module(x.to(dtype).contiguous(memory_format=memory_format))
    assert result.dtype == dtype
    assert (result.double() - expected).abs().max() < TOLERANCES[dtype] * expected.abs().max()


def test_half_precision_on_large_maps_and_large_values() -> None:
    """The sums over patches of these maps are too large for half precision."""
    torch.manual_seed(0)
    for module in (FSAS(8), DFFN(8)):
        x = 40 + 200 * torch.randn(1, 8, 64, 64)
        with torch.no_grad():
            expected, result = module(x), deepcopy(module).half()(x.half())
        assert torch.isfinite(result).all()
        assert (result.float() - expected).abs().max() < 1e-2 * expected.abs().max()


def test_from_the_meta_device(model: FFTformer) -> None:
    """All tensors that are not in the state dict are computed again."""
    with torch.device("meta"):
        empty = FFTformer(dim=8, num_blocks=(1, 1, 1), num_refinement_blocks=1)
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        assert torch.equal(empty(x), model(x))


@pytest.mark.parametrize("way", ["strips", "whole"])
def test_compiled_whole_without_a_graph_break(model: FFTformer, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(strips, "worthwhile", lambda *_: way == "strips")
    model, x = model.double(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    # This backend only records the graph; the benchmark tests the code that inductor generates.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ours, expected = (torch.autograd.grad(net(x).sum(), model.output.weight)[0] for net in (compiled, model))
    torch.testing.assert_close(ours, expected)


def test_variants_and_their_errors() -> None:
    assert list_models()[0] == "fftformer"
    assert create_model("fftformer_tiny", dim=8).patch_embed.out_channels == 8
    with pytest.raises(ValueError, match="there are fftformer, fftformer_tiny"):
        create_model("fftformer_huge")
    with pytest.raises(ValueError, match="no depth; its keywords are dim, num_blocks"):
        create_model("fftformer_tiny", depth=3)
    with pytest.raises(ValueError, match="three numbers"):
        create_model("fftformer_tiny", num_blocks=(1, 1))


def test_wrong_images_are_refused(model: FFTformer) -> None:
    with pytest.raises(ValueError, match=r"expected images \(batch, 3, height, width\)"):
        model(torch.rand(1, 1, 32, 32))
