"""The projects of this repository, found by their `pyproject.toml`.

`[tool.fullpaper]` of a project contains the settings of the nox sessions: `demo-minutes`, the row of the front page
(`headline`), and one table for each image of its demo (`demos`) and for each of its trainers (`trainers`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def find() -> dict[str, dict[str, Any]]:
    """Return project name → `[tool.fullpaper]`, in alphabetical order; `common` is no project."""
    found = {}
    for path in sorted(ROOT.glob("*/pyproject.toml")):
        tools = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
        if "fullpaper" in tools:
            found[path.parent.name] = tools["fullpaper"]
    return found


PROJECTS = find()
