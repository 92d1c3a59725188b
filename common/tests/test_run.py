"""Runs are exact: interrupted, killed, damaged or split over processes, the numbers stay the same."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from common import checkpoints
from common.config import RunConfig
from common.errors import UserError
from common.run import Run
from support.scripts import Script, run_script

TOY = Path(__file__).parent / "toy_trainer.py"


def toy(*arguments: object, status: int = 0, processes: int = 1) -> str:
    """Run the toy trainer to its end and return what it printed."""
    done = run_script(TOY, *arguments, status=status, processes=processes)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def state(folder: Path, step: int = 24) -> dict:
    return torch.load(folder / f"checkpoints/step_{step:08d}/state.pt", weights_only=True)


def assert_same(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_second"} for line in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    toy("--output", folder)
    return folder


def test_an_interrupted_run_ends_bitwise_like_a_straight_one(straight: Path, tmp_path: Path) -> None:
    toy("--output", tmp_path, "--max-steps", 7)
    toy("--output", tmp_path, "--workers", 2)
    assert_same(state(straight), state(tmp_path))
    assert metrics(straight) == metrics(tmp_path)


def test_killed_at_random_moments_it_still_ends_the_same(straight: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    for _ in range(3):
        trainer = Script(TOY, "--output", tmp_path, "--slow", 0.15)
        time.sleep(moments.uniform(0.2, 1.2))
        trainer.processes[0].kill()
        trainer.finish(-signal.SIGKILL)
    toy("--output", tmp_path, "--slow", 0.15)
    assert_same(state(straight), state(tmp_path))
    assert metrics(straight) == metrics(tmp_path)


def test_a_killed_run_leaves_no_loading_process(tmp_path: Path) -> None:
    trainer = Script(TOY, "--output", tmp_path, "--slow", 0.2, "--workers", 2)
    while not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.05)
    begun = psutil.Process(trainer.processes[0].pid).children(recursive=True)
    assert len(begun) >= 2
    trainer.processes[0].kill()
    trainer.finish(-signal.SIGKILL)
    _, left = psutil.wait_procs(begun, timeout=20)
    for process in left:
        process.kill()
    assert left == []


def test_sigterm_saves_and_the_same_command_continues(straight: Path, tmp_path: Path) -> None:
    arguments = ["--output", tmp_path, "--slow", 0.2]
    trainer = Script(TOY, *arguments)
    while not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.05)
    trainer.processes[0].terminate()
    assert "the same command continues" in trainer.finish().stdout
    steps = [int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step_*")]
    assert len(steps) == 1 and steps[0] % 5, "it saved at the step where it was told to stop"
    toy(*arguments)
    assert_same(state(straight), state(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_passed_over(straight: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    toy("--output", folder, "--max-steps", 10)
    victim = folder / "checkpoints/step_00000010/state.pt"
    content = bytearray(victim.read_bytes())
    if damage == "truncated":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()
    assert re.search("continuing from .*step_00000005", toy("--output", folder))
    assert_same(state(straight), state(folder))


def test_all_checkpoints_damaged_is_one_sentence(straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    for path in folder.glob("checkpoints/*/state.pt"):
        path.write_bytes(b"")
    assert "state.pt is damaged" in toy("--output", folder, status=2)


def test_two_processes_see_the_batches_of_one(tmp_path: Path) -> None:
    """Global batches, not their split, decide what is learned; dropout is the only difference left."""
    from common.sampling import EndlessSampler

    def take(sampler: EndlessSampler, count: int) -> list[tuple[int, int]]:
        stream = iter(sampler)
        return [next(stream) for _ in range(count)]

    whole = take(EndlessSampler(13, batch_size=8, seed=3), 64)
    halves = [take(EndlessSampler(13, batch_size=4, seed=3, rank=r, processes=2), 32) for r in range(2)]
    joined = [key for i in range(0, 32, 4) for half in halves for key in half[i : i + 4]]
    assert whole == joined
    assert sorted(index for _, index in whole[:13]) == list(range(13)), "an epoch holds every sample once"
    assert take(EndlessSampler(13, batch_size=8, seed=3, start=5), 24) == whole[40:]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    from common.sampling import EndlessSampler

    def order(seed: int, epoch: int) -> list[int]:
        stream = iter(EndlessSampler(13, batch_size=13, seed=seed, start=epoch))
        return [index for _, index in (next(stream) for _ in range(13))]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(one) == list(range(13)) for one in orders)
    assert len(set(map(tuple, orders))) == 4


def test_two_real_processes_resume_bitwise(tmp_path: Path) -> None:
    toy("--output", tmp_path / "straight", processes=2)
    toy("--output", tmp_path / "resumed", "--max-steps", 9, processes=2)
    toy("--output", tmp_path / "resumed", processes=2)
    assert_same(state(tmp_path / "straight"), state(tmp_path / "resumed"))
    lines = metrics(tmp_path / "resumed")
    assert lines == metrics(tmp_path / "straight")
    assert len([line for line in lines if line["step"] == 24]) == 1, "only one process writes"
    assert json.loads((tmp_path / "resumed/config.json").read_text())["processes"] == 2
    one, other = (json.loads((tmp_path / f"straight/scored_{rank}.json").read_text()) for rank in range(2))
    assert one.pop("seed") != other.pop("seed"), "processes draw other dropout"
    assert one == other, "every process scores with the main one's statistics"
    assert not one["training"]


def test_accumulation_updates_once_per_group(tmp_path: Path) -> None:
    toy("--output", tmp_path / "straight", "--gradient-accumulation", 3)
    toy("--output", tmp_path / "resumed", "--gradient-accumulation", 3, "--max-steps", 6)
    toy("--output", tmp_path / "resumed", "--gradient-accumulation", 3)
    one = state(tmp_path / "straight")
    assert_same(one, state(tmp_path / "resumed"))
    assert one["schedule"]["last_epoch"] == 24


def test_a_diverged_loss_names_the_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    output = toy("--output", tmp_path, "--nan-at", 7, status=2)
    assert "diverged at step 7 (loss nan" in output and "step_00000005 is intact" in output
    assert checkpoints.newest(tmp_path / "checkpoints").name == "step_00000005"


def test_a_nan_on_the_saving_step_is_not_saved(tmp_path: Path) -> None:
    toy("--output", tmp_path, "--nan-at", 10, status=2)
    assert checkpoints.newest(tmp_path / "checkpoints").name == "step_00000005"


def test_a_changed_configuration_is_refused_by_name(straight: Path) -> None:
    assert "learning_rate 0.05 -> 0.1" in toy("--output", straight, "--learning-rate", 0.1, status=2)
    assert "already holds a run" in toy("--output", straight, "--resume", "none", status=2)


def test_a_worker_s_error_stays_one_sentence(tmp_path: Path) -> None:
    output = toy("--output", tmp_path, "--bad-sample", 4, "--workers", 1, status=2)
    assert output.strip().splitlines()[-1] == "error: picture_4.png: truncated; copy it again"


def test_help_lists_presets_and_defaults() -> None:
    output = toy("--help")
    assert "demo: A short training on noise." in output and "--learning-rate" in output and "0.05" in output
    assert "choose one of demo" in toy("--preset", "nonsense", status=2)


class Part:
    """Something with a state."""

    def __init__(self, size: int = 1) -> None:
        self.value = torch.zeros(size)

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """The file size limit imitates a full disk: torch reports both in the same way."""
    checkpoints.save(tmp_path / "step_00000001", {"part": Part()}, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UserError, match=r"step_00000002: could not be written .*free some disk space"):
            checkpoints.save(tmp_path / "step_00000002", {"part": Part(1 << 16)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["step_00000001"]
    assert checkpoints.find(tmp_path, "auto") == tmp_path / "step_00000001"


def test_a_save_killed_at_any_file_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the save at each of its system calls in turn, as SIGKILL would, and check which checkpoint is found."""

    class Killed(BaseException):
        pass

    calls = {"left": 0}

    def counted(function):
        def wrapper(*args, **kwargs):
            if calls["left"] == 0:
                raise Killed
            calls["left"] -= 1
            return function(*args, **kwargs)

        return wrapper

    checkpoints.save(tmp_path / "step_00000001", {"part": Part()}, {"step": 1})
    for name in ("sync", "write_json", "sha256"):
        monkeypatch.setattr(checkpoints, name, counted(getattr(checkpoints, name)))
    monkeypatch.setattr(checkpoints.os, "replace", counted(os.replace))
    for moment in range(100):
        calls["left"] = moment
        try:
            checkpoints.save(tmp_path / "step_00000002", {"part": Part(5)}, {"step": 2})
        except Killed:
            calls["left"] = 1000
            found = checkpoints.find(tmp_path, "auto")
            assert found in (tmp_path / "step_00000001", tmp_path / "step_00000002")
            restored = Part()
            checkpoints.load(found, {"part": restored})
            assert len(restored.value) == (1 if found.name.endswith("1") else 5)
            checkpoints.remove_partial(tmp_path)
        else:
            break
    assert moment > 6, "the save was stopped at several moments before it went through"


