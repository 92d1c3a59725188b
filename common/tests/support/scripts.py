"""Run a project's scripts, in this process or in one or several processes as a launcher starts them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import multiprocessing.context
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Finished:
    """What a script printed; of several processes, all of it."""

    stdout: str
    stderr: str


class Script:
    """A project's script in one or several real processes on CPU, started as by a launcher.

    The processes fork from a server that has imported torch and done nothing else, which saves
    the seconds of importing it again. `accelerate launch --cpu --num_processes 2` would quietly
    run one process, so ranks are given through the environment as `torchrun` does.
    """

    def __init__(
        self, script: str | Path, *arguments: object, processes: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        context = forkserver()
        self._folder = tempfile.TemporaryDirectory()
        environments = [{"ACCELERATE_USE_CPU": "true"} for _ in range(processes)]
        if processes > 1:
            group = {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{_free_port()}"}
            for rank, one in enumerate(environments):
                one.update(group, RANK=f"{rank}", LOCAL_RANK=f"{rank}")
        command = [str(script), *map(str, arguments)]
        self.processes = [
            context.Process(
                target=_run_in_child, args=(command, one | dict(environment or {}), f"{self._folder.name}/{rank}")
            )
            for rank, one in enumerate(environments)
        ]
        for process in self.processes:
            process.start()

    def finish(self, status: int | None = 0, timeout: float = 300) -> Finished:
        """Wait for the end.

        Args:
            status: the expected exit status of every process; None for any non-zero one.
        """
        for process in self.processes:
            process.join(timeout)
            if process.exitcode is None or process.exitcode != 0:
                for other in self.processes:  # like a launcher: one failure ends them all
                    other.join(10)
                    other.kill()
                    other.join()
        texts = [[Path(f"{self._folder.name}/{r}.{n}") for r in range(len(self.processes))] for n in ("out", "err")]
        done = Finished(*("".join(path.read_text() for path in paths if path.exists()) for paths in texts))
        self._folder.cleanup()
        for process in self.processes:
            right = process.exitcode != 0 if status is None else process.exitcode == status
            assert right, f"exit status {process.exitcode}, expected {status}\n{done.stdout}\n{done.stderr}"
        return done


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Return the context from which all processes of the tests are forked.

    There is one server; its first caller determines what it has imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.scripts", "common.run", "common.figures", "torch._dynamo"])
    return context


def run_script(
    script: str | Path,
    *arguments: object,
    processes: int = 1,
    status: int | None = 0,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a script to its end; see `Script`."""
    return Script(script, *arguments, processes=processes, environment=environment).finish(status)


@lru_cache
def load_script(script: Path) -> ModuleType:
    """A script as a module, in which a test may replace what it imported."""
    spec = importlib.util.spec_from_file_location(f"{script.parent.name}_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_here(script: str | Path, *arguments: object, loaded: ModuleType | None = None) -> int:
    """Run a script in this process as if it were a new one, on CPU; return its exit status.

    Saves the seconds of importing torch, and lets a test make the network small with `monkeypatch`.

    Args:
        loaded: the script from `load_script`, to run that instead of reading the script again.
    """
    from accelerate.state import AcceleratorState, GradientState

    before, environment = sys.argv, os.environ.get("ACCELERATE_USE_CPU")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    sys.argv, os.environ["ACCELERATE_USE_CPU"] = [str(script), *map(str, arguments)], "true"
    try:
        if loaded:
            loaded.main()
        else:
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
        if environment is None:
            del os.environ["ACCELERATE_USE_CPU"]
        AcceleratorState._reset_state(reset_partial_state=True)
    return 0


def call_script(script: str | Path, *arguments: object, status: int = 0, loaded: ModuleType | None = None) -> Finished:
    """Run a script in this process, see `run_here`; check its exit status and return what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = run_here(script, *arguments, loaded=loaded)
    assert found == status, f"exit status {found}, expected {status}\n{out.getvalue()}\n{err.getvalue()}"
    return Finished(out.getvalue(), err.getvalue())


def _run_in_child(command: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
    import torch

    torch.set_num_threads(1)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
