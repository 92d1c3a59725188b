"""Change the code, one line at a time, and check that the tests notice.

    python ci/mutants.py                    every mutant of every project
    python ci/mutants.py --only schedule    those whose file or reason contains the word

Each project lists its mutants in tests/mutants.toml: the file, the text to find (it must occur there exactly once), its
replacement, the tests that must fail, and why it matters. The change is made in a copy of the checkout, never in place.
The exit status is 1 if a mutant survives; if tests fail without a mutant, the script stops.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from common.config import parse
from common.errors import UserError, command
from common.results import markdown

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(".git", ".nox", ".venv", "runs", "data", "__pycache__", ".*_cache")


@dataclass(frozen=True, kw_only=True)
class MutantsConfig:
    """Flags of this script."""

    only: str = ""
    """Use only mutants whose file or reason contains this text."""


@dataclass(frozen=True)
class Mutant:
    """One deliberate fault.

    Attributes:
        file: the file to change, relative to the repository's root.
        find: the text that is replaced; it occurs in the file exactly once.
        replace: its replacement.
        tests: files or test names for pytest, relative to the repository's root; at least one test must fail.
        why: the consequence for a user.
    """

    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    why: str


@command
def main() -> None:
    """Test every mutant and print one table."""
    options = parse(MutantsConfig, __doc__)
    chosen = [mutant for mutant in find_mutants() if options.only in f"{mutant.file} {mutant.why}"]
    if not chosen:
        raise UserError(f"--only {options.only}: no mutant's file or reason holds this text; leave it out for all")
    lines, wrong = [], False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if not passes(copy, tests):
                raise UserError(f"{' '.join(tests)}: fails on unchanged code; fix it first")
        for mutant in chosen:
            survived = try_mutant(copy, mutant)
            wrong = wrong or survived
            lines.append([mutant.file, mutant.why, "**survived**" if survived else "noticed"])
            print(f"{lines[-1][2]}: {mutant.file}: {mutant.why}", flush=True)
    print(markdown(["file", "damage", "tests"], lines))
    sys.exit(1 if wrong else 0)


def find_mutants() -> list[Mutant]:
    """Return all mutants of all projects.

    Raises:
        UserError: a text to find does not occur in its file exactly once.
    """
    found = []
    for path in sorted(ROOT.glob("*/tests/mutants.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            tests = entry["tests"]
            mutant = Mutant(**{**entry, "tests": (tests,) if isinstance(tests, str) else tuple(tests)})
            count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.find)
            if count != 1:
                raise UserError(f"{path}: {mutant.find!r} stands in {mutant.file} {count} times, expected once")
            found.append(mutant)
    return found


def try_mutant(copy: Path, mutant: Mutant) -> bool:
    """Return whether the tests pass on the changed copy, and restore the copy."""
    path = copy / mutant.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(mutant.find, mutant.replace), encoding="utf-8")
    try:
        return passes(copy, mutant.tests)
    finally:
        path.write_text(sound, encoding="utf-8")


def passes(copy: Path, tests: tuple[str, ...]) -> bool:
    """Run tests of the copy, with the copy's packages before the installed ones on Python's path."""
    sources = os.pathsep.join(str(path) for path in sorted(copy.glob("*/src")))
    arguments = [sys.executable, "-m", "pytest", "--config-file", "ci/pytest.ini", "--exitfirst", *tests]
    environment = {**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(arguments, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise UserError(f"{' '.join(tests)}: pytest could not run them: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
