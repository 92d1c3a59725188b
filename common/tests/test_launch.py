"""Processes of one run, however they were started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.state import PartialState
from torch import nn

from common import environment, launch
from common.config import LoaderConfig, RunConfig, from_command_line
from common.errors import UserError
from support.scripts import run_script

TOY = Path(__file__).parent / "toy_trainer.py"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process without launcher, GPU or accelerate's state."""
    for name in ("WORLD_SIZE", "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(launch, "_has_gpu", lambda: False)
    return monkeypatch


def start(monkeypatch: pytest.MonkeyPatch, *words: str, launcher: tuple[str, ...] = ("accelerate", "launch")) -> None:
    """Pretend that `accelerate launch` with these words started this process."""
    parent = type("Parent", (), {"cmdline": lambda self: ["python", *launcher, *words]})()
    monkeypatch.setattr(psutil.Process, "parent", lambda self: parent)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


def test_torchrun_s_processes_on_cpu_are_one_run(tmp_path: Path) -> None:
    run_script(TOY, "--output", tmp_path, "--max-steps", 4, processes=2, environment={"ACCELERATE_USE_CPU": "false"})
    assert json.loads((tmp_path / "config.json").read_text())["processes"] == 2
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4], "every line once"
    assert len(list((tmp_path / "checkpoints").glob("step_*/random_*.pt"))) == 2


def test_batch_norms_are_synchronised_over_gpus_only() -> None:
    for processes, device, synchronised in ((2, "cuda", True), (1, "cuda", False), (2, "cpu", False)):
        (norm,) = launch.sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), processes, torch.device(device))
        assert isinstance(norm, nn.SyncBatchNorm) is synchronised


def test_only_processes_without_gpu_are_told_to_use_the_cpu(fresh: pytest.MonkeyPatch) -> None:
    launch.prepare()
    assert "ACCELERATE_USE_CPU" not in os.environ
    fresh.setenv("WORLD_SIZE", "2")
    assert launch.processes() == 2
    launch.prepare()
    assert os.environ["ACCELERATE_USE_CPU"] == "true"


@pytest.mark.parametrize("words", [("--num_processes", "3"), ("--num-processes=3",)])
@pytest.mark.parametrize(
    "launcher", [("/bin/accelerate", "launch"), ("/bin/accelerate-launch",), ("-m", "a/launch.py")]
)
def test_a_launcher_that_starts_one_process_only_says_so(
    fresh, launcher: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    start(fresh, *words, "train.py", launcher=launcher)
    launch.prepare()
    assert "--num_processes 3 runs a single process; for 3 processes start with: torchrun" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("train.py",), ("--num_processes", "1", "train.py"), ("--num_processes",)])
def test_nothing_is_said_of_one_process(fresh, words, capsys: pytest.CaptureFixture[str]) -> None:
    start(fresh, *words)
    launch.prepare()
    assert capsys.readouterr().out == ""


def test_the_launcher_s_precision_acts_like_the_flag(fresh: pytest.MonkeyPatch) -> None:
    def precision(*arguments: str, preset: str = "no") -> str:
        return from_command_line({"demo": lambda: LoaderConfig(mixed_precision=preset)}, "", arguments).mixed_precision

    assert precision() == "no"
    fresh.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert precision() == "bf16"
    assert precision("--mixed-precision", "no") == "no"
    assert precision(preset="fp16") == "fp16"
    assert not hasattr(from_command_line({"demo": RunConfig}, "", []), "mixed_precision")
    fresh.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UserError, match="--mixed_precision fp8: expected no, fp16 or bf16"):
        precision()


def test_the_recorded_command_names_the_launcher(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(sys, "argv", ["/elsewhere/train.py", "--seed", "3"])
    fresh.setattr(environment.torch.cuda, "is_available", lambda: False)
    assert environment.command_line() == "python /elsewhere/train.py --seed 3"
    fresh.setenv("WORLD_SIZE", "2")
    assert environment.command_line() == "torchrun --nproc-per-node 2 /elsewhere/train.py --seed 3"


def test_half_precision_needs_a_gpu() -> None:
    """accelerate would compute in float32 without a message."""
    for precision in ("no", "bf16"):
        launch.check_precision(precision, torch.device("cpu"))
    launch.check_precision("fp16", torch.device("cuda"))
    with pytest.raises(UserError, match="--mixed-precision fp16: needs a GPU; on a CPU use bf16 or no"):
        launch.check_precision("fp16", torch.device("cpu"))
