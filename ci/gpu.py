"""Run GPU tests and benchmarks on a machine with an NVIDIA GPU in a few minutes, the most important first.

    python ci/gpu.py --budget 8m
    python ci/gpu.py --device cpu --small        tiny sizes, to test this script

It needs no internet, no nox and no installation, only the machine's own packages; a missing package is named, and what
needs it is left out. The order: tests marked `gpu`; for every paper forward pass and training step of the network, in
literal form, ours and that of other packages (TF32, bfloat16); attention and graphs alone; loaders; our networks under
torch.compile. Rows are written to <paper>/results/gpu.csv, and all output to runs/gpu.log.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import PROJECTS, ROOT


@dataclass(frozen=True)
class Job:
    """A command and its share of the time, relative to the other jobs."""

    name: str
    command: list[str]
    weight: float


def main() -> None:
    """Run the jobs and print a line for each; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="8m", help="minutes (8m) or seconds (480s) for all jobs")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--small", action="store_true", help="use tiny sizes")
    parser.add_argument(
        "--output", type=Path, help="folder for <paper>.csv and gpu.log, instead of the files named above"
    )
    options = parser.parse_args()
    seconds = re.fullmatch(r"(\d+)([ms])", options.budget)
    if seconds is None:
        parser.error(f"--budget {options.budget}: expected minutes or seconds, such as 8m or 480s")
    end = time.monotonic() + int(seconds[1]) * (60 if seconds[2] == "m" else 1)
    log = (options.output or ROOT / "runs") / "gpu.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    jobs, failed = list_jobs(options.device, options.small, options.output), False
    with log.open("w", encoding="utf-8") as file:
        for i, job in enumerate(jobs):
            share = job.weight / sum(later.weight for later in jobs[i:])
            failed = not run(job, (end - time.monotonic()) * share, log, file) or failed
    print(f"log: {log}")
    sys.exit(failed)


def list_jobs(device: str, small: bool, output: Path | None) -> list[Job]:
    """Return all jobs, the most important first."""
    marked = [path for path in sorted(ROOT.glob("*/tests/test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    # Without the projects' conftest.py files, which may need packages that the machine does not have.
    pytest = [sys.executable, "-m", "pytest", "-c", str(ROOT / "ci/pytest.ini"), "--noconftest", "-m", "gpu"]
    jobs = [Job("tests", [*pytest, *map(str, marked)], 6)]
    stages = [(["networks", "parts", "loaders"], [], 1.0)] if small else [
        (["networks"], [], 4.0), (["parts"], [], 1.0), (["loaders"], [], 1.0), (["networks"], ["--compile"], 2.0)
    ]  # fmt: skip
    for number, (parts, more, weight) in enumerate(stages):
        for paper in PROJECTS:
            rows = output / f"{paper}.csv" if output else ROOT / paper / "results" / "gpu.csv"
            command = [sys.executable, str(ROOT / paper / "benchmark.py"), "--device", device, "--part", *parts, *more]
            command += ["--output", str(rows)]
            command += ["--append"] if number else []
            command += ["--small"] if small else []
            jobs.append(Job(f"{paper}: {' '.join([*parts, *more])}", command, weight))
    return jobs


def run(job: Job, seconds: float, log: Path, file: object) -> bool:
    """Run one job for at most `seconds`; return whether it did not fail, where running out of time is no failure."""
    sources = [*map(str, sorted(ROOT.glob("*/src"))), str(ROOT / "common/tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources), "HF_HUB_OFFLINE": "1"}
    began, before = time.monotonic(), log.stat().st_size
    try:
        status = start(job.command, cwd=ROOT, env=environment, stdout=file, timeout=max(seconds, 0.1)).returncode
    except subprocess.TimeoutExpired:
        status = None
    said = log.read_bytes()[before:].decode(errors="replace").splitlines()
    left_out = sorted({line for line in said if line.startswith("left out")})
    # pytest returns 5 if no test was selected, for example without a GPU.
    verdict = {0: "done", None: "out of time", 5: "nothing to do"}.get(status, f"failed: {(said or [''])[-1]}")
    print(f"{job.name}: {verdict}, {time.monotonic() - began:.0f} s", *left_out, sep="\n  ", flush=True)
    return not verdict.startswith("failed")


def start(command: list[str], **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(command, stderr=subprocess.STDOUT, check=False, **settings)


if __name__ == "__main__":
    main()
