"""The papers' READMEs have the same sections in the same order, refer to existing code, and their snippets run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from projects import PROJECTS, ROOT

PAPERS = tuple(PROJECTS)
SECTIONS = [
    "Results",
    "Ablation",
    "Train, score",
    "In your own network",
    "The idea",
    "Paper, released code, ours",
    "Data",
]
SECTIONS += ["Speed", "Citation"]
LONGEST_CELL = 25


def read(paper: str) -> str:
    return (ROOT / paper / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("paper", PAPERS)
def test_sections_come_in_one_order(paper: str) -> None:
    titles = [title.strip() for title in re.findall(r"^## (.*)$", read(paper), re.MULTILINE)]
    found = [section for title in titles for section in SECTIONS if title.startswith(section)]
    assert found == SECTIONS


@pytest.mark.parametrize("paper", PAPERS)
def test_equations_lead_to_code(paper: str) -> None:
    idea = read(paper).partition("## The idea")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", idea, re.MULTILINE)[1:]
    assert len(rows) >= 6
    for equation, code in rows:
        files = re.findall(r"\[`[^`]+`\]\(([^)]+)\)", code)
        assert files, f"{equation}: no link"
        named = [ROOT / paper / file for file in files]
        sources = [
            f.read_text(encoding="utf-8") for path in named for f in (path.glob("*.py") if path.is_dir() else [path])
        ]
        names = re.findall(r"(?<!\[)`([\w.]+)`", code)
        for name in names:
            last = name.rpartition(".")[2]
            defined = rf"^\s*(class|def) {last}\b"
            assert any(re.search(defined, source, re.MULTILINE) for source in sources), f"{name} is not in {files}"


PAGES = sorted(page.relative_to(ROOT).as_posix() for page in [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")])


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("runs/")])
def test_links_lead_somewhere(page: str) -> None:
    prose = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)\)", prose)
    links = [link for link in links if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("runs/")])
def test_cells_are_short(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    cells = [cell for line in lines if line.startswith("|") for cell in line.strip("|").split(" | ")]
    assert [cell for cell in cells if len(re.sub(r"\]\([^)]*\)", "", cell).split()) > LONGEST_CELL] == []


@pytest.mark.parametrize("paper", PAPERS)
def test_commands_name_scripts_and_presets_that_exist(paper: str) -> None:
    commands = re.findall(r"^(?:accelerate launch|python) .*$", read(paper), re.MULTILINE)
    presets = (ROOT / paper / f"src/{paper}/presets.py").read_text(encoding="utf-8")
    assert {verb for line in commands for verb in re.findall(r"(train|evaluate|predict)\.py", line)} == {
        "train", "evaluate", "predict"
    }  # fmt: skip
    for line in commands:
        for script in re.findall(r"[\w/]+\.py", line):
            assert (ROOT / script).is_file(), line
        if f"{paper}/train.py" in line:
            for preset in re.findall(r"--preset (\w+)", line):
                assert re.search(rf"^def {preset}\(", presets, re.MULTILINE), line


@pytest.mark.parametrize("page", [*(f"{paper}/README.md" for paper in PAPERS), "docs/blocks.md"])
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), {"__name__": "readme"})
