"""Fault campaign: kill every trainer at random moments, damage its checkpoints, kill one of two processes.

    python ci/faults.py                                 all trainers, more than an hour on one core
    python ci/faults.py --papers fftformer --kills 3    the trainers of one project, a few minutes
    python ci/faults.py --papers biformer/detection     one trainer

For each trainer a short training runs without interruption. Then the same command is killed with SIGKILL at random
moments between the opening of its folder and its end, and started again, until it has been killed `--kills` times. A
run that ends in between is compared, and a new one is started. Weights (`model*/model.safetensors`), recorded metrics
and result rows must be bitwise equal to those of the uninterrupted run. After that, single bits of the newest
checkpoint are flipped and its files are truncated: the run must use the older checkpoint and end with equal results
or, if no checkpoint is intact, stop with one sentence. Last, one of two processes is killed, both are started again,
and their results must equal those of two uninterrupted processes. The projects' tests are a short form of this.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.config import parse
from common.errors import UserError, command
from common.files import sha256
from common.hyperspectral.synthetic import synthetic_scene
from common.results import markdown
from projects import PROJECTS, ROOT
from support.scripts import Finished, Script

# For each trainer the shortest training that still uses everything that a checkpoint stores: several validations,
# averaged weights, schedules, random augmentation, dropout or mixing, loading processes, several seeds.
TRAINERS = {
    name: (ROOT / paper / trainer["script"], trainer["flags"])
    for paper, settings in PROJECTS.items()
    for trainer in settings["trainers"]
    for name in [f"{paper}/{trainer['script']}"]
}
# Seconds that a training may take on a busy machine.
PATIENCE = 3600
DAMAGES = (
    ("state.pt", "truncated"),
    ("state.pt", "bit flipped"),
    ("random_0.pt", "bit flipped"),
    ("manifest.json", "bit flipped"),
)


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Flags of this script."""

    papers: tuple[str, ...] = tuple(PROJECTS)
    """Projects, or the first part of trainers' names."""
    kills: int = 20
    """How often each trainer is killed."""
    seed: int = 0
    """Seed of the moments and the damaged bits."""
    output: Path = Path("runs/faults")
    """Folder for faults.md and for the runs, which are removed if they are equal."""


