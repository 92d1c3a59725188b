"""Foreign files are read without executing code in them; folders are complete and loaded strictly."""

from __future__ import annotations

import json
import pickle
import sys
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.errors import UserError
from common.networks.weights import beside, finite, load_network, load_strictly, locate, read_tensors
from toy_trainer import Toy


class Hostile:
    """Pickles to a call of os.system."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_published_forms_are_unwrapped(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = Toy().state_dict()
    content = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "net.pth")
    found = read_tensors(tmp_path / "net.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "net.safetensors")
    assert read_tensors(tmp_path / "net.safetensors")["a"].tolist() == [0, 1, 2]


class Arguments(dict):
    """A configuration of a class that the reader must not import."""


def legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("save", [torch.save, legacy, plain_pickle])
def test_training_checkpoints_of_others_give_their_tensors_and_nothing_of_them_runs(tmp_path: Path, save) -> None:
    mark = tmp_path / "was_here"
    weights = {
        "a": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.tensor(3, dtype=torch.int64),
        "half": torch.ones(2).half(),
    }
    weights["shared"] = weights["a"][1:]
    state = defaultdict(dict, weights)
    arguments = Arguments(lr=0.1)
    arguments.note = "an attribute"
    content = {
        "model": state, "model_ema": OrderedDict(weights), "args": Namespace(batch=3, hook=Hostile(mark)),
        "config": arguments, "best": np.float64(33.1), "scores": np.arange(3), "epoch": 3, "path": Path("x"),
        "optimizer": torch.optim.Adam([nn.Parameter(torch.zeros(1))]).state_dict(), "extra": Hostile(mark),
    }  # fmt: skip
    save(content, tmp_path / "net.pth")
    imported = set(sys.modules)
    for keys in (("model",), ("model_ema",)):
        found = read_tensors(tmp_path / "net.pth", keys)
        assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
            name: (value.dtype, value.tolist()) for name, value in weights.items()
        }
    with pytest.raises(UserError, match="holds no average or mean"):
        read_tensors(tmp_path / "net.pth", ("average", "mean"))
    assert not mark.exists()
    assert set(sys.modules) == imported


@pytest.mark.parametrize("save", [torch.save, legacy])
def test_a_whole_pickled_module_gives_its_tensors(tmp_path: Path, save) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    for content in (module, {"net": nn.DataParallel(module), "epoch": 2}):
        save(content, tmp_path / "net.pth")
        found = read_tensors(tmp_path / "net.pth")
        assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
        assert found.keys() == module.state_dict().keys()


def test_a_hostile_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Hostile(tmp_path / "was_here")}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth: holds a system instead of named tensors"):
        read_tensors(tmp_path / "net.pth")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"net\.pt: damaged or not a checkpoint \(it holds a TorchScript program\)"):
        read_tensors(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.SAFETENSORS", "net", "net.bin"])
def test_content_decides_not_the_suffix(tmp_path: Path, name: str) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / name)
    assert read_tensors(tmp_path / name)["a"].tolist() == [0, 1, 2]
    torch.save({"a": torch.arange(4)}, tmp_path / "file")
    assert read_tensors(tmp_path / "file")["a"].tolist() == [0, 1, 2, 3]


def test_every_name_of_a_checkpoint_finds_it(tmp_path: Path) -> None:
    model = Toy(width=5).eval()
    model.save_pretrained(tmp_path / "run/model")
    torch.save(model.state_dict(), tmp_path / "released")

    def from_released(tensors, source: str) -> Toy:
        assert source == str(tmp_path / "released")
        toy = Toy(width=5)
        load_strictly(toy, tensors, source)
        return toy

    for name in ("run", "run/model", "run/model/model.safetensors", "released"):
        found = load_network(tmp_path / name, Toy, from_released)
        assert not found.training
        assert torch.equal(found.net[0].weight, model.net[0].weight)
    with pytest.raises(UserError, match=r"absent: no such file or folder, and no released weights; known names:"):
        load_network(tmp_path / "absent", Toy, from_released)


COMMIT = "0123abcd" * 5


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache without a network, as a download leaves it: one snapshot of one model."""
    from huggingface_hub import constants

    cached = tmp_path / "hub/models--somebody--toy"
    Toy(width=5).save_pretrained(cached / f"snapshots/{COMMIT}")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cached / f"snapshots/{COMMIT}"


