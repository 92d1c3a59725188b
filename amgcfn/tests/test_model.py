"""The network's fast forms against its literal ones in training mode, its parts, names and checkpoints."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amgcfn import (
    AMGCFN,
    CAFM,
    GraphConvolution,
    NodeAttention,
    PixelAttention,
    build_graph,
    convert_released,
    create_model,
    list_models,
    literal,
    load_model,
)
from amgcfn.checkpoints import released_names
from amgcfn.convolution import ConvolutionLevel
from common.errors import UserError
from common.hyperspectral.classification.transforms import fit_pca


def _scene(height=43, width=51, bands=9, dtype=torch.float64):
    """A smooth random scene with its graph, as the network's arguments."""
    generator = np.random.default_rng(0)
    yy, xx = np.mgrid[:height, :width]
    cube = np.stack([np.sin(yy / 6 + b) + np.cos(xx / (5 + b)) for b in range(bands)], axis=2)
    cube = 2000 + 500 * (cube + 0.1 * generator.standard_normal(cube.shape))
    graph = build_graph(cube, fit_pca(cube, 3))
    features, segments, hops = graph.tensors()
    return torch.from_numpy(cube).to(dtype), features.to(dtype), segments, [hop.to(dtype) for hop in hops]


def _randomised(module: nn.Module) -> nn.Module:
    """Move affine parameters and running statistics away from 0 and 1, switch dropout off."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module


def _assert_same_gradients(ours: nn.Module, theirs: nn.Module, tolerance: float) -> None:
    expected = dict(theirs.named_parameters())
    largest = max(parameter.grad.abs().max() for parameter in expected.values())
    for name, parameter in ours.named_parameters():
        # Biases before a normalisation have gradients of rounding noise; compare on the network's scale too.
        scale = expected[name].grad.abs().max() + 1e-9 * largest
        error = (parameter.grad - expected[name].grad).abs().max() / scale
        assert error < tolerance, f"{name}: {error:.2e}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("concatenate", [True, False])
@pytest.mark.parametrize("size", [(13, 11), (1, 5), (5, 1), (2, 2)])
def test_convolution_level_equals_its_blocks(training, concatenate, size):
    ours = _randomised(ConvolutionLevel(7, 6, concatenate=concatenate)).double().train(training)
    theirs = copy.deepcopy(ours)
    x = torch.randn(*size, 7, dtype=torch.float64) * 3 + 5
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = ours(ours_x), literal.convolution_level(theirs, theirs_x)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    gradient = torch.randn_like(found)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours_x.grad, theirs_x.grad, rtol=1e-10, atol=1e-11)
    _assert_same_gradients(ours, theirs, 1e-9)
    for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


def test_convolution_level_in_many_bands_of_rows(monkeypatch):
    ours = _randomised(ConvolutionLevel(7, 6)).double()
    x = torch.randn(13, 11, 7, dtype=torch.float64)
    whole = ours(x)
    monkeypatch.setattr("amgcfn.fast.convolution._BAND_VALUES", 11 * 7)
    torch.testing.assert_close(ours(x), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [4096, 128])
def test_network_equals_its_literal_form_in_training(block, monkeypatch):
    monkeypatch.setattr("amgcfn.fast.head._BLOCK", block)
    cube, features, segments, hops = _scene()
    ours = _randomised(AMGCFN(bands=9, num_classes=5)).double()
    theirs = copy.deepcopy(ours)
    ours_cube, theirs_cube = cube.clone().requires_grad_(), cube.clone().requires_grad_()
    found = ours(ours_cube, features, segments, hops)
    expected = literal.network(theirs, theirs_cube, features, segments, [hop.to_dense() for hop in hops])
    for ours_logits, theirs_logits in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_logits, theirs_logits, rtol=1e-10, atol=1e-10)
    weights = [torch.randn_like(logits) for logits in found]
    sum((logits * weight).sum() for logits, weight in zip(found, weights, strict=True)).backward()
    sum((logits * weight).sum() for logits, weight in zip(expected, weights, strict=True)).backward()
    _assert_same_gradients(ours, theirs, 1e-6)
    largest = theirs_cube.grad.abs().max().item()
    torch.testing.assert_close(ours_cube.grad, theirs_cube.grad, rtol=0, atol=1e-9 * largest)
    for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


def test_every_parameter_receives_a_gradient():
    cube, features, segments, hops = _scene(dtype=torch.float32)
    model = AMGCFN(bands=9, num_classes=5)
    sum(
        F.cross_entropy(logits[:40], torch.arange(40) % 5) for logits in model(cube, features, segments, hops)
    ).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_autocast_leaves_the_numbers_alone():
    cube, features, segments, hops = _scene(dtype=torch.float32)
    model = AMGCFN(bands=9, num_classes=5).eval()
    expected = model(cube, features, segments, hops)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(cube, features, segments, hops)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def _literal_attention(layer: NodeAttention, x: Tensor) -> Tensor:
    """The equation of `NodeAttention`, head by head."""
    width = x.shape[1] // layer.heads
    mixed = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (F.linear(x, f.weight[part], f.bias[part]) for f in (layer.query, layer.key, layer.value))
        mixed.append((q @ k.T / width**0.5).softmax(dim=1) @ v)
    return layer.norm(layer.out(torch.cat(mixed, dim=1)) + x)


def test_node_attention_equals_its_equation():
    layer = NodeAttention(24, heads=6).double()
    x = torch.randn(17, 24, dtype=torch.float64)
    torch.testing.assert_close(layer(x), _literal_attention(layer, x), rtol=1e-10, atol=1e-10)


def test_pixel_attention_weights_each_head_by_its_own_convolution():
    layer = PixelAttention(12, heads=3).double()
    x = torch.randn(2, 12, 7, 5, dtype=torch.float64)
    parts = []
    for head, part in enumerate(x.split(4, dim=1)):
        mean = part.mean(dim=1, keepdim=True)
        weight = F.conv2d(mean, layer.conv.weight[head : head + 1], layer.conv.bias[head : head + 1], padding=2)
        parts.append(part * weight.sigmoid())
    torch.testing.assert_close(layer(x), torch.cat(parts, dim=1))


@pytest.mark.parametrize("channels", [1, 5, 96])
def test_cafm_alone_on_any_batch_and_channels(channels):
    fusion = CAFM(channels).double()
    first, second = torch.randn(2, 2, channels, 6, 7, dtype=torch.float64)
    together = fusion(first, second)
    for i in range(2):
        alone = fusion(first[i : i + 1], second[i : i + 1])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs)


def test_cafm_weights_sum_to_one_over_pixels():
    fusion = CAFM(8).double()
    first, second = torch.rand(2, 3, 8, 6, 7, dtype=torch.float64) + 1
    for x, out in zip((first, second), fusion(first, second), strict=True):
        torch.testing.assert_close((out / x - 1).sum(dim=(2, 3)), torch.ones(3, 8, dtype=torch.float64))


def test_graph_convolution_dense_equals_sparse():
    layer = GraphConvolution(5, 4).double()
    adjacency = torch.rand(9, 9, dtype=torch.float64) * (torch.rand(9, 9) < 0.3)
    nodes = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    dense, sparse = layer(nodes, adjacency), layer(nodes, adjacency.to_sparse())
    torch.testing.assert_close(dense, sparse)
    torch.testing.assert_close(dense, adjacency @ nodes @ layer.weight + layer.bias)
    gradients = [torch.autograd.grad(out.square().sum(), nodes)[0] for out in (dense, sparse)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("bands", "classes", "count"), [(200, 16, 368_217), (103, 9, 343_614), (204, 16, 369_009)]
)  # Indian Pines, Pavia University, Salinas
def test_parameter_counts_of_the_paper(bands, classes, count):
    model = create_model("amgcfn", bands=bands, num_classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_and_keywords_are_checked():
    assert list_models() == ["amgcfn"]
    with pytest.raises(ValueError, match="no variant 'amgcn'; there are amgcfn"):
        create_model("amgcn")
    with pytest.raises(ValueError, match="AMGCFN has no band; its keywords are bands, num_classes"):
        create_model("amgcfn", band=3)
    with pytest.raises(ValueError, match="one even width"):
        AMGCFN(bands=5, num_classes=2, graph_dim=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: (a[0][:, :, :4], *a[1:]), r"expected a cube \(height, width, 9\)"),
        (lambda a: (a[0], a[1], a[2][1:], a[3]), "do not cover the cube"),
        (lambda a: (a[0], a[1][:, :2], *a[2:]), "expected node features"),
        (lambda a: (*a[:3], a[3][:2]), "expected 3 hop graphs"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        AMGCFN(bands=9, num_classes=5)(*change(_scene(dtype=torch.float32)))


def test_cafm_refuses_maps_that_differ():
    with pytest.raises(ValueError, match="expected two maps"):
        CAFM(4)(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 4))


def test_a_saved_folder_gives_the_same_network(tmp_path):
    model = AMGCFN(bands=9, num_classes=5, graph_dim=32, conv_dim=32).eval()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.bands, loaded.num_classes) == (9, 5)
    arguments = _scene(dtype=torch.float32)
    for ours, theirs in zip(loaded(*arguments), model(*arguments), strict=True):
        assert torch.equal(ours, theirs)


def _released_tensors(model: AMGCFN) -> dict[str, Tensor]:
    back = {ours: theirs for theirs, ours in released_names().items()}
    released = {}
    for name, value in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if module == "pixel_attention.conv":
            released |= {f"CNN_Multihead.attn_conv{i}.{leaf}": value[i : i + 1] for i in range(6)}
        elif module.startswith(("fusion.average", "fusion.maximum")) and leaf == "weight":
            released[f"{back[module]}.{leaf}"] = value[:, :, None, None]
        else:
            released[f"{back[module]}.{leaf}"] = value
    return released


def test_a_released_file_is_recognised(tmp_path):
    model = AMGCFN(bands=9, num_classes=5).eval()
    torch.save(_released_tensors(model), tmp_path / "best_model.pt")
    loaded = load_model(tmp_path / "best_model.pt")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_foreign_tensors_are_named():
    released = _released_tensors(AMGCFN(bands=9, num_classes=5))
    del released["cross.avg1.bias"], released["CNN_Multihead.attn_conv3.bias"]
    released["surprise.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"1 unknown \(surprise.weight\), 2 missing .*attn_conv3.bias.*cross.avg1.bias"):
        convert_released(released)
