"""Rows keep their provenance; unmeasured and unpublished cells of tables are empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.results import Row, measured, read_rows, table, write_rows

ROW = Row(
    paper="toy",
    preset="demo",
    dataset="GoPro",
    split="test",
    metric="PSNR (dB)",
    definition="mean",
    value=30.126,
    published=34.21,
    source="the paper",
)


def test_rows_survive_the_file_and_carry_their_origin(tmp_path: Path) -> None:
    rows = measured([ROW], "cpu")
    write_rows(tmp_path / "results.json", rows)
    assert read_rows(tmp_path / "results.json") == rows
    assert rows[0].versions["torch"] and rows[0].device and rows[0].command
    assert '"std"' not in (tmp_path / "results.json").read_text(), "what nobody measured is absent"


def test_the_table_shows_measured_beside_published() -> None:
    unpublished = Row(
        paper="toy", preset="demo", dataset="x", split="test", metric="SSIM", definition="", value=0.91234
    )
    lines = table([ROW, unpublished]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "GoPro",
        "test",
        "PSNR (dB)",
        "30.13",
        "34.21",
        "-4.08",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[4:-1]] == ["0.9123", "", ""]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"nonsense": 1}]')
    with pytest.raises(UserError, match="does not hold result rows"):
        read_rows(tmp_path / "rows.json")
