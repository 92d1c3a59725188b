"""Flags that several predicting and scoring verbs share have one type and one default, as their sources say."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from projects import PROJECTS, ROOT

VERBS = sorted(
    path for paper in PROJECTS for name in ("predict", "evaluate") for path in (ROOT / paper).glob(f"**/{name}.py")
    if "src" not in path.parts
)  # fmt: skip
SAME = {
    "device": ("str", "'auto'"),
    "memory": ("str | None", "None"),
    "existing": ("Literal['refuse', 'skip', 'replace']", "'refuse'"),
    "cog": ("bool", "False"),
}
SCENES = {"essaformer", "hcanet", "lsgavit", "amgcfn"}


def flags(script: Path, wanted: str = "Config") -> dict[str, tuple[str, str]]:
    """Name → type and default of a script's flags, those of a base class in the project's package too."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    (one,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith(wanted)]
    found: dict[str, tuple[str, str]] = {}
    for line in tree.body:
        if (
            isinstance(line, ast.ImportFrom)
            and line.module
            and {n.name for n in line.names} & set(map(ast.unparse, one.bases))
        ):
            home = ROOT / line.module.partition(".")[0] / "src" / f"{line.module.replace('.', '/')}.py"
            found |= flags(home, line.names[0].name)
    for field in one.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            default = ast.unparse(field.value) if field.value else ""
            found[field.target.id] = (ast.unparse(field.annotation), default)
    return found


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.relative_to(ROOT).as_posix())
def test_shared_flags_are_the_same(verb: Path) -> None:
    found = flags(verb)
    expected = {"device"} | ({"existing"} if verb.stem == "predict" else set())
    if verb.stem == "predict" and verb.parent.name in SCENES:
        expected |= {"memory", "cog"}
    assert expected <= set(found)
    assert {name: found[name] for name in SAME if name in found} == {
        name: same for name, same in SAME.items() if name in found
    }


def test_every_project_predicts_and_scores() -> None:
    assert {(verb.parent.name, verb.stem) for verb in VERBS} >= {
        (paper, name) for paper in PROJECTS for name in ("predict", "evaluate")
    }
