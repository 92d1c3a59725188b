"""The authors' published form: a pickled whole module, read without running anything from it."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import UserError
from essaformer import ESSAformer, convert_released, load_model
from essaformer.checkpoints import load_scaling, save_scaling
from essaformer.scaling import Scaling
from support.reference import ReferenceCase

CASE = ReferenceCase.load(Path(__file__).parent / "golden" / "essaformer_x2.npz")


class Hostile:
    """The usual unpickling of this object runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def nested(tensors: dict[str, Tensor], kind: type) -> nn.Module:
    """A module tree with these parameters, of a class that exists in no installed package."""
    root = kind()
    for name, value in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, kind())
            module = module._modules[part]
        module.register_parameter(last, nn.Parameter(value.clone()))
    return root


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network as the authors' `torch.save({"model": network, "epoch": n})` sees it."""
    module = types.ModuleType("authors_model")

    class ESSA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = lambda: None  # dropped before saving; a whole module carries such attributes

        def __getstate__(self):
            return {key: value for key, value in self.__dict__.items() if key != "activation"}

    ESSA.__module__, ESSA.__qualname__ = "authors_model", "ESSA"
    module.ESSA = ESSA
    monkeypatch.setitem(sys.modules, "authors_model", module)
    return nested({name: value.float() for name, value in CASE.state_dict.items()}, ESSA)


@pytest.fixture
def expected() -> dict[str, Tensor]:
    return {name: value.float() for name, value in convert_released(CASE.state_dict).items()}


@pytest.mark.parametrize("form", ["whole module", "data parallel", "tensors", "safetensors"])
def test_every_form_of_a_released_file_loads(
    form: str, released: nn.Module, expected: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "released.pth"
    tensors = {name: value.detach() for name, value in released.named_parameters()}
    if form == "whole module":
        torch.save({"epoch": 400, "model": released}, path)
    elif form == "data parallel":
        wrapper = type(released)()
        wrapper.add_module("module", released)
        torch.save({"epoch": 400, "model": wrapper}, path)
    elif form == "tensors":
        torch.save({"model": tensors}, path)
    else:
        path = tmp_path / "released.safetensors"
        save_file(tensors, path)
    monkeypatch.delitem(sys.modules, "authors_model")  # the reader must not need the authors' code
    model = load_model(path)
    assert not model.training and (model.bands, model.scale) == (31, 2)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_nothing_of_a_hostile_file_runs(released: nn.Module, expected: dict[str, Tensor], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    released.hook = Hostile(f"touch {ran}")
    path = tmp_path / "hostile.pth"
    torch.save({"optimizer": Hostile(f"touch {ran}"), "model": released}, path)
    model = load_model(path)
    assert not ran.exists()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    torch.load(path, weights_only=False)  # shows that the file is as hostile as it says
    assert ran.exists()


def test_a_hostile_file_without_a_network_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"model": Hostile(f"touch {ran}")}, tmp_path / "hostile.pth")
    with pytest.raises(UserError, match=r"hostile\.pth: holds a system instead of named tensors"):
        load_model(tmp_path / "hostile.pth")
    assert not ran.exists()


def test_a_tensor_that_claims_more_than_its_storage_is_refused(released: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "long.pth"

    class Lie:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (torch.zeros(2)._typed_storage(), 0, (10**9,), (1,), False, {})

    released.lie = Lie()
    torch.save({"model": released}, path)
    with pytest.raises(UserError, match=r"long\.pth: damaged"):
        load_model(path)


def test_converted_files_are_model_folders(verb, released: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": released}, tmp_path / "released.pth")
    verb("convert", "--checkpoint", tmp_path / "released.pth", "--output", tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model.safetensors",
        "config.json",
        "scaling.json",
    }
    x = torch.rand(1, 31, 6, 5)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")(x), load_model(tmp_path / "released.pth")(x))


def test_converting_keeps_the_scaling_and_replaces_nothing(verb, tmp_path: Path) -> None:
    save_scaling(Scaling("constant", 8_000), tmp_path / "model")
    ESSAformer(3, 8, 2).save_pretrained(tmp_path / "model")
    verb("convert", "--checkpoint", tmp_path / "model", "--output", tmp_path / "again")
    assert load_scaling(tmp_path / "again") == Scaling("constant", 8_000)
    done = verb("convert", "--checkpoint", tmp_path / "again", "--output", tmp_path / "model", status=2)
    assert "holds a model already" in done.stderr


def test_one_error_names_all_that_is_wrong() -> None:
    tensors = CASE.state_dict
    del tensors["blockup.convup.attn.ln.bias"]
    tensors["blockup.extra.weight"] = torch.zeros(2)
    tensors["conv_last.weight"] = torch.zeros(31, 32, 1, 1)
    with pytest.raises(UserError) as caught:
        convert_released(tensors)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("encode_up.attn.out.bias", "blockup.extra.weight", "conv_last.weight (31, 32, 1, 1)"):
        assert name in message


@pytest.mark.parametrize("content", [{"head.weight": torch.zeros(2, 2)}, {"conv_first.weight": torch.zeros(4)}])
def test_another_models_file_is_refused(content: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: holds another model"):
        load_model(tmp_path / "other.pth")


def test_missing_and_truncated_files_are_named(released: nn.Module, tmp_path: Path) -> None:
    for name in ("none.pth", "none"):
        with pytest.raises(UserError, match=f"{name}: no such"):
            load_model(tmp_path / name)
    torch.save({"model": released}, tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"half\.pth: "):
        load_model(tmp_path / "half.pth")


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    ESSAformer(3, 8, 2).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("ESSAformer", "FFTformer"))
    with pytest.raises(UserError, match="holds a FFTformer"):
        load_model(tmp_path)
