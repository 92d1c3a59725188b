"""The tables of the READMEs agree with the rows, and every row has its provenance."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import tables
from common.results import Row

ROW: dict[str, Any] = {
    "paper": "mine", "preset": "small_scene", "dataset": "small scene", "split": "test", "metric": "OA",
    "definition": "right pixels, percent", "value": 97.5, "std": 0.25, "seeds": [1, 2], "published": 97.0,
    "source": "the released code", "command": "python mine/train.py", "commit": "0123abc",
    "versions": {"torch": "2.15.0"}, "device": "a processor, 2 threads",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one project with one row, its table not yet written."""
    folder = tmp_path / "mine"
    (folder / "src/mine").mkdir(parents=True)
    (folder / "src/mine/presets.py").write_text("def small_scene() -> Config:\n    ...\n")
    (folder / "README.md").write_text("# Mine\n\n<!-- rows: results/one.json -->\n<!-- end of rows -->\n\nThe end.\n")
    put(folder, ROW)
    (tmp_path / "README.md").write_text("# All\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    return folder


def put(folder: Path, *rows: dict[str, Any], name: str = "one") -> None:
    (folder / "results").mkdir(exist_ok=True)
    (folder / f"results/{name}.json").write_text(json.dumps(rows))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tables.py", *arguments])
    try:
        tables.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_written_tables_pass_and_say_what_was_measured(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
    assert run(monkeypatch, "--check") == 0
    lines = (project / "README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert cells[0] == ["data set", "split", "", "OA"]
    assert cells[2:] == [
        ["small scene", "test", "the released code", "97.00"],
        ["", "", "**ours**", "97.50 ± 0.25"],
        ["", "", "*difference*", "+0.50"],
    ]
    assert "- OA: right pixels, percent" in lines and lines[-1] == "The end."


def test_the_front_page_has_a_row_of_every_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headline = {"job": "naming pixels", "data": "a small scene", "rows": "results/one.json", "preset": "small_scene"}
    headline |= {"metric": "OA", "baseline": "guessing", "published": "97 %"}
    monkeypatch.setattr(tables, "PROJECTS", {"mine": {"headline": headline}})
    front = project.parent / "README.md"
    front.write_text("<!-- headlines -->\n<!-- end of headlines -->\n")
    put(project, ROW, ROW | {"preset": "guessing", "value": 50.0, "std": None})
    assert run(monkeypatch) == 0
    cells = [cell.strip() for cell in front.read_text().splitlines()[3].split("|")[1:-1]]
    assert cells[1:] == [
        "naming pixels", "a small scene", "OA: **97.5 ± 0.2** (guessing 50.0)", "a processor, 2 threads", "97 %",
    ]  # fmt: skip
    put(project, ROW | {"preset": "other"})
    assert run(monkeypatch) == 2


def test_a_stale_table_fails_and_stays_as_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    text = (project / "README.md").read_text()
    put(project, ROW | {"value": 97.6})
    assert run(monkeypatch, "--check") == 2
    assert "mine/README.md" in capsys.readouterr().err
    assert (project / "README.md").read_text() == text
    assert run(monkeypatch) == 0
    assert "97.60 ± 0.25" in (project / "README.md").read_text()


@pytest.mark.parametrize("part", tables.PROVENANCE)
def test_a_row_without_its_origin_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    put(project, {name: value for name, value in ROW.items() if name != part})
    assert run(monkeypatch) == 2
    assert f"lacks {part}" in capsys.readouterr().err


def test_released_weights_have_no_seeds(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project, {name: value for name, value in ROW.items() if name != "seeds"} | {"preset": "released"})
    assert run(monkeypatch) == 0


def test_a_row_of_a_modified_checkout_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(project, ROW | {"commit": "0123abc+changes"})
    assert run(monkeypatch) == 2
    assert "modified checkout" in capsys.readouterr().err


def test_a_file_that_no_table_names_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(project, ROW, name="two")
    assert run(monkeypatch, "--check") == 2
    assert "names two.json" in capsys.readouterr().err


def test_a_file_for_comparing_holds_all_rows_of_a_data_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = project.with_name("other")
    other.mkdir()
    (other / "README.md").write_text("<!-- rows: results/one.json -->\n<!-- end of rows -->\n")
    put(other, ROW | {"paper": "other", "preset": "theirs", "value": 90.0}, ROW | {"dataset": "Wide scene ×2, σ 5"})
    run(monkeypatch)
    found = project.with_name("results")
    assert {path.name for path in found.iterdir()} == {"small_scene.csv", "wide_scene_x2_sigma_5.csv"}
    with (found / "small_scene.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["project"], line["method or preset"], line["value"]) for line in lines] == [
        ("mine", "small_scene", "97.5"), ("other", "theirs", "90.0")
    ]  # fmt: skip
    assert (lines[0]["seeds"], lines[0]["command"], lines[0]["commit"]) == ("1 2", "python mine/train.py", "0123abc")
    put(other, ROW | {"paper": "other"})
    assert run(monkeypatch, "--check") == 2
    assert run(monkeypatch) == 0
    assert [path.name for path in found.iterdir()] == ["small_scene.csv"]


def test_baselines_stand_above_and_presets_are_named_where_that_says_more() -> None:
    rows = [ROW, ROW | {"preset": "bicubic", "published": None}, ROW | {"preset": "released_form_ema"}]
    text = tables.tables([tables.Row(**row) for row in rows], {"small_scene", "released_form"})
    names = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| ")]
    assert names[2] == "bicubic"
    assert [name for name in names if name.startswith("**")] == [
        "**ours**",
        "**ours, preset released_form, averaged weights**",
    ]


def test_what_a_long_split_holds_stands_below() -> None:
    split = "stratified 10 %, 534/0/4,814 train/validation/test, every window"
    text = tables.tables([tables.Row(**(ROW | {"split": split}))], {"small_scene"})
    assert "| stratified 10 % |" in text
    assert "- small scene, stratified 10 %: 534/0/4,814 train/validation/test, every window" in text


def test_a_page_that_compares_calls_rows_by_their_paper() -> None:
    rows = [
        ROW | {"preset": "SVM", "paper": "rivals", "published": None},
        ROW | {"paper": "lsgavit", "split": "test; random"},
    ]
    text = tables.tables([tables.Row(**(ROW | row)) for row in rows], set(), guests=True)
    names = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| ")]
    assert names[2:] == ["SVM", "**[lsgavit](../lsgavit/README.md)**"]


def test_two_rows_for_one_cell_fail() -> None:
    rows = [tables.Row(**ROW), tables.Row(**(ROW | {"value": 1.0}))]
    with pytest.raises(tables.UserError, match="two rows for OA"):
        tables.tables(rows, {"small_scene"})


def test_definitions_name_their_data_sets_where_they_differ() -> None:
    def row(dataset: str, metric: str, definition: str) -> Row:
        return Row(**ROW | {"dataset": dataset, "metric": metric, "definition": definition})

    same = [row("one", "OA", "right pixels"), row("two", "OA", "right pixels")]
    assert tables.definitions(same) == ["- OA: right pixels"]
    differing = [row("one", "SSIM", "7 x 7"), row("two", "SSIM", "11 x 11")]
    assert tables.definitions(differing) == ["- SSIM, one: 7 x 7", "- SSIM, two: 11 x 11"]
    both = [row("one", "SSIM", "protocol a"), row("one", "SSIM", "protocol b")]
    assert tables.definitions(both) == ["- SSIM: protocol a", "- SSIM: protocol b"]
