"""The network: sizes, timm's interface for models, saving, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import biformer
from biformer import BiFormer, create_model, list_models
from biformer.published import PARAMETERS
from biformer.variants import name_of
from common.errors import UserError

SMALL = {"depths": (1, 1, 2, 1), "dims": (32, 64, 128, 256), "num_classes": 7, "num_regions": 4}


@pytest.fixture(params=["overlapping", "patches"])
def model(request: pytest.FixtureRequest) -> BiFormer:
    torch.manual_seed(0)
    overlapping = request.param == "overlapping"
    model = BiFormer(**SMALL, overlapping=overlapping, position=overlapping).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return model


@pytest.mark.parametrize("name", list_models())
def test_parameters_are_the_released_ones(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert name_of(model) == name


@pytest.mark.parametrize("name", list_models())
def test_timm_builds_every_variant_with_its_configuration(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3, in_chans=5, drop_path_rate=0.2, global_pool="avgmax")
    assert type(model) is BiFormer and timm.is_model(name)
    cfg = model.pretrained_cfg
    state = model.state_dict()
    assert f"{cfg['classifier']}.weight" in state and f"{cfg['first_conv']}.weight" in state
    assert state["head.fc.weight"].shape[0] == 3 and state["stem.0.weight"].shape[1] == 5
    assert cfg["input_size"] == (3, 224, 224) and cfg["crop_pct"] == 0.875 and cfg["interpolation"] == "bicubic"
    assert "onedrive" in cfg["url"]
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates[-1] == pytest.approx(0.2) and rates == sorted(rates)


def test_timm_loads_released_tensors_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = create_model("biformer_tiny", num_classes=1000)
    torch.save({"model": biformer.export_released(ours)}, tmp_path / "released.pth")
    loaded = timm.create_model(
        "biformer_tiny", pretrained=True, num_classes=4, pretrained_cfg_overlay={"file": str(tmp_path / "released.pth")}
    )
    theirs = loaded.state_dict()
    assert theirs["head.fc.weight"].shape[0] == 4
    assert all(torch.equal(theirs[name], value) for name, value in ours.state_dict().items() if "head" not in name)


def test_features_only_gives_four_maps_with_their_channels_and_reductions() -> None:
    model = timm.create_model("biformer_tiny", features_only=True).eval()
    assert model.feature_info.channels() == [64, 128, 256, 512]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    with torch.no_grad():
        maps = model(torch.rand(1, 3, 70, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 18, 16), (128, 9, 8), (256, 5, 4), (512, 3, 2)]
    two = timm.create_model("biformer_tiny", features_only=True, out_indices=(0, 2)).eval()
    assert two.feature_info.channels() == [64, 256] and len(two(torch.rand(1, 3, 64, 64))) == 2
    assert not any(name.startswith("model.stages.3") for name in two.state_dict())


def test_every_parameter_receives_a_gradient(model: BiFormer) -> None:
    model.train()(torch.rand(2, 3, 64, 64)).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_gradient_checkpointing_changes_no_gradient(model: BiFormer) -> None:
    x = torch.rand(2, 3, 64, 64)
    gradients = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_intermediates_are_the_features(model: BiFormer) -> None:
    x = torch.rand(2, 3, 48, 80)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert [m.shape[1] for m in maps] == [32, 64, 128, 256]
        assert torch.equal(model.norm(maps[-1]), final)
        (second,) = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        assert torch.equal(second, maps[1])
        normed = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        assert torch.equal(normed[0], final)
        assert torch.equal(model.forward_head(final), model(x))
        assert model.forward_head(final, pre_logits=True).shape == (2, 256)
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(x, output_fmt="NHWC")


def test_the_classifier_can_be_replaced_and_removed(model: BiFormer, tmp_path: Path) -> None:
    x = torch.rand(2, 3, 64, 64)
    model.reset_classifier(11)
    assert model(x).shape == (2, 11) and model.get_classifier().out_features == 11
    model.save_pretrained(tmp_path)
    assert torch.equal(BiFormer.from_pretrained(tmp_path)(x), model(x))
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, 256, 2, 2)


def test_other_channels_and_no_classes() -> None:
    assert BiFormer(**SMALL | {"num_classes": 0}, in_chans=5)(torch.rand(1, 5, 64, 64)).shape == (1, 256)


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 129)])
def test_a_batch_gives_the_same_as_single_images(model: BiFormer, size: tuple[int, int]) -> None:
    x = torch.rand(3, 3, *size, dtype=torch.float64)
    model = model.double()
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def test_patches_at_the_border_are_not_lost() -> None:
    """Without padding a 4 x 4 patch stem would ignore the last rows and columns of 66 pixels."""
    model = BiFormer(**SMALL, overlapping=False, position=False).eval()
    x = torch.rand(1, 3, 66, 66)
    other = x.clone()
    other[..., -1, -1] += 10
    with torch.no_grad():
        assert not torch.equal(model(x), model(other))


def test_drop_path_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = BiFormer(**SMALL, drop_path_rate=0.9).eval()
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(model(x), model(x))


def test_autocast_stays_near_single_precision(model: BiFormer) -> None:
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x).float()
    assert half.isfinite().all() and (half - exact).norm() < 0.1 * exact.norm()


def test_norms_and_biases_have_no_decay_and_layers_their_own_rate(model: BiFormer) -> None:
    groups = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5).param_groups
    where = {id(parameter): group for group in groups for parameter in group["params"]}
    scales: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        group = where[id(parameter)]
        assert (group["weight_decay"] > 0) == (parameter.ndim > 1), name
        scales[name] = group["lr_scale"]
    assert (
        scales["stem.0.weight"]
        < scales["stages.0.blocks.0.mlp.fc1.weight"]
        < scales["stages.3.blocks.0.mlp.fc1.weight"]
    )
    assert scales["head.fc.weight"] == 1.0 and scales["norm.weight"] < 1.0
    assert model.no_weight_decay() == set()


def test_saved_and_loaded_it_computes_the_same(tmp_path: Path) -> None:
    model = BiFormer(**SMALL, class_names=list("abcdefg"), image_size=64, crop_pct=1.0).eval()
    model.save_pretrained(tmp_path)
    loaded = BiFormer.from_pretrained(tmp_path)
    assert (loaded.class_names, loaded.image_size, loaded.crop_pct) == (list("abcdefg"), 64, 1.0)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x)) and not loaded.training


def test_a_folder_of_another_project_is_refused(tmp_path: Path) -> None:
    BiFormer(**SMALL).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"BiFormer"', '"FFTformer"'))
    with pytest.raises(UserError, match="holds a FFTformer, expected a BiFormer"):
        BiFormer.from_pretrained(tmp_path)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no variant 'biformer_huge'; there are biformer_tiny"):
        create_model("biformer_huge")
    with pytest.raises(ValueError, match=r"no widths; its keywords are .*dims"):
        create_model("biformer_tiny", widths=3)
    with pytest.raises(ValueError, match="four depths"):
        BiFormer(depths=(1, 2, 3))
    with pytest.raises(ValueError, match="2 class_names for 3 classes"):
        BiFormer(num_classes=3, class_names=["a", "b"])


def test_an_image_smaller_than_the_region_grid_is_refused() -> None:
    model = BiFormer(depths=(1, 1, 1, 1), dims=(32, 64, 128, 256), num_classes=2).eval()
    with pytest.raises(
        ValueError,
        match=r"24x40 pixels is smaller than the grid of its first map, 7x7 regions; 25 pixels are the least",
    ):
        model(torch.rand(1, 3, 24, 40))
    with torch.no_grad():
        logits: Tensor = model(torch.rand(1, 3, 25, 25))
    assert logits.isfinite().all()
