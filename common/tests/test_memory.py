"""Sizes as text, and the peak memory of a process, which can be reset."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from common import memory
from common.errors import UserError
from common.measuring import peaks
from common.memory import parse_size

MIB = 2**20


def touch(mebibytes: int) -> None:
    """Allocate an amount of memory and free it."""
    torch.ones(mebibytes * MIB, dtype=torch.uint8)


def test_the_peak_counts_what_was_let_go() -> None:
    before = peaks.reset_peak()
    touch(200)
    # Not exactly 200: meanwhile the system may take back pages of before.
    assert 150 * MIB < peaks.peak() - before < 300 * MIB


def test_a_reset_forgets_the_peak() -> None:
    touch(200)
    before = peaks.reset_peak()
    touch(20)
    assert peaks.peak() - before < 100 * MIB


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("800M", 800 << 20), ("1.5GiB", 3 << 29), (" 2 kb ", 2048), (".5T", 1 << 39), ("1k", 1024)],
)
def test_sizes_are_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["4", "", "G", "-1G", "0G", "nanG", "infG", "1.2.3G", "4X", "4 G B", "1e3G", "9" * 400 + "T"]
)
def test_what_is_no_size_with_a_unit_is_named(text):
    with pytest.raises(UserError, match=rf"--tile-memory {text}: expected a size with a unit, such as 800M or 4G"):
        parse_size(text, "--tile-memory")


def test_without_a_flag_a_quarter_of_the_machine_or_of_its_container(monkeypatch, tmp_path: Path) -> None:
    assert memory.budget("800M") == 800 << 20
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path / "memory.max")
    for written, expected in (("max", psutil.virtual_memory().total), ("4096000", 4096000)):
        (tmp_path / "memory.max").write_text(f"{written}\n")
        assert memory.budget(None) == expected // 4
