"""Loading and exporting weights in the authors' form, and errors for other files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from biformer import BiFormer, convert_released, create_model, export_released, load_model
from biformer.finetuning import starting_model
from biformer.presets import Config
from common.errors import UserError

NARROW = {"depths": (1, 1, 2, 1), "dims": (32, 64, 128, 256), "num_classes": 5}


@pytest.fixture(params=["overlapping", "patches"])
def model(request: pytest.FixtureRequest) -> BiFormer:
    torch.manual_seed(0)
    overlapping = request.param == "overlapping"
    return BiFormer(**NARROW, overlapping=overlapping, position=overlapping, mlp_ratio=3 if overlapping else 4).eval()


@pytest.mark.parametrize("form", ["plain", "model", "data_parallel", "safetensors", "folder"])
def test_every_form_of_a_checkpoint_loads(model: BiFormer, form: str, tmp_path: Path) -> None:
    path, released = tmp_path / "biformer.pth", export_released(model)
    if form == "plain":
        torch.save(released, path)
    elif form == "model":
        torch.save({"model": released, "epoch": 299}, path)
    elif form == "data_parallel":
        torch.save({f"module.{name}": value for name, value in released.items()}, path)
    elif form == "safetensors":
        path = tmp_path / "biformer.safetensors"
        save_file(released, path)
    else:
        path = tmp_path / "model"
        model.save_pretrained(path)
    loaded = load_model(path)
    x = torch.rand(1, 3, 56, 60)
    with torch.no_grad():
        assert not loaded.training and torch.equal(loaded(x), model(x))


def test_raw_or_averaged_weights_can_be_selected(model: BiFormer, tmp_path: Path) -> None:
    raw = export_released(model)
    averaged = {f"module.{name}": value + 1 for name, value in raw.items() if value.is_floating_point()}
    averaged |= {f"module.{name}": value for name, value in raw.items() if not value.is_floating_point()}
    torch.save({"model": raw, "model_ema": averaged}, tmp_path / "both.pth")
    one, other = load_model(tmp_path / "both.pth"), load_model(tmp_path / "both.pth", ema=True)
    assert torch.equal(one.head.fc.weight, model.head.fc.weight)
    assert torch.equal(other.head.fc.weight, model.head.fc.weight + 1)
    torch.save({"model": raw}, tmp_path / "raw.pth")
    with pytest.raises(UserError, match=r"raw\.pth: holds no model_ema or state_dict_ema"):
        load_model(tmp_path / "raw.pth", ema=True)


def test_one_error_names_all_wrong_tensors(model: BiFormer) -> None:
    released = export_released(model)
    del released["norm.bias"]
    released["stages.0.gamma"] = torch.zeros(2)
    released["head.bias"] = torch.zeros(9)
    with pytest.raises(UserError) as caught:
        convert_released(released)
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in ("norm.bias", "stages.0.gamma", "head.fc.bias (9,) instead of (5,)"))


@pytest.mark.parametrize(
    "tensors", [{"conv.weight": torch.zeros(3, 3)}, {"downsample_layers.0.0.weight": torch.zeros(4)}]
)
def test_another_models_file_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: holds another model"):
        load_model(tmp_path / "other.pth")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("none.pth", "none"):
        with pytest.raises(UserError, match=f"{name}: no such"):
            load_model(tmp_path / name)


def test_training_starts_from_given_weights_with_a_fitting_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = create_model("biformer_tiny", num_classes=3, class_names=["a", "b", "c"])
    source.save_pretrained(tmp_path)
    config = Config(model="biformer_tiny", weights=tmp_path)
    same, other = starting_model(config, ["a", "b", "c"]), starting_model(config, ["a", "b", "d"])
    for name, value in source.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        assert torch.equal(other.state_dict()[name], value) == (name != "head.fc.weight"), name
    assert other.class_names == ["a", "b", "d"]


def test_weights_of_another_variant_are_refused_with_both_sizes(tmp_path: Path) -> None:
    create_model("biformer_tiny", num_classes=3).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"another variant \(blocks 2-2-8-2, .*biformer_small \(blocks 4-4-18-4"):
        starting_model(Config(model="biformer_small", weights=tmp_path), ["a", "b", "c"])
    with pytest.raises(UserError, match="no variant 'biformer_huge'"):
        starting_model(Config(model="biformer_huge"), ["a", "b"])
