"""The README's snippets run, and the code it points to exists."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_snippets_run() -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) == 2
    found: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), found)
    assert found["y"].shape == found["x"].shape
    assert [tuple(m.shape[1:]) for m in found["maps"]] == [(64, 24, 32), (128, 12, 16), (256, 6, 8), (512, 3, 4)]


def test_the_files_it_points_to_exist() -> None:
    paths = set(re.findall(r"\]\((src/[^)]+)\)", README))
    assert len(paths) >= 6
    assert all((PROJECT / path).is_file() for path in paths), paths
