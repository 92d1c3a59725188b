"""The backbone for dense prediction: four maps, their norms, frozen BatchNorm, ImageNet weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from biformer import create_model, export_released
from biformer.dense import DenseBiFormer, parameter_groups
from common.errors import UserError

NARROW = {"depths": (1, 1, 2, 1), "dims": (32, 64, 128, 256)}


def narrow(**keywords) -> DenseBiFormer:
    torch.manual_seed(0)
    return DenseBiFormer("biformer_tiny", num_regions=4, **NARROW | keywords)


@pytest.fixture
def model() -> DenseBiFormer:
    model = narrow()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
        elif isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
    return model


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (32, 97), (13, 13)])
@pytest.mark.parametrize("position", [True, False])
def test_four_maps_at_any_size(size: tuple[int, int], position: bool) -> None:
    model = narrow(overlapping=position, position=position).eval()
    with torch.no_grad():
        maps = model(torch.rand(2, 3, *size))
    expected = [tuple(-(-length // stride) for length in size) for stride in model.strides]
    assert [tuple(m.shape) for m in maps] == [(2, c, *s) for c, s in zip(model.channels, expected, strict=True)]
    assert model.channels == (32, 64, 128, 256) and model.least_size == 13


def test_the_maps_are_the_stages_outputs_each_normalised_over_its_channels(model: DenseBiFormer) -> None:
    model.eval()
    x = torch.rand(2, 3, 70, 50)
    with torch.no_grad():
        raw = model.backbone.forward_intermediates(x, intermediates_only=True)
        maps = model(x)
    for before, after, norm in zip(raw, maps, model.norms, strict=True):
        centred = before - before.mean(1, keepdim=True)
        normal = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        expected = normal * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_the_norms_change_only_the_outputs(model: DenseBiFormer) -> None:
    """A stage gets the map of the stage before without the norm; a norm changes only its own map."""
    model.eval()
    seen: dict[str, torch.Tensor] = {}
    for i, stage in enumerate(model.backbone.stages):
        stage.register_forward_pre_hook(lambda _, inputs, i=i: seen.__setitem__(f"into {i}", inputs[0]))
        stage.register_forward_hook(lambda _, inputs, out, i=i: seen.__setitem__(f"out of {i}", out))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        assert all(torch.equal(seen[f"into {i + 1}"], seen[f"out of {i}"]) for i in range(3))
        model.norms[1].bias += 1.0
        after = model(x)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_batch_norm_keeps_its_statistics(freeze: bool) -> None:
    model = narrow(freeze_batch_norm=freeze)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()(torch.rand(2, 3, 64, 64))
    same = all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert before and same == freeze
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5 and all(norm.training != freeze for norm in norms)
    assert model.training and not model.eval().backbone.training
    assert not any(norm.training for norm in norms)


def test_every_parameter_receives_a_gradient(model: DenseBiFormer) -> None:
    sum((m * torch.randn_like(m)).sum() for m in model.train()(torch.rand(2, 3, 64, 64))).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    zero = [
        name for name, parameter in model.named_parameters() if parameter.grad is not None and not parameter.grad.any()
    ]
    assert without == [] and zero == []
    assert not any("head" in name or name.startswith("backbone.norm") for name, _ in model.named_parameters())


def test_gradient_checkpointing_changes_no_gradient(model: DenseBiFormer) -> None:
    x, gradients = torch.rand(1, 3, 64, 64), []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        sum(m.square().sum() for m in model(x)).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("form", ["released", "folder"])
def test_imagenet_weights_load(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = create_model("biformer_tiny", num_classes=5, **NARROW)  # 7 regions, which cannot be seen from tensors
    path = tmp_path / ("released.pth" if form == "released" else "model")
    torch.save({"model": export_released(classifier)}, path) if form == "released" else classifier.save_pretrained(path)
    model = narrow()
    model.load_classifier(path)
    theirs, ours = classifier.state_dict(), model.backbone.state_dict()
    assert set(theirs) - set(ours) == {name for name in theirs if name.startswith(("head.", "norm."))}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("problem", ["variant", "channels", "missing", "damaged", "another model", "code"])
def test_weights_that_do_not_fit_are_refused_in_one_sentence(problem: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.manual_seed(1)
    released = export_released(create_model("biformer_tiny", num_classes=5, **NARROW))
    if problem == "variant":
        released = export_released(create_model("biformer_tiny", num_classes=5))
        words = r"another variant \(biformer_tiny, blocks 2-2-8-2.*choose the variant"
    elif problem == "channels":
        released = export_released(create_model("biformer_tiny", num_classes=5, in_chans=4, **NARROW))
        words = r"stem\.0\.weight \(16, 4, 3, 3\) instead of \(16, 3, 3, 3\)"
    elif problem == "missing":
        words = "no such file or folder, and no released weights"
    elif problem == "another model":
        released, words = {"conv.weight": torch.zeros(3, 3)}, "holds another model"
    elif problem == "code":
        released, words = {"model": Path("x")}, "instead of named tensors"
    else:
        words = "damaged"
    if problem != "missing":
        torch.save(released, path)
    if problem == "damaged":
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=words) as caught:
        narrow().load_classifier(path)
    assert "\n" not in str(caught.value)


def test_norms_have_no_weight_decay_and_nothing_is_left_out(model: DenseBiFormer) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = parameter_groups(model, 0.05)
    assert decayed["weight_decay"] == 0.05 and spared["weight_decay"] == 0.0
    assert all("norm" in names[id(p)] for p in spared["params"])
    assert not any("norm" in names[id(p)] for p in decayed["params"])
    assert sorted(names) == sorted(id(p) for group in (decayed, spared) for p in group["params"])
    (everything,) = parameter_groups(model, 0.05, without_decay=())
    assert len(everything["params"]) == len(names)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="no variant 'resnet'"):
        DenseBiFormer("resnet", num_regions=8)
    with pytest.raises(ValueError, match="BiFormer has no window"):
        DenseBiFormer(num_regions=8, window=7)
    with pytest.raises(ValueError, match="13 pixels are the least"):
        narrow()(torch.rand(1, 3, 12, 64))
