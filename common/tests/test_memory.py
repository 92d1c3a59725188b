"""The peak of a process: reached by what lives at once, forgotten on request."""

from __future__ import annotations

import torch

from common import memory

MIB = 2**20


def touch(mebibytes: int) -> None:
    """Fill so much memory, and let it go."""
    torch.ones(mebibytes * MIB, dtype=torch.uint8)


def test_the_peak_counts_what_was_let_go() -> None:
    before = memory.reset_peak()
    touch(200)
    # Not exactly 200: meanwhile the system may take back pages of before.
    assert 150 * MIB < memory.peak() - before < 300 * MIB


def test_a_reset_forgets_the_peak() -> None:
    touch(200)
    before = memory.reset_peak()
    touch(20)
    assert memory.peak() - before < 100 * MIB
