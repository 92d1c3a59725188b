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


def flags(verb: Path) -> dict[str, tuple[str, str]]:
    """Name → type and default of a script's flags."""
    classes = [node for node in ast.parse(verb.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    fields = [field for one in classes if one.name.endswith("Config") for field in one.body]
    return {
        field.target.id: (ast.unparse(field.annotation), ast.unparse(field.value) if field.value else "")
        for field in fields
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


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
