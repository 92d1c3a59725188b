"""A run writes a card into its model folder, at the end with scores; an edited card is not changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.networks.cards import publish, write_card
from common.results import Row
from toy_trainer import Toy


@pytest.fixture
def run(tmp_path: Path) -> Path:
    described = {
        "paper": "toy_lines",
        "config": {"preset": "demo", "data_root": "/data/lines"},
        "command": "python toy/train.py --seed 3",
        "commit": "0123abcd",
        "versions": {"python": "3.11", "torch": "2.11"},
        "device": "a CPU",
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    for name in ("model", "model_ema"):
        Toy().save_pretrained(tmp_path / name)
        write_card(tmp_path / name)
    return tmp_path


def row(preset: str, value: float) -> Row:
    common = {"paper": "toy", "dataset": "lines", "split": "test", "metric": "PSNR", "definition": "over all"}
    return Row(preset=preset, value=value, **common)


def test_the_card_says_what_it_is_and_then_how_good(run: Path) -> None:
    card = (run / "model/README.md").read_text()
    for words in ("# Toy, preset demo", "- data: lines", "`python toy/train.py --seed 3`", "0123abcd", "torch 2.11",
                  "licence: MIT", "`fullpaper-toy lines evaluate --checkpoint FOLDER`"):  # fmt: skip
        assert words in card
    publish(run, [row("demo", 31.25), row("demo_ema", 32.5)])
    for name, own, other in (("model", "31.25", "32.50"), ("model_ema", "32.50", "31.25")):
        card = (run / name / "README.md").read_text()
        assert own in card and other not in card and "- PSNR: over all" in card
    assert json.loads((run / "results.json").read_text())[1]["value"] == 32.5


def test_an_edited_card_is_left_alone(run: Path) -> None:
    card = run / "model/README.md"
    mine = card.read_text().replace("preset demo", "the best of all")
    card.write_text(mine)
    publish(run, [row("demo", 31.25)])
    assert card.read_text() == mine
    card.write_text("no mark at all")
    write_card(run / "model")
    assert card.read_text() == "no mark at all"
    card.unlink()
    write_card(run / "model")
    assert card.exists()
