"""The project's commands, called in this process, because each new process would take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support.scripts import Finished, call_script, load_script

PROJECT = Path(__file__).parents[1]
Verb = Callable[..., Finished]


def load_verb(name: str) -> ModuleType:
    """The script as a module."""
    return load_script(PROJECT / f"{name}.py")


@pytest.fixture(scope="session")
def verb() -> Verb:
    """Call a command by its name with flags; returns what it printed, and checks its exit status."""

    def call(name: str, *arguments: object, status: int = 0) -> Finished:
        return call_script(PROJECT / f"{name}.py", *arguments, status=status, loaded=load_verb(name))

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