def test_a_name_on_the_hub_is_as_good_as_a_folder(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Toy.from_pretrained(hub).net[0].weight
    assert locate("somebody/toy") == hub
    assert beside(hub) == Path("runs/models--somebody--toy") and beside(tmp_path / "run/model") == tmp_path / "run"
    refuse = pytest.fail  # nothing here is a released file
    for found in (
        Toy.from_pretrained("somebody/toy"),
        Toy.from_pretrained("somebody/toy", revision=COMMIT, width=5),
        load_network("somebody/toy", Toy, lambda *_: refuse("a released file")),
    ):
        assert torch.equal(found.net[0].weight, expected) and not found.training
    for name in ("somebody/other", "some body/other"):
        with pytest.raises(
            UserError, match=rf"^{name}: no such folder here, and the Hugging Face hub gives no"
        ) as caught:
            locate(name)
        assert "\n" not in str(caught.value)
    # Without its cache the hub cannot be reached.
    with pytest.raises(UserError, match="somebody/toy: no such folder here, and the Hugging Face hub"):
        Toy.from_pretrained("somebody/toy", cache_dir=tmp_path / "empty")


def test_keywords_replace_the_recorded_ones(tmp_path: Path) -> None:
    Toy(width=5).save_pretrained(tmp_path)
    assert Toy.from_pretrained(tmp_path, width=5).net[0].out_features == 5
    with pytest.raises(UserError, match="of another shape"):
        Toy.from_pretrained(tmp_path, width=6)
    with pytest.raises(UserError, match=r"does not describe a Toy .*depth"):
        Toy.from_pretrained(tmp_path, depth=3)


def test_damaged_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    torch.save(Toy().state_dict(), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "half.safetensors").write_bytes(b"\x10")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"params": {"a": torch.zeros(1), "lr": 0.1}}, tmp_path / "mixed.pth")
    for name, problem in {
        "half.pth": "damaged",
        "half.safetensors": "damaged",
        "absent.pth": "no such file",
        "list.pth": "holds a list",
        "mixed.pth": "no tensors \\(lr\\)",
    }.items():
        with pytest.raises(UserError, match=problem) as error:
            read_tensors(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_folder_returns_the_same_network(tmp_path: Path) -> None:
    model = Toy(width=5).eval()
    model.save_pretrained(tmp_path)
    again = Toy.from_pretrained(tmp_path)
    x = torch.randn(4, 3)
    assert torch.equal(model(x), again(x))
    assert json.loads((tmp_path / "config.json").read_text()) == {"architecture": "Toy", "width": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_of_another_model_or_half_a_folder_is_refused(tmp_path: Path) -> None:
    Toy(width=5).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    for content, problem in {
        '{"architecture": "Other"}': "holds a Other, expected a Toy",
        '{"architecture": "Toy", "depth": 3}': "does not describe a Toy",
        '{"architecture": "Toy", "width": 6}': "of another shape",
        '{"architecture": "Toy", "width": -6}': "does not describe a Toy",
        "[]": "holds a list, expected the network's arguments",
        "{": "not valid JSON",
    }.items():
        config.write_text(content)
        with pytest.raises(UserError, match=problem):
            Toy.from_pretrained(tmp_path)
    config.unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        Toy.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        Toy.from_pretrained(tmp_path / "absent")


def test_loading_lists_every_problem_in_one_sentence() -> None:
    tensors = Toy().state_dict()
    tensors["surplus"] = tensors.pop("net.0.bias")
    tensors["net.3.weight"] = torch.zeros(2, 2)
    with pytest.raises(UserError) as error:
        load_strictly(Toy(), tensors, "net.pth")
    for part in ("1 missing (net.0.bias)", "1 unexpected (surplus)", "net.3.weight (2, 2) instead of (1, 8)"):
        assert part in str(error.value)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_refused(kind: torch.dtype) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in Toy().state_dict().items()}
    name = str(kind).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"does not fit Toy: \d of no float type \(net.0.weight {name}"):
        load_strictly(Toy(), tensors, "net.pth")


def test_wrappers_around_single_modules_are_taken_off(tmp_path: Path) -> None:
    wrapped = {
        "module.net._orig_mod.0.weight": torch.ones(1),
        "_fsdp_wrapped_module.a._orig_mod.module.b": torch.ones(1),
    }
    torch.save(wrapped, tmp_path / "net.pth")
    assert set(read_tensors(tmp_path / "net.pth")) == {"net.0.weight", "a.module.b"}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_of_a_diverged_training_are_refused(value: float) -> None:
    tensors = {name: tensor.clone() for name, tensor in Toy().state_dict().items()}
    tensors["net.0.bias"][0] = value
    with pytest.raises(UserError, match=r"net.pth: 1 tensors hold NaN or infinity \(net.0.bias\)"):
        load_strictly(Toy(), tensors, "net.pth")
    with pytest.raises(UserError, match="the network returned infinite or undefined values"):
        finite(tensors["net.0.bias"])
