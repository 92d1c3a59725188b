"""The transform of patches equals `torch.fft`, and the two parts equal their equations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fftformer import DFFN, FSAS, frequency, literal
from fftformer.fast import strips


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_patches_are_blocks_of_the_image_and_can_be_joined() -> None:
    x = random(2, 16, 24, 3)
    patches = frequency.to_patches(x)
    assert torch.equal(patches[:, 4].view(8, 8, 3), x[0, 8:16, 8:16])
    assert torch.equal(frequency.from_patches(patches, 2, 16, 24), x)


def test_analysis_holds_the_real_and_imaginary_parts_of_rfft2() -> None:
    pixels = random(64, 2, 3)
    ours = frequency.analyse(pixels)
    full = torch.fft.fft2(pixels.view(8, 8, 2, 3), dim=(0, 1)).flatten(0, 1)
    # Every cosine row is the real part of a frequency; its sine row is minus the imaginary part of the same one.
    for cosines, sines in frequency.COSINE_SINE_ROWS:
        for real, imaginary in zip(ours[cosines], ours[sines], strict=True):
            assert (full - torch.complex(real, -imaginary)).abs().amax(dim=(1, 2)).min() < 1e-12
    for real in ours[frequency.REAL_ONLY]:
        assert (full - real).abs().amax(dim=(1, 2)).min() < 1e-12
    torch.testing.assert_close(frequency.synthesise(ours), pixels)


@pytest.mark.parametrize("transposed", [False, True])
def test_quarters_are_the_whole_transform(transposed: bool) -> None:
    patches = random(64, 2, 3)
    for name, whole in (("analysis", frequency.analyse), ("synthesis", frequency.synthesise)):
        matrices, expected = (
            frequency.quarter_matrices(name, patches, transposed=transposed),
            whole(patches, transposed=transposed),
        )
        if (name == "analysis") != transposed:
            ours = strips.to_coefficients(matrices, patches)
        else:
            ours = torch.empty_like(patches)
            strips.to_pixels(matrices, patches, ours)
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("conjugate", [False, True])
def test_product_of_spectra(conjugate: bool) -> None:
    a, b = random(64, 2, 3), random(64, 2, 3)
    product = frequency.synthesise(frequency.multiply(frequency.analyse(a), frequency.analyse(b), conjugate=conjugate))
    spectra = [torch.fft.rfft2(x.view(8, 8, 2, 3), dim=(0, 1)) for x in (a, b)]
    second = spectra[1].conj() if conjugate else spectra[1]
    expected = torch.fft.irfft2(spectra[0] * second, s=(8, 8), dim=(0, 1)).flatten(0, 1)
    torch.testing.assert_close(product, expected)


def test_learned_matrix_acts_as_on_rfft2_and_irfft2() -> None:
    pixels, fft = random(64, 2, 3), random(3, 1, 1, 8, 5)
    ours = frequency.synthesise(frequency.analyse(pixels) * frequency.filter_factors(fft))
    cut = pixels.view(8, 8, 2, 3).permute(3, 2, 0, 1)
    expected = torch.fft.irfft2(torch.fft.rfft2(cut) * fft[:, 0], s=(8, 8))
    torch.testing.assert_close(ours.view(8, 8, 2, 3).permute(3, 2, 0, 1), expected)


PARTS = {
    "fsas": (lambda: FSAS(6), literal.fsas),
    "fsas_conjugate": (lambda: FSAS(6, conjugate=True), literal.fsas),
    "dffn": (lambda: DFFN(6, 2.66), literal.dffn),
}


@pytest.mark.parametrize("way", ["strips", "whole"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (72, 8)])
def test_part_equals_its_equation(
    part: str, way: str, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    make, equation = PARTS[part]
    module: nn.Module = make().double()
    if isinstance(module, DFFN):
        nn.init.normal_(module.fft, mean=1.0, std=0.3)
    if way == "whole":
        monkeypatch.setattr(strips, "worthwhile", lambda *_: False)
    else:  # several strips and several groups of channels, also of unequal sizes
        monkeypatch.setattr(strips, "SMALL", {False: 0, True: 0})
        monkeypatch.setattr(strips, "_PIECE", 8 * width * 9)
        monkeypatch.setattr(strips, "_FEWEST_PIXELS", 2 * 8 * width)
    x, projection = random(2, 6, height, width), random(2, 6, height, width)
    results = []
    for compute in (module, lambda features: equation(module, features)):
        features = x.clone().requires_grad_()
        output = compute(features)
        gradients = torch.autograd.grad((output * projection).sum(), [features, *module.parameters()])
        results.append([output.detach(), *gradients])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("part", PARTS)
def test_both_memory_formats_agree(part: str) -> None:
    module = PARTS[part][0]().double()
    x = random(1, 6, 16, 24)
    torch.testing.assert_close(module(x), module(x.contiguous(memory_format=torch.channels_last)))


def test_the_conjugate_changes_the_attention() -> None:
    torch.manual_seed(0)
    released, paper = FSAS(6), FSAS(6, conjugate=True)
    paper.load_state_dict(released.state_dict())
    x = torch.randn(1, 6, 16, 16)
    assert (released(x) - paper(x)).abs().max() > 1e-3


@pytest.mark.parametrize("module", [FSAS(4), DFFN(4)])
@pytest.mark.parametrize("shape", [(1, 4, 12, 16), (1, 5, 16, 16), (4, 16, 16)])
def test_wrong_maps_are_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 4, height, width\) in multiples of 8"):
        module(torch.zeros(shape))


def test_half_precision_keeps_the_transform_in_single() -> None:
    torch.manual_seed(0)
    module = FSAS(8)
    x = torch.randn(1, 8, 16, 16)
    seen = []
    original = frequency.analyse

    def spy(patches: torch.Tensor, **keywords: bool) -> torch.Tensor:
        seen.append(patches.dtype)
        return original(patches, **keywords)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):
        patch.setattr(frequency, "analyse", spy)
        half = module(x)
    assert seen == [torch.float32, torch.float32]
    assert (half.float() - module(x)).norm() < 0.02 * module(x).norm()


@pytest.mark.parametrize("part", PARTS)
def test_second_derivatives_through_the_strips(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derivatives by x, by the weights, and mixed ones; the strips themselves only have first derivatives."""
    torch.manual_seed(0)
    module, norm = PARTS[part][0]().double(), nn.LayerNorm(6).double()
    x = random(1, 16, 8, 6)
    results = []
    for small in (0, 2**40):
        monkeypatch.setattr(strips, "SMALL", {False: small, True: small})
        tokens = x.clone().requires_grad_()
        weights = [*norm.parameters(), *module.parameters()]
        (slope,) = torch.autograd.grad(module.channels_last(tokens, norm).square().sum(), tokens, create_graph=True)
        results.append(torch.autograd.grad(slope.square().sum(), [tokens, *weights]))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("part", PARTS)
def test_norm_and_residual_inside_the_strips(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, norm = PARTS[part][0]().double(), nn.LayerNorm(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    monkeypatch.setattr(strips, "SMALL", {False: 0, True: 0})
    monkeypatch.setattr(strips, "_PIECE", 8 * 16 * 9)
    monkeypatch.setattr(strips, "_FEWEST_PIXELS", 8 * 16)
    x, projection = random(2, 40, 16, 6), random(2, 40, 16, 6)
    results = []
    for compute in (
        lambda tokens: module.channels_last(tokens, norm),
        lambda tokens: tokens + PARTS[part][1](module, norm(tokens).permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
    ):
        tokens = x.clone().requires_grad_()
        output = compute(tokens)
        variables = [tokens, *norm.parameters(), *module.parameters()]
        results.append([output.detach(), *torch.autograd.grad((output * projection).sum(), variables)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10 * expected.abs().max().item())
