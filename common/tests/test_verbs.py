"""The command of an installed project finds the scripts of a checkout and of a wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common import verbs
from common.errors import UserError, extra

SCRIPT = 'import sys\nprint("ran", __name__, sys.argv[1:])\n'


def make_project(root: Path, *, wheel: bool) -> None:
    package = root / ("site-packages/paperx" if wheel else "project/src/paperx")
    scripts = package / "verbs" if wheel else root / "project"
    for script in ("train.py", "predict.py", "segmentation/train.py"):
        (scripts / script).parent.mkdir(parents=True, exist_ok=True)
        (scripts / script).write_text(SCRIPT)
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    if not wheel:
        (root / "project/pyproject.toml").touch()
        (root / "project/helpers.py").write_text("raise AssertionError")


@pytest.fixture(params=[False, True], ids=["checkout", "wheel"])
def project(request, tmp_path, monkeypatch):
    make_project(tmp_path, wheel=request.param)
    monkeypatch.syspath_prepend(str(tmp_path / ("site-packages" if request.param else "project/src")))
    return "paperx"


def call(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fullpaper-paperx", *words])
    verbs.main()


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["train", "--seed", "3"], "['--seed', '3']"),
        (["predict"], "[]"),
        (["segmentation", "train", "--help"], "['--help']"),
    ],
)
def test_the_script_runs_with_the_flags_after_it(project, monkeypatch, capsys, words, rest):
    call(monkeypatch, *words)
    assert capsys.readouterr().out == f"ran __main__ {rest}\n"


def test_the_package_itself_is_the_command(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "src/paperx/__main__.py"), "train", "--seed", "3"])
    verbs.main()
    assert capsys.readouterr().out == "ran __main__ ['--seed', '3']\n"


def test_no_word_lists_the_commands(project, monkeypatch, capsys):
    call(monkeypatch)
    assert "expected one of: predict, segmentation train, train" in capsys.readouterr().out


def test_an_unknown_word_is_one_sentence(project, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "deblur")
    assert ended.value.code == 2
    assert "fullpaper-paperx deblur: no such command; expected one of: predict" in capsys.readouterr().err


def test_a_missing_package_names_its_extra():
    sentence = r"no_such_package is missing; .*pip install 'fullpaper-common\[raster\]'"
    with pytest.raises(UserError, match=sentence), extra("fullpaper-common[raster]"):
        import no_such_package  # noqa: F401
