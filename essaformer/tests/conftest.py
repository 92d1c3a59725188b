"""The project's commands, called in this process: a process of its own costs seconds for each."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
from accelerate.state import AcceleratorState, GradientState

from common.run import Run
from support.scripts import Finished

PROJECT = Path(__file__).parents[1]
Verb = Callable[..., Finished]


@lru_cache
def load_verb(name: str) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"essaformer_{name}", PROJECT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def verb() -> Verb:
    """Call a command by its name with flags; returns what it printed, and checks its exit status.

    With `draws=False` a training run draws no figures, which take longer than a few steps of a small network.
    """

    def call(name: str, *arguments: object, status: int = 0, draws: bool = True) -> Finished:
        out, err, found = io.StringIO(), io.StringIO(), 0
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACCELERATE_USE_CPU", "true")
            patch.setattr(sys, "argv", [str(PROJECT / f"{name}.py"), *map(str, arguments)])
            if not draws:
                patch.setattr(load_verb(name), "comparison_sheet", lambda *_: None)
                patch.setattr(load_verb(name), "curves", lambda *_: None)
                patch.setattr(Run, "picture", lambda *_: None)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    load_verb(name).main()
                except SystemExit as end:
                    found = int(end.code or 0)
        assert found == status, f"exit status {found}, expected {status}\n{out.getvalue()}\n{err.getvalue()}"
        return Finished(out.getvalue(), err.getvalue())

    return call
