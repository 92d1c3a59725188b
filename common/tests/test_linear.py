"""Linear layers by oneDNN: the same results, and cases in which it must not be used."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from common.networks.linear import Linear, linear

X, WEIGHT, BIAS = torch.randn(3, 5, 7, 24), torch.randn(40, 24), torch.randn(40)


def operators(run) -> set[str]:
    """Return the names of the jobs that run, and the result."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        run()
    return {event.key for event in watched.key_averages()}


def by_onednn(run) -> bool:
    return "mkldnn::_linear_pointwise" in operators(run)


@pytest.mark.parametrize("bias", [BIAS, None])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(
    "x", [X, X.permute(0, 2, 1, 3), X[0, 0, 0], X[:, :, ::2]], ids=["whole", "turned", "one", "part"]
)
def test_it_is_the_linear_layer(x, gelu, bias):
    expected = F.linear(x.double(), WEIGHT.double(), None if bias is None else bias.double())
    expected = F.gelu(expected) if gelu else expected
    with torch.no_grad():
        found = linear(x, WEIGHT, bias, gelu=gelu)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_it_is_taken_where_no_gradient_is_wanted():
    layer = Linear(24, 40)
    with torch.no_grad():
        assert by_onednn(lambda: layer(X))
    with torch.inference_mode():
        assert by_onednn(lambda: layer(X))
    assert not by_onednn(lambda: layer(X))
    with torch.no_grad():
        assert not by_onednn(lambda: layer.double()(X.double()))
        assert not by_onednn(lambda: layer.bfloat16()(X.bfloat16()))


def test_autocast_compilers_and_empty_batches_take_pytorchs_own():
    layer = Linear(24, 40)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(X).dtype == torch.bfloat16
        assert layer(X[:0]).shape == (0, 5, 7, 40)
        exported = torch.export.export(layer, (X,)).graph_module.code
        assert "mkldnn" not in exported
        assert "mkldnn" not in str(torch.jit.trace(layer, X).graph)


def test_parts_of_larger_matrices_are_as_quick():
    x, weight = torch.randn(2048, 256), torch.randn(512, 512)[:, :256]
    with torch.no_grad():
        start = time.process_time()
        found = linear(x, weight)
        seconds = time.process_time() - start
    assert (found - F.linear(x, weight)).abs().max() < 1e-3
    assert seconds < 5, "oneDNN's reference code needs more than a minute"


def test_it_learns_as_any_linear_layer():
    layer, other = Linear(24, 40), nn.Linear(24, 40)
    other.load_state_dict(layer.state_dict())
    for module in (layer, other):
        module(X).square().sum().backward()
    assert torch.equal(layer.weight.grad, other.weight.grad)


def test_a_torch_without_the_private_operator_takes_its_own(monkeypatch):
    monkeypatch.setattr("common.networks.linear._POINTWISE", None)
    with torch.no_grad():
        assert not by_onednn(lambda: linear(X, WEIGHT, BIAS))
        assert torch.equal(linear(X, WEIGHT, BIAS, gelu=True), F.gelu(F.linear(X, WEIGHT, BIAS)))
