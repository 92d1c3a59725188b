"""Wrong input gives an error message of one sentence instead of a traceback.

Library code raises `UserError` with the file, what was found, what was expected and the
remedy. A script decorates its `main` with `command`, which prints that sentence and ends with
exit status 2. Any other exception is a bug in this code and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import sys
from collections.abc import Callable, Iterator


class UserError(ValueError):
    """The user's input, files or machine cannot do what was asked; the message is one sentence."""

    def __init__(self, message: str) -> None:
        # From a data loading process the message arrives inside a traceback's text; keep only the sentence.
        sentence = message.rpartition(f"{__name__}.UserError: ")[2].strip()
        # A file name may hold bytes that are not UTF-8; they can neither be printed nor written.
        super().__init__(sentence.encode("utf-8", "backslashreplace").decode("utf-8"))


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra to install if a package is missing: `with extra("fullpaper-common[raster]"): import rasterio`.

    Raises:
        UserError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"the package {error.name} is missing; install it with: pip install '{name}'") from error


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's `main`: a `UserError`, a full disk or full memory becomes one line and exit status 2."""

    @functools.wraps(main)
    def guarded() -> None:
        for stream in (sys.stdout, sys.stderr):  # print file names that are not UTF-8 as escapes
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                main()
            finally:
                sys.stdout.flush()
        except UserError as error:
            sys.exit(_say(f"error: {error}"))
        except KeyboardInterrupt:
            sys.exit(_say("stopped by the keyboard; the last complete checkpoint is kept", 130))
        except MemoryError as error:
            sys.exit(_say(_memory(error)))
        except RuntimeError as error:
            # torch has a type for a GPU's full memory, and only a text for the CPU's.
            if type(error).__name__ != "OutOfMemoryError" and "DefaultCPUAllocator" not in str(error):
                raise
            sys.exit(_say(_memory(error)))
        except OSError as error:
            if error.errno is None:
                raise
            if isinstance(error, BrokenPipeError) and _output_is_closed():
                sys.exit(1)
            remedy = "; free some disk space, then run the same command" if error.errno == errno.ENOSPC else ""
            sys.exit(_say(f"error: {error.filename or 'the system'}: {error.strerror}{remedy}"))

    return guarded


def _output_is_closed() -> bool:
    """Whether the program that read the output, for example `head`, has ended; then nothing more is printed."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)  # errors are always reported
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # takes what Python flushes at its end
    return True


def _memory(error: BaseException) -> str:
    detail = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
    return f"error: the memory is full{detail}; use smaller batches, tiles or images, or another device"


def _say(message: str, status: int = 2) -> int:
    print(message, file=sys.stderr, flush=True)
    return status
