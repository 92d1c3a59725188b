"""Results after a kill: complete lines are used, incomplete ones are not, and other flags are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from biformer.journal import Journal
from common.errors import UserError
from toy_trainer import Toy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    Toy().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_an_incomplete_line_is_computed_again_and_the_order_is_the_folders(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out/found.json"
    first, second = (Journal(output, model, {"top": 2}, "refuse") for _ in range(2))
    first.add("c", {"of": "c"}, 0)
    first.add("b", [1.5, "ü"], 0)
    second.add("a", {"of": "a"}, 1)
    whole = first.files[0].read_bytes()
    for cut in range(len(whole)):
        first.files[0].write_bytes(whole[:cut])
        again = Journal(output, model, {"top": 2}, "skip")
        lost = [name for name in "abc" if name not in again.places]
        assert "a" not in lost, "the other process's"
        for name in lost:
            again.add(name, [1.5, "ü"] if name == "b" else {"of": name}, 0)
        assert list(again.results("abcd")) == [("a", {"of": "a"}), ("b", [1.5, "ü"]), ("c", {"of": "c"})]
    again.remove()
    assert list(output.parent.iterdir()) == []


def test_other_flags_or_weights_are_refused_and_replaced_on_request(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    Journal(output, model, {"top": 2}, "refuse").add("a", 1, 0)
    with pytest.raises(UserError, match="of another model or other flags"):
        Journal(output, model, {"top": 3}, "skip")
    Toy(width=5).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="of another model or other flags"):
        Journal(output, model, {"top": 2}, "skip")
    assert not Journal(output, model, {"top": 3}, "replace").places
