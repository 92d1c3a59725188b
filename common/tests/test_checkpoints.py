"""Foreign files are read without running anything from them; folders are strict and whole."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.checkpoints import load_strictly, read_tensors
from common.errors import UserError
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


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path, save) -> None:
    mark = tmp_path / "was_here"
    save({"state_dict": {"weight": torch.zeros(1)}, "extra": Hostile(mark)}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth: refused"):
        read_tensors(tmp_path / "net.pth")
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"refused.*Linear"):
        read_tensors(tmp_path / "net.pth")


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
