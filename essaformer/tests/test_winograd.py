"""Winograd's form against torch's convolution, forward and gradients, and where it is used."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from essaformer import ESSAformer, winograd


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (9, 14), (1, 3), (33, 6)])
def test_values_in_double_precision(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "STRIP", 15)  # several strips
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    result = winograd.winograd(x, weight, bias)
    torch.testing.assert_close(result, F.conv2d(x, weight, bias, padding=1), rtol=1e-11, atol=1e-11)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_gradients_and_rounding_of_a_wide_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 132, 3, padding=1)
    x = torch.randn(2, 128, 32, 33).to(memory_format=torch.channels_last).requires_grad_()
    assert winograd.worthwhile(conv, x)
    projection, results = torch.randn(2, 132, 32, 33), []
    for run in (lambda x: winograd.convolve(conv, x), conv):
        output = run(x)
        gradients = torch.autograd.grad((output * projection).sum(), [x, conv.weight, conv.bias])
        results.append([output.detach(), *gradients])
    for ours, expected in zip(*results, strict=True):
        assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()


def test_it_is_left_alone_where_it_does_not_pay() -> None:
    conv, x = nn.Conv2d(128, 128, 3, padding=1), torch.zeros(2, 128, 32, 32)
    assert winograd.worthwhile(conv, x)
    assert not winograd.worthwhile(conv, torch.zeros(1, 128, 32, 32))
    assert not winograd.worthwhile(nn.Conv2d(64, 64, 3, padding=1), torch.zeros(2, 64, 32, 32))
    assert not winograd.worthwhile(conv.double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.worthwhile(conv.float(), x)


def test_the_network_uses_it_and_stays_the_same() -> None:
    torch.manual_seed(0)
    model, x = ESSAformer(4, 64, 2).eval(), torch.rand(1, 4, 24, 24)
    assert winograd.worthwhile(model.encode_up.conv2, torch.zeros(1, 128, 48, 48))
    with torch.no_grad():
        fast, exact = model(x), model.double()(x.double())
    assert (fast - exact).abs().max() < 2e-5 * exact.abs().max()
