"""Files appear complete and flushed, or not at all."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common import files
from common.errors import UserError, command
from common.figures import comparison_sheet, curves
from common.files import PLAN, atomic_path, finished_windows, make_room, printable, remove_partial, write_json


def test_names_that_are_no_utf_8_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xe9.png")
    write_json(tmp_path / "list.json", {name: [name, "grün"]})
    text = (tmp_path / "list.json").read_bytes().decode("utf-8")
    assert json.loads(text) == {name: [name, "grün"]} and "grün" in text
    assert printable(name) == "b\\xe9.png"


def test_any_name_can_be_a_caption(tmp_path: Path) -> None:
    names = [os.fsdecode(b"b\xe9.png"), "price_$\\nothing$_$.png"]
    path = comparison_sheet([[np.zeros((8, 8))] * 2], names, tmp_path / "sheet.png", [names])
    assert path.stat().st_size > 0


def test_no_curves_without_lines(tmp_path: Path) -> None:
    assert curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png") is None


def test_a_file_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the content, then the rename, then fsync of the folder: a power cut leaves old or new."""
    events = []

    def fsync(descriptor: int) -> None:
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    def replace(old: Path, new: Path) -> None:
        events.append(("rename", Path(old).name))
        Path(old).rename(new)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert events == [("sync", temporary.name), ("rename", temporary.name), ("sync", tmp_path.name)]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write_half() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("form", ["numpy", "safetensors", "text"])
def test_a_full_disk_is_reported_with_the_file_s_name(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.zeros(1 << 17)

    def write(path: Path) -> None:
        if form == "safetensors":
            save_file({"a": values}, path)
        elif form == "numpy":
            np.save(path, values)
        else:
            path.write_text("x" * values.nbytes)

    @command
    def main() -> None:
        with atomic_path(tmp_path / "a.npy") as temporary:
            write(temporary)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(SystemExit, match="2"):
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'a.npy'}: ") and said.count("\n") == 1 and "partial" not in said
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.b.12.partial.jpg", ".c.13.partial.jpg", ".a.b.partial", "a.b.jpg", ".d.jpg"):
        (tmp_path / name).touch()
    remove_partial(tmp_path, {"a.b.jpg", "d.jpg"})
    assert {path.name for path in tmp_path.iterdir()} == {".c.13.partial.jpg", ".a.b.partial", "a.b.jpg", ".d.jpg"}


def test_an_output_that_was_finished_before_a_kill(tmp_path: Path) -> None:
    """Its windows were being removed: a command that works by windows may compare commands, others are refused."""
    output, left = tmp_path / "classes.tif", finished_windows(tmp_path / "classes.tif")
    output.write_text("finished")
    left.mkdir()
    (left / "000001.npz").touch()
    with pytest.raises(UserError, match="exists; add --existing replace"):
        make_room(output, "refuse", windows=True)
    (left / PLAN).touch()
    assert make_room(output, "refuse", windows=True)
    with pytest.raises(UserError, match="exists; add --existing replace"):
        make_room(output, "refuse")
    assert left.exists() and make_room(output, "replace") and not left.exists()
    left.mkdir()
    (left / PLAN).touch()
    output.unlink()
    assert make_room(output, "refuse", windows=True) and not left.exists(), "the next output is another one"


def test_files_beside_an_output_are_not_replaced_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, sheet = tmp_path / "clean.tif", tmp_path / "clean_spectra.png"
    sheet.touch()
    for existing in ("refuse", "skip"):
        with pytest.raises(UserError, match=r"clean_spectra\.png: exists; add --existing replace, or choose"):
            make_room(output, existing, beside=[sheet])
    assert make_room(output, "replace", beside=[sheet]) and make_room(output, "refuse")
    output.touch()
    assert not make_room(output, "skip", beside=[sheet]) and "nothing done" in capsys.readouterr().out
