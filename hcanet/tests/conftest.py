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

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState

from support.scripts import Finished

PROJECT = Path(__file__).parents[1]
Verb = Callable[..., Finished]


@lru_cache
def load_verb(name: str) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"hcanet_{name}", PROJECT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def verb() -> Verb:
    """Call a command by its name with flags; returns what it printed, and checks its exit status."""

    def call(name: str, *arguments: object, status: int = 0) -> Finished:
        out, err, found = io.StringIO(), io.StringIO(), 0
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACCELERATE_USE_CPU", "true")
            patch.setattr(sys, "argv", [str(PROJECT / f"{name}.py"), *map(str, arguments)])
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    load_verb(name).main()
                except SystemExit as end:
                    found = int(end.code or 0)
        assert found == status, f"exit status {found}, expected {status}\n{out.getvalue()}\n{err.getvalue()}"
        return Finished(out.getvalue(), err.getvalue())

    return call


QUICK = (
    *("--model", "hcanet_light", "--dim", 8, "--bands", 6, "--crop", 16, "--batch-size", 2, "--workers", 0),
    *("--log-every", 1, "--iterations", 4, "--order", "gaussian", "case1", "--epochs", 1, 1),
)
"""A training of four updates in two stages."""


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth scene of 7 bands, one pixel of which holds a value that a user may call no-data."""
    path = tmp_path_factory.mktemp("scene") / "mine.npy"
    rows, columns = np.mgrid[:44, :48] / 20
    base = 0.5 + 0.25 * np.sin(3 * rows) + 0.2 * np.cos(2 * columns + rows)
    cube = (base[..., None] * np.linspace(0.4, 1, 7)).astype(np.float32)
    cube[2, 3] = 5.0
    np.save(path, cube)
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures: they take longer than a short training."""
    train = load_verb("train")
    for name in ("comparison_sheet", "curves"):
        monkeypatch.setattr(train, name, lambda *_: None)
    monkeypatch.setattr("common.run.Run.picture", lambda *_: None)
