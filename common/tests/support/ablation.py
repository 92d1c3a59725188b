"""A project's ablation, run as a user runs it, in this process."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from common.results import read_rows
from support.scripts import call_script


def run_ablation(script: Path, output: Path, *flags: object) -> dict[str, dict[str, float]]:
    """Train every variant of a script, without figures; check that table and rows say the same of each.

    Returns:
        variant → metric → value.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("comparison_sheet", "curves", "save"):
            patch.setattr(f"common.figures.{name}", lambda *_, **__: None)
        patch.setattr("common.run.Run.picture", lambda *_: None)
        patch.setattr("common.measuring.ablation.ROUNDS", 1)
        done = call_script(script, *flags, "--output", output)
    variants = runpy.run_path(str(script))["VARIANTS"]
    rows = read_rows(output / "results.json")
    found = {name: {r.metric: r.value for r in rows if r.preset == title} for name, (title, _) in variants.items()}
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    table = (output / "ablation.md").read_text(encoding="utf-8")
    assert table in done.stdout
    for title, _ in variants.values():
        assert sum(line.split("|")[1].strip() == title for line in lines) == 1, title
    metrics = {row.metric for row in rows}
    assert {"parameters", "multiply-adds (M)", "step (ms)", "forward (ms)"} < metrics
    assert all(set(values) == metrics for values in found.values())
    assert all(values["multiply-adds (M)"] > 0 and values["step (ms)"] > 0 for values in found.values())
    assert all(row.command and row.versions and row.device and row.seeds for row in rows)
    return found


def parameters(found: dict[str, dict[str, float]]) -> dict[str, int]:
    """Trained parameters of each variant."""
    return {name: int(values["parameters"]) for name, values in found.items()}