@command
def main() -> None:
    """Test the trainers, print and write one table."""
    options = parse(FaultsConfig, __doc__)
    chosen = [name for name in TRAINERS if name.startswith(options.papers)]
    if unknown := [paper for paper in options.papers if not any(name.startswith(paper) for name in TRAINERS)]:
        raise UserError(f"--papers {' '.join(unknown)}: expected beginnings of {', '.join(TRAINERS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    scene = options.output.resolve() / "scene.npz"
    made = synthetic_scene(40, 44, bands=8, num_classes=3)
    np.savez(scene, cube=made.cube, labels=made.require_labels())
    lines, wrong = [], False
    for name in chosen:
        trainer = Trainer(name, options.output / name.replace("/", "_"), scene, random.Random(options.seed))
        lines.append([name, trainer.killed(options.kills), trainer.damaged(), trainer.two_processes()])
        wrong = wrong or trainer.wrong
        if not trainer.wrong:
            shutil.rmtree(trainer.folder)
        table = markdown(["trainer", "kill -9 at random moments", "damaged checkpoints", "two processes"], lines)
        (options.output / "faults.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    sys.exit(1 if wrong else 0)


class Trainer:
    """One trainer and its uninterrupted run.

    Attributes:
        wrong: whether any result has differed so far.
    """

    def __init__(self, name: str, folder: Path, scene: Path, chance: random.Random) -> None:
        self.name, self.folder, self.chance = name, folder, chance
        self.script, flags = TRAINERS[name]
        self.flags = flags.format(scene=scene).split()
        seeds = re.search(r"--seeds ([\d ]+)", flags)
        self.last = f"seed_{seeds[1].split()[-1]}" if seeds else ""
        self.wrong = False
        shutil.rmtree(folder, ignore_errors=True)
        started = time.time()
        script = self.start("straight")
        self.opening = self.wait_until_open("straight", started) - started
        script.finish(timeout=PATIENCE)
        self.seconds = time.time() - started - self.opening
        self.say(f"uninterrupted: {self.opening:.0f} s to start, {self.seconds:.0f} s to train, score and draw")

    def start(self, name: str, *flags: object, processes: int = 1) -> Script:
        """Start the training in its own folder."""
        output = self.folder / name
        return Script(self.script, "--preset", "demo", *self.flags, "--output", output, *flags, processes=processes)

    def wait_until_open(self, name: str, since: float) -> float:
        """Wait until the run has written its config.json; return when that was."""
        while time.time() < since + 600:
            if any(path.stat().st_mtime > since for path in (self.folder / name).glob("**/config.json")):
                return time.time()
            time.sleep(0.01)
        raise UserError(f"{self.folder / name}: no config.json after ten minutes; run its command by hand")

    def killed(self, kills: int) -> str:
        """Kill a training of one process `kills` times and compare each finished run."""
        done = compared = equal = 0
        clock = time.time()
        while done < kills or compared == 0 or (self.folder / "killed").exists():
            if done < kills and self.kill_once("killed"):
                done += 1
                left = (time.time() - clock) / done * (kills - done) + self.seconds
                self.say(f"kill {done} of {kills}, {self.steps('killed')}; about {left / 60:.0f} min left")
                continue
            if done == kills:
                self.start("killed").finish(timeout=PATIENCE)
            compared, equal = compared + 1, equal + self.compare("killed", "straight")
        return f"{done} kills over {compared} runs: {verdict(equal, compared)}"

    def kill_once(self, name: str, processes: int = 1) -> bool:
        """Start the training and kill it at a random moment of its first half; return whether it was still running."""
        since = time.time()
        script = self.start(name, processes=processes)
        self.wait_until_open(name, since)
        victim = self.chance.choice(script.processes)
        victim.join(self.chance.uniform(0, self.seconds / 2))
        running = victim.exitcode is None
        if running:
            victim.kill()
            for other in script.processes:  # they wait for the victim; a launcher would end them
                other.join(5)
                other.kill()
        script.finish(None if running else 0, PATIENCE)
        if not running:  # other load may have slowed the uninterrupted run down
            self.seconds = max(self.seconds / 2, 1.0)
        return running

    def damaged(self) -> str:
        """Damage the newest checkpoint of a half-finished run, then all of them."""
        self.kill_halfway("half")
        fell_back = stopped = 0
        for file, damage in DAMAGES:
            shutil.copytree(self.folder / "half", self.folder / "damaged")
            newest = self.checkpoints("damaged")[-1]
            what = self.damage(newest / file, damage)
            text = said(self.start("damaged").finish(timeout=PATIENCE))
            passed_over = "continuing from" in text and f"continuing from {newest}\n" not in text
            equal = self.compare("damaged", "straight")
            fell_back += passed_over and equal
            self.say(f"{what}: {'fell back' if passed_over else 'NOT NOTICED'}, {verdict(equal, 1)}")
        shutil.copytree(self.folder / "half", self.folder / "damaged")
        for checkpoint in self.checkpoints("damaged"):
            if (checkpoint / "state.pt").exists():  # the kill may have happened while an old one was deleted
                self.damage(checkpoint / "state.pt", "truncated")
        text = said(self.start("damaged").finish(2))
        stopped = len(re.findall(r"^error: .*damaged.*no older one is intact", text, re.MULTILINE)) == 1
        stopped = stopped and "Traceback" not in text
        self.wrong = self.wrong or fell_back != len(DAMAGES) or not stopped
        shutil.rmtree(self.folder / "damaged")
        return f"{fell_back} of {len(DAMAGES)} passed over, then equal; all: {'one sentence' if stopped else 'WRONG'}"

    def kill_halfway(self, name: str) -> None:
        """Kill the run after half of the steps of the last seed."""

        def newest(run: str) -> int:
            return int(self.checkpoints(run)[-1].name.removeprefix("step_")) if self.checkpoints(run) else 0

        half, script = newest("straight") // 2, self.start(name)
        while newest(name) < half and script.processes[0].exitcode is None:
            time.sleep(0.01)
        script.processes[0].kill()
        script.finish(None)

    def damage(self, victim: Path, damage: str) -> str:
        """Cut a file in two at a random place, or flip one random bit of it."""
        content = bytearray(victim.read_bytes())
        place = self.chance.randrange(len(content))
        if damage == "truncated":
            content = content[:place]
        else:
            content[place] ^= 1 << self.chance.randrange(8)
        victim.write_bytes(content)
        return f"{victim.name} {damage} at byte {place:,}"

    def two_processes(self) -> str:
        """Kill one of two processes twice, and compare with two uninterrupted processes."""
        self.start("two", processes=2).finish(timeout=PATIENCE)
        kills = sum(self.kill_once("two_killed", processes=2) for _ in range(2))
        self.start("two_killed", processes=2).finish(timeout=PATIENCE)
        equal = self.compare("two_killed", "two")
        found = f"{kills} kills of one: {verdict(equal, 1)}"
        self.say(f"two processes, {found}")
        return found

    def compare(self, name: str, straight: str) -> bool:
        """Return whether both runs are bitwise equal; remove an equal run, and keep a different one for inspection."""
        ours, theirs = facts(self.folder / name), facts(self.folder / straight)
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            self.wrong = True
            kept = self.folder / f"{name}_differs_{time.time_ns()}"
            (self.folder / name).rename(kept)
            self.say(f"DIFFERENT: {', '.join(different)}; see {kept}")
            return False
        shutil.rmtree(self.folder / name)
        return True

    def checkpoints(self, name: str) -> list[Path]:
        """Return the checkpoint folders of the last seed, or of the only run, oldest first."""
        return sorted((self.folder / name / self.last / "checkpoints").glob("step_*"))

    def steps(self, name: str) -> str:
        """Return the name of the run's newest checkpoint."""
        newest = sorted((self.folder / name).glob("**/checkpoints/step_*"))
        return f"{newest[-1].relative_to(self.folder / name)}" if newest else "no checkpoint yet"

    def say(self, text: str) -> None:
        """Print with the trainer's name."""
        print(f"{self.name}: {text}", flush=True)


def facts(folder: Path) -> dict[str, object]:
    """Return all results that must not depend on interruptions: weights, scalars except the speed, and rows."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == "model.safetensors":
            found[name] = sha256(path)
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[name] = [{k: v for k, v in line.items() if k != "samples_per_second"} for line in lines]
        elif path.name == "results.json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            found[name] = [(row["preset"], row["split"], row["metric"], row["value"], row.get("std")) for row in rows]
    return found


def verdict(equal: int, of: int) -> str:
    """Return the number of equal runs in words."""
    return "bitwise equal" if equal == of else f"DIFFERENT in {of - equal}"


def said(done: Finished) -> str:
    """Return everything that a run printed."""
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
