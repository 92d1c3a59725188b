"""The project's commands, called in this process, because each new process would take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from common.run import Run
from support.scripts import Finished, call_script, load_script

PROJECT = Path(__file__).parents[1]
Verb = Callable[..., Finished]


def load_verb(name: str) -> ModuleType:
    """The script as a module."""
    return load_script(PROJECT / f"{name}.py")


@pytest.fixture(scope="session")
def verb() -> Verb:
    """Call a command by its name with flags; returns what it printed, and checks its exit status.

    With `draws=False` a training run draws no figures, which take longer than a few steps of a small network.
    """

    def call(name: str, *arguments: object, status: int = 0, draws: bool = True) -> Finished:
        with pytest.MonkeyPatch.context() as patch:
            if not draws:
                patch.setattr(load_verb(name), "comparison_sheet", lambda *_: None)
                patch.setattr(load_verb(name), "curves", lambda *_: None)
                patch.setattr(Run, "picture", lambda *_: None)
            return call_script(PROJECT / f"{name}.py", *arguments, status=status, loaded=load_verb(name))

    return call
