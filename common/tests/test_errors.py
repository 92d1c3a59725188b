"""Errors of the input or the machine end in one sentence; errors of this code keep their traceback."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import torch

from common.errors import UserError, command

NAME = "b\udce9.png"


def end_of(failure: BaseException | None, monkeypatch: pytest.MonkeyPatch, text: str = "") -> tuple[int, str, bytes]:
    """Exit status, what went to stderr, and what went to a terminal of strict UTF-8."""

    @command
    def main() -> None:
        print(text)
        if failure is not None:
            raise failure

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code
    return status, err.buffer.getvalue().decode(), out.buffer.getvalue()


def cpu_memory() -> BaseException:
    try:
        torch.empty(10**16)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (lambda: UserError("scene.mat: truncated; copy it again"), "error: scene.mat: truncated; copy it again\n"),
        (MemoryError, "error: the memory is full; use smaller"),
        (lambda: MemoryError("Unable to allocate 9 TiB"), "error: the memory is full (Unable to allocate 9 TiB); use"),
        (cpu_memory, "error: the memory is full ("),
        (lambda: torch.OutOfMemoryError("CUDA out of memory."), "error: the memory is full (CUDA out of memory.); use"),
        (
            lambda: OSError(28, "No space left on device", "a.png"),
            "error: a.png: No space left on device; free some disk space, then run the same command\n",
        ),
    ],
    ids=["user", "memory", "numpy", "torch", "gpu", "disk"],
)
def test_one_sentence_and_status_2(failure, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said, _ = end_of(failure(), monkeypatch)
    assert status == 2 and said.startswith(expected) and said.count("\n") == 1


@pytest.mark.parametrize("failure", [RuntimeError("size mismatch"), ValueError("bug"), OSError("without a number")])
def test_a_bug_keeps_its_traceback(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(failure), match=str(failure)):
        end_of(failure, monkeypatch)


def test_names_that_are_no_utf_8_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said, printed = end_of(UserError(f"{NAME}: damaged"), monkeypatch, text=NAME)
    assert (status, printed) == (2, b"b\\udce9.png\n")
    assert said == "error: b\\udce9.png: damaged\n"


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_ends_early_is_no_error(lines: int) -> None:
    """As in `train.py --help | head`; one line stays in the buffer until the end, many do not."""
    script = f"from common.errors import command\ncommand(lambda: [input(), *map(print, range({lines}))])()"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        process.stdout.close()
        _, said = process.communicate(b"\n")
    assert (process.returncode, said) == (1, b"")
