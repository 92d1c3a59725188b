"""PyTorch's flex_attention as an independent reference; a routing table is the index of its block mask."""

import shutil

import pytest
import torch

from biformer.fast.flex import flex_fits, flex_routed_attention
from biformer.literal import literal_routed_attention

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def operands(device: str, dtype: torch.dtype, *, tokens: int = 16, heads: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(2, 9, tokens, 3 * heads * 32, generator=generator)
    routes = torch.rand(2, 9, 9, generator=generator).topk(4).indices
    return [*together.to(device, dtype).chunk(3, dim=-1), routes.to(device)]


@needs_compiler
def test_flex_attention_equals_the_literal_equation():
    q, k, v, routes = operands("cpu", torch.float32)
    literal = literal_routed_attention(q.double(), k.double(), v.double(), routes, 2, 0.125)
    judged = flex_routed_attention(q, k, v, routes, 2, 0.125)
    assert (judged - literal).abs().max() <= 2e-6 * literal.abs().max()
    # Another routing table gives another result, so the reference uses the routes.
    other = flex_routed_attention(q, k, v, (routes + 1) % 9, 2, 0.125)
    assert (other - literal).abs().max() > 0.1 * literal.abs().max()


@pytest.mark.parametrize(("tokens", "fits"), [(4, False), (16, True), (49, False), (64, True)])
def test_it_accepts_regions_of_a_power_of_two_of_at_least_16_tokens(tokens, fits):
    q = torch.empty(1, 4, tokens, 32)
    assert flex_fits(q, q) is fits


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [16, 64, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_triton_kernels_agree_with_flex_attention(tokens, dtype, tolerance):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    *inputs, routes = operands("cuda", dtype, tokens=tokens)
    found = []
    for form in (torch.ops.biformer.routed_attention, flex_routed_attention):
        q, k, v = (x.detach().requires_grad_() for x in inputs)
        result = form(q, k, v, routes, 2, 0.125)
        out = result[0] if isinstance(result, tuple) else result
        weight = torch.linspace(-1, 1, out.numel(), device="cuda").view(out.shape).sin().to(dtype)
        found.append([out, *torch.autograd.grad(out, (q, k, v), weight)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