def test_zero_means_no_lines_and_one_checkpoint(straight: Path, tmp_path: Path) -> None:
    toy("--output", tmp_path, "--log-every", 0, "--save-every", 0)
    assert not (tmp_path / "metrics.jsonl").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000024"]
    assert_same(state(straight), state(tmp_path))


def test_a_diverged_loss_is_noticed_without_lines(tmp_path: Path) -> None:
    assert "diverged at step 7" in toy("--output", tmp_path, "--nan-at", 7, "--log-every", 0, status=2)


def test_a_checkpoint_is_flushed_and_complete_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path / f"step_{step:08d}", {"part": Part()}, {"step": step})
    flushed: set[str] = set()
    at_rename: list[set[str]] = []
    rename = os.replace

    def fsync(descriptor: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def replace(old: Path, new: Path) -> None:
        if Path(new).name == "step_00000003":
            at_rename.append({path.name for path in Path(old).iterdir()} - flushed)
            at_rename.append({path.name for path in tmp_path.glob("step_*")})
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    checkpoints.save(tmp_path / "step_00000003", {"part": Part()}, {"step": 3})
    not_flushed, older = at_rename
    # manifest.json was flushed under its temporary name.
    assert not_flushed == {"manifest.json"} and any("manifest" in name for name in flushed)
    assert older == {"step_00000001", "step_00000002"}
    assert {path.name for path in tmp_path.iterdir()} == {"step_00000002", "step_00000003"}


@dataclass(frozen=True, kw_only=True)
class OfOneFile(RunConfig):
    """A run on one file."""

    cube: str


@pytest.mark.parametrize("key", ["", ":cube"])
def test_a_run_does_not_go_on_with_other_data_of_the_same_name(tmp_path: Path, key: str) -> None:
    data, folder = tmp_path / "cube.npy", tmp_path / "run"
    data.write_bytes(b"one")

    def go_on(steps: int) -> int:
        run = Run(OfOneFile(cube=f"{data}{key}", output=folder, max_steps=steps), paper="toy", steps=3)
        run.restore(model=torch.nn.Linear(1, 1))
        done = sum(1 for _ in run.updates())
        run.close()
        return done

    assert (go_on(1), go_on(2)) == (1, 1)
    data.write_bytes(b"two")
    with pytest.raises(UserError, match="holds a run with another configuration \\(content of cube"):
        go_on(3)
