"""Shared by all benchmarks: their flags, and their rows, which are printed and stored one by one.

    Benchmark(__doc__, networks=networks, parts=attention, loaders=loaders).run()

Each of the three arguments is a function that takes the `Benchmark` and yields rows. Most rows come from `race`, which
times several forms (implementations) of the same work in turns, see `racing`. The columns:

- `seconds`, `fastest`: median and minimum over the turns.
- `ratio`: the literal form's seconds divided by the row's.
- `difference`: largest difference from the literal form's result, divided by the largest value of that result.
- `operations`, `bytes`, `bound`: see `counting`. `of_bound`: the bound divided by the seconds.
- `peak_mib`: memory that the work needs beyond weights and input, in MiB. On a GPU it is the allocator's maximum, on a
  CPU the growth of a new process's resident memory during its second run of the work.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from common import environment
from common.errors import UserError
from common.files import atomic_path
from common.measuring import counting, racing
from common.measuring.racing import Work, say

T = TypeVar("T")
Row = Mapping[str, object]
PARTS = ("networks", "parts", "loaders")
COLUMNS = (
    "what", "form", "setting", "device", "dtype", "threads", "seconds", "fastest", "items_per_second", "peak_mib",
    "ratio", "difference", "operations", "bytes", "bound", "bound_by", "of_bound", "driver", "torch", "commit",
)  # fmt: skip


class Benchmark:
    """A benchmark's command line and its measurements.

    Attributes:
        device: the device that is measured.
        small: use tiny sizes, to test the script.
    """

    def __init__(self, doc: str | None, **parts: Callable[[Benchmark], Iterator[Row]]) -> None:
        parser = argparse.ArgumentParser(description=doc, formatter_class=_Help)
        add = parser.add_argument
        add("--part", nargs="+", choices=PARTS, default=PARTS, help="what to measure, in this order")
        add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        add("--dtypes", nargs="+", choices=("float32", "tf32", "bfloat16"), help="bfloat16 is autocast")
        add("--compile", action="store_true", help="report our form under torch.compile instead")
        add("--size", type=int, help="side of the inputs in pixels; by default the benchmark's own sizes")
        add("--batch", type=int, help="images per step; by default the benchmark's own number")
        add("--repeats", type=int, help="how often each form is timed; by default 7 times, on a GPU 20")
        add("--threads", type=int, help="CPU threads; by default PyTorch's choice")
        add(
            "--no-memory",
            action="store_true",
            help="do not measure the CPU's peak memory, which takes a new process for each row",
        )
        add("--small", action="store_true", help="use tiny sizes, to test the script")
        add("--output", type=Path, help="also write the rows to this CSV file, after each one")
        add("--append", action="store_true", help="keep the rows that the output file already holds")
        add("--peak-of", nargs=2, help=argparse.SUPPRESS)  # print the peak memory of one form of one race
        flags = parser.parse_args()
        for name in ("size", "batch", "repeats", "threads"):
            if getattr(flags, name) is not None and getattr(flags, name) < 1:
                raise UserError(f"--{name} {getattr(flags, name)}: expected a number above 0")
        self.device, self.small = environment.choose_device(flags.device), flags.small
        self.on_gpu = self.device.type == "cuda"
        if "tf32" in (flags.dtypes or ()) and not self.on_gpu:
            raise UserError(f"--dtypes tf32 exists on NVIDIA GPUs only, --device is {self.device}")
        if flags.threads:
            torch.set_num_threads(flags.threads)
        self._dtypes = flags.dtypes or (["tf32", "bfloat16"] if self.on_gpu else ["float32"])
        self._repeats = flags.repeats or (1 if flags.small else 20 if self.on_gpu else 7)
        self._driver = _nvidia_driver() if self.on_gpu else ""
        self._flags, self._parts, self._races = flags, parts, 0
        self._speeds: dict[str, counting.Device] = {}

    def run(self) -> None:
        """Measure, print the rows and store them."""
        output = self._flags.output
        kept = _read(output) if output and self._flags.append and not self._flags.peak_of else []
        keep_rows(self._rows(), output, kept)

    def pick(self, *, small: T, cpu: T, gpu: T) -> T:
        """Return the value for this device."""
        return small if self.small else gpu if self.on_gpu else cpu

    def size(self, default: int) -> int:
        """Return --size, or the benchmark's own size."""
        return self._flags.size or default

    def batch(self, default: int) -> int:
        """Return --batch, or the benchmark's own batch size."""
        return self._flags.batch or default

    def race(self, build: Callable[[], list[Work]]) -> Iterator[Row]:
        """Measure the forms that `build` makes in turns, in every number format; yield a row for each."""
        number, self._races = self._races, self._races + 1
        if self._flags.peak_of:
            if self._flags.peak_of[0] == str(number):
                torch.manual_seed(0)
                # By name, because a form may be left out here: the process that started this one fills some memory.
                forms = {work.form: work for work in build()}
                if self._flags.peak_of[1] not in forms:
                    sys.exit("the form does not fit into the free memory")
                print(racing.peak_memory(forms[self._flags.peak_of[1]], self._dtypes[0]) / 2**20)
                sys.exit()
            return
        torch.manual_seed(0)
        works = racing.with_compiled(build()) if self._flags.compile else build()
        for dtype in self._dtypes:
            for measured in racing.race(works, self.device, dtype, self._repeats):
                if self._flags.compile == measured.work.form.endswith(racing.COMPILED):
                    yield self._measured_row(measured, dtype, number)

    def race_loaders(
        self, setting: str, builders: Mapping[str, Callable[..., Iterable[object]]], batches: int, items: int
    ) -> Iterator[Row]:
        """Measure loaders in turns, with one worker and with two; every turn starts each loader again.

        `ratio` is the seconds of the first loader divided by those of the row's loader.

        Args:
            setting: what is loaded.
            builders: for each name a function with the keyword `workers` that makes the loader.
            batches: number of batches that are timed in every turn, after the first ones.
            items: number of items in a batch.
        """
        if self._flags.peak_of:
            return
        for workers in (1,) if self.small else (1, 2):
            loaders = {form: builder(workers=workers) for form, builder in builders.items()}
            turns: dict[str, list[float]] = {form: [] for form in loaders}
            for _ in range(min(self._repeats, 5)):
                for form, loader in loaders.items():
                    turns[form].append(racing.loaded(loader, batches, items))
            first = statistics.median(next(iter(turns.values())))
            for form, seconds in turns.items():
                median = statistics.median(seconds)
                more = {"fastest": f"{min(seconds):.4g}", "ratio": f"{first / median:.2f}"}
                yield self.row("loader", form, f"{setting}, {workers} workers", median) | more

    def row(self, what: str, form: str, setting: str, seconds: float, items: float = 1) -> dict[str, object]:
        """Return a row for a call that takes `seconds` and processes `items`."""
        return {
            "what": what, "form": form, "setting": setting, "seconds": f"{seconds:.4g}",
            "items_per_second": f"{items / seconds:.4g}", "device": environment.device(self.device),
            "driver": self._driver, "torch": torch.__version__,
            "threads": torch.get_num_threads(), "commit": environment.commit() or "",
        }  # fmt: skip

    def _rows(self) -> Iterator[Row]:
        for name in self._flags.part:
            if name in self._parts:
                yield from self._parts[name](self)

    def _measured_row(self, measured: racing.Measured, dtype: str, number: int) -> Row:
        work, counted = measured.work, measured.counted
        peak = measured.peak
        if not (self.on_gpu or self.small or self._flags.no_memory or self._flags.compile):
            peak = _peak_in_new_process(dtype, number, work.form)
        bound, by = self._speed(dtype).bound(counted)
        return self.row(work.what, work.form, work.setting, measured.seconds, work.items) | {
            "dtype": dtype, "fastest": f"{measured.fastest:.4g}",
            "peak_mib": "" if peak is None else f"{peak / 2**20:.0f}",
            "ratio": "" if measured.ratio is None else f"{measured.ratio:.2f}",
            "difference": "" if measured.difference is None else f"{measured.difference:.1e}",
            "operations": "" if counted.operations is None else f"{counted.operations:.4g}",
            "bytes": "" if counted.bytes is None else f"{counted.bytes:.4g}",
            "bound": f"{bound:.4g}" if bound else "", "bound_by": by if bound else "",
            "of_bound": f"{bound / measured.seconds:.2f}" if bound else "",
        }  # fmt: skip

    def _speed(self, dtype: str) -> counting.Device:
        if dtype not in self._speeds:
            side, mib = self.pick(small=(128, 8), cpu=(1024, 256), gpu=(8192, 1024))
            self._speeds[dtype] = counting.measure(self.device, dtype, side=side, mib=mib)
        return self._speeds[dtype]


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def keep_rows(rows: Iterable[Row], output: Path | None, kept: Sequence[Row] = ()) -> None:
    """Print each row as CSV when it is measured, and write `kept` and all rows so far to `output`, atomically."""
    screen = csv.DictWriter(sys.stdout, COLUMNS, restval="")
    found = list(kept)
    for number, row in enumerate(rows):
        if number == 0:
            screen.writeheader()
        screen.writerow(row)
        sys.stdout.flush()
        found.append(row)
        if output:
            with atomic_path(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(found)


def _peak_in_new_process(dtype: str, number: int, form: str) -> int | None:
    command = [sys.executable, *sys.argv, "--dtypes", dtype, "--peak-of", str(number), form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"no peak memory: {done.stderr[-300:]}")
        return None
    return round(float(done.stdout.split()[-1]) * 2**20)


def _nvidia_driver() -> str:
    """The version of NVIDIA's driver; empty if nvidia-smi does not tell it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
