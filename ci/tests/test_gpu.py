"""`ci/gpu.py` runs on a CPU with tiny sizes, and every paper writes complete rows of both forms."""

from __future__ import annotations

import contextlib
import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import gpu
from projects import PROJECTS, ROOT
from support.scripts import run_here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of rows, and what was printed. The benchmarks run in this process, which has loaded torch."""
    folder, printed, start = tmp_path_factory.mktemp("gpu"), io.StringIO(), gpu.start

    def start_here(command: list[str], *, stdout: Any, **others: Any) -> Any:
        if "pytest" in command:
            return start(command, stdout=stdout, **others)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
            return subprocess.CompletedProcess(command, run_here(*command[1:]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "start", start_here)
        patch.setattr(sys, "argv", f"gpu.py --device cpu --small --budget 30m --output {folder}".split())
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
            gpu.main()
    log = (folder / "gpu.log").read_text(encoding="utf-8")
    assert not end.value.code, printed.getvalue() + log[-3000:]
    return folder, printed.getvalue()


@pytest.mark.parametrize("paper", PROJECTS)
def test_every_paper_is_measured_against_its_literal_form(paper: str, finished: tuple[Path, str]) -> None:
    with (finished[0] / f"{paper}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    forms = {what: {row["form"] for row in rows if row["what"] == what} for what in {row["what"] for row in rows}}
    training = next(what for what in forms if what.startswith("training"))
    assert forms[training] == {"literal", "ours"}
    literal = [row for row in rows if row["form"] == "literal" and row["what"] != "graph"]
    assert all(row["ratio"] == "1.00" and float(row["bytes"]) > 0 and row["bound_by"] for row in literal)
    agreed = [float(row["difference"]) for row in rows if row["form"] == "ours" and row["difference"]]
    assert agreed and max(agreed) < 1e-4
    assert all(row["device"] and row["torch"] and float(row["seconds"]) > 0 for row in rows)
    assert f"{paper}: networks parts loaders: done" in finished[1]


def test_the_marked_tests_come_first(finished: tuple[Path, str]) -> None:
    assert finished[1].startswith("tests: ")
    assert "test_triton.py" in " ".join(gpu.list_jobs("cuda", False, None)[0].command)


def test_time_runs_out_without_failing(tmp_path: Path) -> None:
    command = [sys.executable, "ci/gpu.py", "--device", "cpu", "--small", "--budget", "0s", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("out of time") == len(PROJECTS) + 1
