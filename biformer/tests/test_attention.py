"""Bi-level routing attention equals its definition, written out token by token, with every option."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from biformer import BiLevelRoutingAttention, FullAttention

DIM, HEADS, SIDE = 16, 2, 3
OPTIONS = [
    {},
    {"lepe_kernel": 0},
    {"pooling": "adaptive_avg", "pooled_size": 2},
    {"pooling": "adaptive_max", "pooled_size": 1},
    {"pooling": "avg", "pooled_ratio": 2},
    {"pooling": "max", "pooled_ratio": 2},
    {"soft_routing": True},
    {"soft_routing": True, "differentiable_routing": True},
    {"soft_routing": True, "differentiable_routing": True, "learned_routing": True},
    {"soft_routing": True, "pooling": "avg"},
]


def by_definition(attention: BiLevelRoutingAttention, x: Tensor) -> Tensor:
    """The output of the module, computed for one region and one head at a time."""
    side, (height, width) = attention.num_regions, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    tall, wide = x.shape[1] // side, x.shape[2] // side
    q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).split(DIM, dim=-1)

    def region(of: Tensor, image: int, r: int) -> Tensor:
        top, left = r // side * tall, r % side * wide
        return of[image, top : top + tall, left : left + wide]

    def pooled(tokens: Tensor) -> Tensor:
        if attention.pooling == "none":
            return tokens.reshape(-1, DIM)
        pool = {
            "adaptive_avg": lambda t: F.adaptive_avg_pool2d(t, attention.pooled_size),
            "adaptive_max": lambda t: F.adaptive_max_pool2d(t, attention.pooled_size),
            "avg": lambda t: F.avg_pool2d(t, attention.pooled_ratio),
            "max": lambda t: F.max_pool2d(t, attention.pooled_ratio),
        }[attention.pooling]
        return pool(tokens.permute(2, 0, 1)[None])[0].permute(1, 2, 0).reshape(-1, DIM)

    out = torch.zeros_like(v)
    scale = DIM**-0.5  # of the full width, not of a head
    for image in range(len(x)):
        means = [torch.stack([region(of, image, r).mean((0, 1)) for r in range(side**2)]) for of in (q, k)]
        if not attention.differentiable_routing:
            means = [mean.detach() for mean in means]
        if attention.routing is not None:
            means = [attention.routing(mean) for mean in means]
        affinity = means[0] @ means[1].T * scale
        for r in range(side**2):
            chosen = affinity[r].argsort(descending=True)[: attention.top_k].tolist()
            weights = affinity[r][chosen].softmax(0) if attention.soft_routing else torch.ones(len(chosen))
            keys = torch.cat([pooled(region(k, image, c)) * w for c, w in zip(chosen, weights, strict=True)])
            values = torch.cat([pooled(region(v, image, c)) * w for c, w in zip(chosen, weights, strict=True)])
            queries = region(q, image, r).reshape(-1, DIM)
            heads = [
                (a * scale @ b.T).softmax(-1) @ c
                for a, b, c in zip(*(t.chunk(attention.num_heads, -1) for t in (queries, keys, values)), strict=True)
            ]
            top, left = r // side * tall, r % side * wide
            out[image, top : top + tall, left : left + wide] = torch.cat(heads, -1).reshape(tall, wide, DIM)
    if attention.lepe is not None:
        out = out + attention.lepe(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return attention.out(out)[:, :height, :width]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "released")
@pytest.mark.parametrize("size", [(12, 12), (10, 11)])
def test_equals_the_definition_forward_and_backward(options: dict, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = BiLevelRoutingAttention(DIM, HEADS, SIDE, 2, **options).double()
    x = torch.randn(2, *size, DIM, dtype=torch.float64)
    results = []
    for compute in (attention, lambda y: by_definition(attention, y)):
        attention.zero_grad()
        y = x.clone().requires_grad_()
        out = compute(y)
        out.sin().sum().backward()
        gradients = {name: p.grad.clone() for name, p in attention.named_parameters() if p.grad is not None}
        results.append((out.detach(), y.grad, gradients))
    (ours, ours_x, ours_p), (theirs, theirs_x, theirs_p) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours_x, theirs_x, rtol=1e-9, atol=1e-12)
    assert set(ours_p) == set(dict(attention.named_parameters()))
    for name, gradient in ours_p.items():
        torch.testing.assert_close(gradient, theirs_p[name], rtol=1e-9, atol=1e-11, msg=name)


def test_no_gradient_flows_through_the_hard_selection() -> None:
    """If the compared means are scaled, only the affinities change."""
    attention = BiLevelRoutingAttention(DIM, HEADS, SIDE, 2)
    q = torch.randn(1, 9, 4, DIM, requires_grad=True)
    _, affinity = attention.routes(q, q)
    assert not affinity.requires_grad


def test_the_best_region_comes_first() -> None:
    attention = BiLevelRoutingAttention(DIM, HEADS, SIDE, 4)
    q, k = torch.randn(2, 1, 9, 4, DIM).unbind(0)
    routes, affinity = attention.routes(q, k)
    assert routes.shape == (1, 9, 4) and (affinity.diff(dim=-1) <= 0).all()
    full = q.mean(2) @ k.mean(2).transpose(1, 2)
    assert torch.equal(routes[..., 0], full.argmax(-1))


def test_choices_are_the_routes_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    attention = BiLevelRoutingAttention(DIM, HEADS, SIDE, 2)
    x = torch.randn(2, 10, 11, DIM)
    padded = F.pad(x, (0, 0, 0, 1, 0, 2))
    q, k, _ = attention.qkv(padded).reshape(2, 3, 4, 3, 4, -1).transpose(2, 3).reshape(2, 9, 16, -1).chunk(3, -1)
    assert torch.equal(attention.choices(x), attention.routes(q, k)[0])


def test_full_attention_equals_its_definition() -> None:
    torch.manual_seed(0)
    attention = FullAttention(32, 4).double()
    x = torch.randn(2, 3, 5, 32, dtype=torch.float64)
    q, k, v = (part.reshape(2, 15, 4, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1))
    mixed = ((q @ k.transpose(-1, -2)) * 8**-0.5).softmax(-1) @ v
    local = attention.lepe(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    expected = attention.out(mixed.transpose(1, 2).reshape(x.shape) + local)
    torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-12)
    assert attention.qkv.bias is None and attention.out.bias is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 30, "num_heads": 4}, "multiple of num_heads"),
        ({"top_k": 10, "num_regions": 3}, "between 0 and the number of regions, got 10 of 3x3"),
        ({"pooling": "fractional"}, "'fractional' does not exist; choose one of none, adaptive_avg"),
        ({"lepe_kernel": 4}, "odd"),
        ({"pooled_ratio": 0, "pooling": "avg"}, "at least 1"),
        ({"differentiable_routing": True}, "needs soft_routing"),
        ({"learned_routing": True, "soft_routing": True}, "needs differentiable_routing"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BiLevelRoutingAttention(**{"dim": 32, "num_heads": 2} | options)


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10x12 cannot be cut into 3x3 equal regions; use auto_pad"):
        BiLevelRoutingAttention(DIM, HEADS, SIDE, 2, auto_pad=False)(torch.rand(1, 10, 12, DIM))
    with pytest.raises(ValueError, match=r"expected \(batch, height, width, 16\)"):
        BiLevelRoutingAttention(DIM, HEADS, SIDE, 2)(torch.rand(1, 16, 12, 12))
    with pytest.raises(ValueError, match="regions of 1x1 tokens cannot be pooled by 2"):
        BiLevelRoutingAttention(DIM, HEADS, SIDE, 2, pooling="avg")(torch.rand(1, 3, 3, DIM))
