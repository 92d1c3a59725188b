"""The README's snippet runs, and the code it points to exists."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_snippet_runs():
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_name_in_the_equation_table_exists():
    rows = re.findall(r"^\| .*? \| (`.*?) in \[`.*?`\]\((.*?)\) \|$", README, flags=re.MULTILINE)
    assert len(rows) >= 7
    for names, file in rows:
        source = (PROJECT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(class|def) {name}\b", source, flags=re.MULTILINE), f"{name} is not in {file}"
