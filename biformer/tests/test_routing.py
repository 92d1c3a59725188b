"""Attention to routed regions with PyTorch equals the literal equation; the selection of an implementation."""

import pytest
import torch
from torch import Tensor

from biformer.fast import plain, routing
from biformer.fast.plain import plain_routed_attention
from biformer.fast.routing import routed_attention
from biformer.literal import literal_routed_attention

# batch, regions, tokens, key tokens, heads, head width, top_k: the three stages at 224 pixels, then unusual sizes
STAGES = [(1, 49, 64, 64, 2, 8, 1), (1, 49, 16, 16, 4, 8, 4), (2, 49, 4, 4, 8, 8, 16)]
ODD = [(2, 9, 6, 3, 3, 5, 2), (1, 4, 1, 1, 2, 8, 4), (2, 1, 12, 12, 1, 16, 1), (1, 25, 30, 30, 2, 6, 3)]


def operands(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Routes, and q, k and v as in the attention module: if possible, strided parts of one tensor."""
    batch, regions, tokens, key_tokens, heads, width, top_k = shape
    generator = torch.Generator().manual_seed(seed)
    channels = heads * width
    length = max(tokens, key_tokens)
    together = torch.randn(batch, regions, length, 3 * channels, generator=generator, dtype=torch.float64).to(dtype)
    q, k, v = (x.requires_grad_() for x in together.split(channels, dim=-1))
    routes = torch.rand(batch, regions, regions, generator=generator).topk(top_k, dim=-1).indices
    return q[:, :, :tokens], k[:, :, :key_tokens], v[:, :, :key_tokens], routes


def with_gradients(function, q: Tensor, k: Tensor, v: Tensor, *rest) -> list[Tensor]:
    out = function(q, k, v, *rest)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).sin().to(out.dtype)
    return [out, *torch.autograd.grad(out, (q, k, v), weight)]


@pytest.mark.parametrize("shape", STAGES + ODD, ids=str)
def test_the_plain_path_is_the_literal_equation_with_its_gradients(shape):
    *tensors, routes = operands(shape)
    rest = routes, shape[4], (shape[4] * shape[5]) ** -0.5
    ours = with_gradients(routed_attention, *tensors, *rest)
    literal = with_gradients(literal_routed_attention, *tensors, *rest)
    for mine, theirs in zip(ours, literal, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attend", [plain._masked, plain._selected])
def test_masking_and_selecting_agree_in_float32_and_bfloat16(attend):
    *tensors, routes = operands(STAGES[2], torch.float32)
    rest = routes, 8, 0.125
    literal = with_gradients(literal_routed_attention, *(x.double() for x in tensors), *rest)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        ours = with_gradients(attend, *(x.to(dtype) for x in tensors), *rest)
        for mine, theirs in zip(ours, literal, strict=True):
            assert mine.dtype == dtype
            assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_only_small_maps_are_computed_with_a_mask(monkeypatch):
    taken = []
    monkeypatch.setattr(plain, "_masked", lambda *_: taken.append("masked"))
    monkeypatch.setattr(plain, "_selected", lambda *_: taken.append("selected"))
    for shape in STAGES:
        *tensors, routes = operands(shape)
        plain_routed_attention(*tensors, routes, shape[4], 0.1)
    assert taken == ["selected", "selected", "masked"]


def test_each_region_attends_to_its_routes_and_to_nothing_else():
    q, k, v, _ = operands((1, 9, 4, 4, 2, 8, 1))
    routes = torch.tensor([[[(r + 1) % 9, (r + 2) % 9] for r in range(9)]])
    out = routed_attention(q, k, v, routes, 2, 0.25)
    (grad,) = torch.autograd.grad(out[0, 3].sum(), v)
    touched = grad[0].abs().sum(dim=(1, 2)) > 0
    assert touched.nonzero().flatten().tolist() == [4, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_on_a_cpu_never_go_to_triton(dtype):
    *tensors, routes = operands(ODD[0], dtype)
    assert not routing.triton_fits(*tensors, 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        routed_attention(*tensors, routes, 3, 0.2)
    assert not [event for event in profile.key_averages() if event.key.startswith("biformer::")]


class _OnGPU:
    """An object with the attributes of a tensor that the selection uses."""

    is_cuda, device = True, torch.device("cuda")

    def __init__(self, dtype: torch.dtype = torch.float32, channels: int = 64) -> None:
        self.dtype, self.shape = dtype, (1, 4, 4, channels)


@pytest.mark.parametrize(
    ("tensors", "heads", "capability", "triton", "expected"),
    [
        ([_OnGPU()] * 3, 2, (8, 0), True, True),
        ([_OnGPU(torch.bfloat16)] * 3, 2, (9, 0), True, True),
        ([_OnGPU(torch.float16)] * 3, 2, (12, 0), True, True),
        ([_OnGPU(torch.float64)] * 3, 2, (9, 0), True, False),
        ([_OnGPU(), _OnGPU(), _OnGPU(torch.float16)], 2, (9, 0), True, False),
        ([_OnGPU(), _OnGPU(), _OnGPU(channels=32)], 2, (9, 0), True, False),
        ([_OnGPU(channels=512)] * 3, 1, (9, 0), True, False),
        ([_OnGPU()] * 3, 2, (7, 5), True, False),
        ([_OnGPU()] * 3, 2, (9, 0), False, False),
    ],
)
def test_triton_is_used_where_it_runs(  # noqa: PLR0917
    tensors, heads, capability, triton, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(routing, "_HAS_TRITON", triton)
    assert routing.triton_fits(*tensors, heads) is expected


def test_the_operator_has_shapes_and_a_gradient_without_running():
    q, k = (torch.empty(2, 9, tokens, 24, device="meta", requires_grad=True) for tokens in (6, 3))
    routes = torch.zeros(2, 9, 4, dtype=torch.int64, device="meta")
    out, lse = torch.ops.biformer.routed_attention(q, k, k, routes, 3, 0.2)
    out.sum().backward()
    assert (out.shape, lse.shape, lse.dtype) == (q.shape, (2, 9, 3, 6), torch.float32)
    assert (q.grad.shape, k.grad.shape) == (q.shape, k.shape)


def test_the_plain_path_computes_the_same_when_compiled():
    *tensors, routes = operands(ODD[0], torch.float32)
    compiled = torch.compile(routed_attention, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(
        with_gradients(compiled, *tensors, routes, 3, 0.2),
        with_gradients(routed_attention, *tensors, routes, 3, 0.2),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
