"""Named variants, parameter counts, ablation switches, fast path against literal equations, checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from lsgavit import LSGAttention, LSGAViT, convert_released, create_model, list_models, literal, load_model
from lsgavit.attention import spatial_gaussian, token_index_gaussian
from lsgavit.checkpoints import published_names

SMALL = {"image_size": (5, 7), "bands": 6, "num_classes": 4, "embed_dim": 12, "num_heads": (3,)}


def small(name: str = "lsgavit", **overrides: object) -> LSGAViT:
    torch.manual_seed(0)
    return create_model(name, **SMALL | overrides)


def released_weights(model: LSGAViT) -> dict[str, Tensor]:
    """`model`'s weights as the authors' file holds them, with their constant buffer."""
    state = model.state_dict()
    tensors = {theirs: state[ours].clone() for theirs, ours in published_names(model).items()}
    for name in tensors:
        if name.endswith(("token_wA", "token_wV")):
            tensors[name] = tensors[name][None]
    return tensors | {"layers.0.blocks.0.attn.gauss_pos_index": torch.zeros(25, 25)}


@pytest.mark.parametrize(
    ("switches", "parameters"),
    [
        ({}, 53_160),
        ({"position_bias": "spatial"}, 53_160),
        ({"token_mixing": False}, 29_040),
        ({"token_mixing": False, "light": False}, 58_080),
    ],
)
def test_parameters_of_one_attention_layer(switches: dict[str, object], parameters: int) -> None:
    attention = LSGAttention(120, 12, 9, **switches)
    assert sum(p.numel() for p in attention.parameters()) == parameters


def test_variants() -> None:
    assert list_models()[0] == "lsgavit"
    counts = {name: sum(p.numel() for p in create_model(name).parameters()) for name in list_models()}
    released, two_layers = 536_296, 2
    assert counts == {
        "lsgavit": released,
        "lsgavit_spatial": released,
        "lsgavit_paper": released - two_layers * (53_160 - 29_040),
        "lsgavit_light": released - two_layers * (53_160 - 29_040),
        "lsgavit_gaussian": released + two_layers * (58_080 - 53_160),
        "lsgavit_plain": released + two_layers * (58_080 - 53_160),
    }
    with pytest.raises(ValueError, match="there are lsgavit, lsgavit_spatial"):
        create_model("lsga")
    with pytest.raises(ValueError, match="keywords are image_size, bands"):
        create_model("lsgavit", dim=3)


def test_token_index_bias_is_about_indices() -> None:
    bias = token_index_gaussian(81)
    assert bias[40, 40] == 1
    assert bias[0, 0] == pytest.approx(np.exp(-2 * 40**2 / 200))
    assert bias[40, 30] == bias[30, 40] == bias[40, 50] == pytest.approx(np.exp(-0.5))
    assert token_index_gaussian(64)[31, 31] == 1


def test_spatial_bias_favours_the_centre_pixel_for_every_query() -> None:
    bias = spatial_gaussian(5, 7, sigma=2.0).view(35, 5, 7)
    assert torch.equal(bias, bias[:1].expand(35, 5, 7))
    assert bias[0].argmax() == 17
    assert bias[0, 0, 0] == pytest.approx(np.exp(-(2**2 + 3**2) / 8))
    torch.testing.assert_close(bias, bias.flip(1, 2))


@pytest.mark.parametrize("bias", ["token_index", "spatial", "none"])
@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("mixing", [True, False])
def test_fast_path_equals_the_literal_equations(bias: str, light: bool, mixing: bool) -> None:
    model = small(position_bias=bias, light=light, token_mixing=mixing).double()
    # 19 windows of 3 heads: more than one piece of the CPU kernel with two threads, the last one smaller.
    x = torch.randn(19, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(19, 4, dtype=torch.float64)
    results = []
    for forward in (model, partial(literal.lsgavit, model)):
        torch.manual_seed(1)  # the same stochastic depth
        model.zero_grad()
        output = forward(x)
        (gradient,) = torch.autograd.grad((output * weight).sum(), x, retain_graph=True)
        (output * weight).sum().backward()
        results.append((output, gradient, *(p.grad for p in model.parameters() if p.requires_grad)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradient_of_the_cpu_kernel() -> None:
    attention = LSGAttention(6, 2, (2, 3)).double()
    x = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, x)
    assert torch.autograd.gradgradcheck(attention, x)


@pytest.mark.parametrize("name", ["lsgavit", "lsgavit_paper", "lsgavit_plain"])
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = small(name, depths=(1, 1), num_heads=(3, 3), image_size=(4, 6))
    model(torch.randn(4, 6, 4, 6)).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {"tokenizer.proj.weight", "tokenizer.proj.bias"}  # unused in the release


def test_a_batch_is_its_samples() -> None:
    model = small().double().eval()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(model(x), torch.cat([model(x[:1]), model(x[1:])]), rtol=0, atol=1e-13)


def test_stochastic_depth_keeps_the_mean() -> None:
    model = small(drop_path=0.4)
    drop = model.blocks[1].drop_path
    x = torch.ones(20_000, 1, 1)
    kept = drop(x)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert kept.mean().item() == pytest.approx(1, abs=0.03)
    assert drop.eval()(x) is x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 13}, "dim must be a positive multiple of num_heads, got 13 and 3"),
        ({"depths": (1, 1)}, "a number for each"),
        ({"depths": (1, 1), "num_heads": (3, 3)}, "patch merging needs even sides, got 5 × 7"),
        ({"position_bias": "gauss"}, "token_index, spatial or none"),
        ({"drop_path": 1.0}, r"drop_path in \[0, 1\)"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


@pytest.mark.parametrize("shape", [(2, 5, 5, 7), (2, 6, 7, 5), (6, 5, 7)])
def test_wrong_windows(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected windows"):
        small()(torch.zeros(shape))


def test_published_folder(tmp_path: Path) -> None:
    model = small("lsgavit_paper").eval()
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    x = torch.randn(2, 6, 5, 7)
    assert torch.equal(again(x), model(x))
    assert again.image_size == (5, 7)


def test_released_file(tmp_path: Path) -> None:
    model = create_model(num_classes=5, image_size=5, bands=6).eval()
    tensors = {f"module.{name}": value for name, value in released_weights(model).items()}
    torch.save({"state_dict": tensors}, tmp_path / "released.pth")
    again = load_model(tmp_path / "released.pth")
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(again(x), model(x))


def test_released_weights_load_strictly() -> None:
    tensors = released_weights(create_model(num_classes=5, image_size=5, bands=6))
    del tensors["norm.weight"]
    tensors["layers.0.extra"] = torch.zeros(1)
    tensors["norm.bias"] = torch.zeros(7)
    with pytest.raises(UserError) as caught:
        convert_released(tensors)
    message = str(caught.value)
    assert "1 missing (norm.weight)" in message
    assert "1 unexpected (layers.0.extra)" in message
    assert r"norm.bias (7,) instead of (120,)" in message
    with pytest.raises(UserError, match="holds another model"):
        convert_released({"conv.weight": torch.zeros(3)})
