"""A project's scripts in this process: one of its own costs the seconds of importing everything anew."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from accelerate.state import AcceleratorState, GradientState

from support.scripts import Finished


@cache
def load_script(script: Path) -> ModuleType:
    """The script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"script{abs(hash(script))}_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_inside(script: Path, *arguments: object, status: int = 0) -> Finished:
    """Run a script's `main` to its end on the CPU, as `support.scripts.run_script` does in a process of its own.

    Args:
        script: its path.
        arguments: the command line.
        status: the expected exit status.
    """
    out, err, found = io.StringIO(), io.StringIO(), 0
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                load_script(script).main()
            except SystemExit as end:
                found = int(end.code or 0)
    assert found == status, f"exit status {found}, expected {status}\n{out.getvalue()}\n{err.getvalue()}"
    return Finished(out.getvalue(), err.getvalue())
