"""Ablations: flags passed to the trainer, rows over seeds, operations counted by hand, networks from KEY=VALUE."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common.config import build
from common.errors import UserError
from common.measuring import ablation
from common.results import Row, digits, read_rows

VARIANTS = {"whole": ("whole (released)", ()), "half": ("half", ("--size", "2"))}
TRAIN = """
import sys
from pathlib import Path
from common.results import Row, write_rows
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
seed, size, folder = int(flags["--seed"]), int(flags.get("--size", "4")), Path(flags["--output"])
(folder / "model").mkdir(parents=True)
(folder / "model/model.safetensors").write_text(str(size))
shared = dict(paper="toy", dataset="toys", split="test", definition="its size", seeds=[seed], published=4.0, source="s")
rows = [Row(preset=flags["--preset"], metric="size", value=size + seed, **shared)]
write_rows(folder / "results.json", [*rows, Row(preset="other", metric="size", value=100.0, **shared)])
"""


def small(folder: Path) -> nn.Module:
    """The network of the toy trainer."""
    return nn.Sequential(nn.Linear(3, int((folder / "model.safetensors").read_text())), nn.BatchNorm1d(1))


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[Row]:
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ablation.py"), *flags, "--output", str(tmp_path / "runs")])
    example = lambda _: (torch.rand(5, 1, 3),)  # noqa: E731
    ablation.ablate("A toy.", VARIANTS, load=small, example=example, metrics=("size",), seeds=(1,))
    return read_rows(tmp_path / "runs/results.json")


def test_flags_go_on_and_rows_are_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path, monkeypatch, "--preset", "tiny", "--seeds", "1", "3")
    whole, half = (next(r for r in rows if r.preset == name and r.metric == "size") for name, _ in VARIANTS.values())
    assert (whole.value, whole.std, whole.seeds) == (6.0, 1.0, [1, 3])
    assert (half.value, half.std) == (4.0, 1.0)
    assert "standard deviation over seeds" in whole.definition
    assert len([row for row in rows if row.metric == "size"]) == len(VARIANTS)
    # What is published belongs to the full recipe; baselines of a run take no part.
    assert all(row.published is None and row.source is None for row in rows)
    assert {row.preset for row in rows} == {"whole (released)", "half"}


def test_costs_are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path, monkeypatch, "--preset", "tiny", "--variants", "half")
    found = {row.metric: row.value for row in rows}
    assert found["parameters"] == 3 * 2 + 2 + 2
    assert found["multiply-adds (M)"] == pytest.approx(5 * 3 * 2 / 1e6)
    assert found["step (ms)"] > 0 and found["forward (ms)"] > 0
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    wrapped = type("Own", (nn.Module,), {"forward": lambda self, x: self.inner(x, x, x)[0]})()
    wrapped.inner = attention
    # Three projections and the output's, and two products of 7 × 7 × 8.
    assert ablation.multiply_adds(wrapped, (torch.rand(1, 7, 8),)) * 1e6 == 4 * 7 * 8 * 8 + 2 * 7 * 7 * 8


def test_a_training_that_ends_ends_the_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TRAIN", "import sys; sys.exit(3)")
    with pytest.raises(SystemExit, match="3"):
        run(tmp_path, monkeypatch, "--preset", "tiny")
    with pytest.raises(UserError, match="--variants third: unknown; choose among whole, half"):
        run(tmp_path, monkeypatch, "--variants", "third")


def test_networks_from_key_and_value() -> None:
    def create(name: str, *, dim: int = 1, kind: str | None = "a", sizes: tuple[int, ...] = ()) -> tuple:
        if dim < 0:
            raise ValueError("dim must be positive")
        return name, dim, kind, sizes

    assert build(create, "n", (), dim=2) == ("n", 2, "a", ())
    assert build(create, "n", ("dim=3", "kind=b", "sizes=(1, 2)"), dim=2) == ("n", 3, "b", (1, 2))
    assert build(create, "n", ("kind=None",)) == ("n", 1, None, ())
    for options, message in (
        (("dim",), "--network dim: expected KEY=VALUE"),
        (("dim=-1",), "cannot be built: dim must be positive"),
        (("depth=1",), "cannot be built: .*depth"),
    ):
        with pytest.raises(UserError, match=message):
            build(create, "n", options)


def test_digits_of_a_column() -> None:
    assert [digits(x) for x in ([0.5, -3.0], [9.0, -12.5], [2.0, 1000.0])] == [4, 2, 0]
    assert math.isclose(float(f"{0.97123:.{digits([0.97123])}f}"), 0.9712)
