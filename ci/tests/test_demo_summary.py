"""The demos' summary shows their results, and names demos without results."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import demo_summary
from common.results import Row, write_rows
from demo_summary import DEMOS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The files of demos that the summary reads."""
    for name, demo in DEMOS.items():
        folder, paper = tmp_path / name, demo.paper
        shared: dict[str, Any] = {"paper": paper, "dataset": "made up", "split": "test", "definition": ""}
        rows = [Row(preset="demo", metric=metric, value=90.5, **shared) for metric in demo.metrics]
        if paper in ("essaformer", "fftformer"):
            rows += [Row(preset="nothing done", metric=metric, value=80.25, **shared) for metric in demo.metrics]
        write_rows(folder / demo.rows, rows)
        (folder / demo.picture).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 120), "green").save(folder / demo.picture)
    for paper in ("lsgavit", "amgcfn"):
        scores = next((tmp_path / f"{paper}_demo").glob("seed_*")) / "scores.json"
        scores.write_text(json.dumps({"confusion": [[20, 10], [5, 5]]}))
    (tmp_path / "biformer_demo/model").mkdir()
    (tmp_path / "biformer_demo/model/config.json").write_text(json.dumps({"class_names": ["a", "b", "c", "d"]}))
    return tmp_path


def summary(runs: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["demo_summary.py", "--runs", str(runs), *arguments])
    with pytest.raises(SystemExit) as end:
        demo_summary.main()
    assert Image.open(runs / "demo.png").width > 1000
    return int(end.value.code or 0), (runs / "demo.md").read_text()


def test_measured_stands_beside_the_baseline(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = summary(runs, monkeypatch)
    assert status == 0
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "made up" in line]
    first = {line[0]: line[:5] for line in found}
    for expected in [
        ["ESSAformer", "made up", "PSNR (dB)", "90.50", "80.25 nothing done"],
        ["FFTformer", "made up", "PSNR (dB)", "90.50", "80.25 nothing done"],
        ["LSGA-ViT", "made up", "OA", "90.50", "75.00 largest class"],
        ["AMGCFN", "made up", "OA", "90.50", "75.00 largest class"],
        ["BiFormer", "made up", "top-1", "90.50", "25.00 guessing"],
        ["BiFormer, Semantic FPN", "made up", "mIoU", "90.50", ""],
        ["BiFormer, Mask R-CNN", "made up", "box AP50", "90.50", ""],
    ]:
        assert first[expected[0]] == expected


@pytest.mark.parametrize("how", ["failed just now", "left no rows"])
def test_a_demo_without_result_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "left no rows":
        (runs / "amgcfn_demo/evaluation.json").unlink()
        status, text = summary(runs, monkeypatch)
    else:
        status, text = summary(runs, monkeypatch, "--failed", "amgcfn")
    assert status == 1
    assert re.search(r"\| AMGCFN +\| \*\*no result\*\*", text) and "amgcfn" in text
    assert text.count("90.50") == sum(len(demo.metrics) for demo in DEMOS.values()) - 2


def test_published_values_are_the_projects_own() -> None:
    for demo in DEMOS.values():
        if demo.published:
            value, on = demo.published.split(", ")
            paper = demo.paper
            texts = [path.read_text() for path in (ROOT / paper / "src" / paper).rglob("published.py")]
            found = [text.lower().replace(" ", "_") for text in texts if value in text]
            assert any(on.lower().replace(" ", "_") in text for text in found), f"{paper}: {demo.published}"
