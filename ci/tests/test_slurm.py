"""The cluster script with replacements of Slurm's commands: preempted, queued again, and with the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.files import sha256

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "common/tests/toy_trainer.py"

# Slurm signals every process of a step, and a step ends with its first process.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: os.killpg(child.pid, signal.SIGTERM))
sys.exit(child.wait())
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >>"$SCONTROL_LOG"
if [ "$1" = show ]; then echo localhost; fi
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of one process."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    python = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(tmp_path), python, os.environ["PATH"]]),
        "SCONTROL_LOG": str(tmp_path / "scontrol.log"),
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }


def start(job: dict[str, str], output: Path, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", "ci/slurm/train.sbatch", str(TRAINER), "--output", str(output), *flags], cwd=ROOT, env=job
    )


def test_a_preempted_training_is_queued_again_and_ends_the_same(job: dict[str, str], tmp_path: Path) -> None:
    straight = start(job, tmp_path / "straight")
    run = start(job, tmp_path / "run", "--slow", "0.1")
    while not (tmp_path / "run/checkpoints").exists():
        time.sleep(0.1)
        assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert "requeue 7" in (tmp_path / "scontrol.log").read_text()
    assert '"step": 24' not in (tmp_path / "run/metrics.jsonl").read_text(), "it was not stopped before its end"
    assert start(job, tmp_path / "run", "--slow", "0.1").wait() == 0
    assert straight.wait() == 0
    weights = [sha256(tmp_path / name / "model/model.safetensors") for name in ("straight", "run")]
    assert weights[0] == weights[1]


def test_several_nodes_are_one_training(job: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "srun").write_text('#!/usr/bin/env bash\nSLURM_NODEID=1 exec "$@"\n')
    (tmp_path / "accelerate").write_text('#!/usr/bin/env bash\necho "$@" >"$SCONTROL_LOG"\n')
    (tmp_path / "accelerate").chmod(0o755)
    job |= {"SLURM_GPUS_ON_NODE": "8", "SLURM_NNODES": "2"}
    assert start(job, tmp_path / "a run").wait() == 0
    assert (tmp_path / "scontrol.log").read_text() == (
        "launch --num_processes 16 --num_machines 2 --machine_rank 1 --main_process_ip localhost "
        f"--main_process_port 29500 {TRAINER} --output {tmp_path}/a run\n"
    )


def test_a_training_that_fails_is_not_queued_again(job: dict[str, str], tmp_path: Path) -> None:
    assert start(job, tmp_path / "run", "--nan-at", "3").wait() == 2
    assert not (tmp_path / "scontrol.log").exists()
