"""The command of an installed project: `fullpaper-fftformer train --preset gopro_released ...`.

The commands are the scripts in the project's folder: `train.py`, `evaluate.py`, `predict.py`, and those of
further tasks in folders of their own. A wheel contains them in `<package>/verbs/`.
`python -m fftformer train` does the same, so `accelerate launch -m fftformer train` trains on several GPUs.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

from common.errors import UserError, command

NAMES = ("train", "evaluate", "predict")


def find_verbs(package: str) -> dict[str, Path]:
    """Return the scripts of a project by name, for example "train" or "segmentation train".

    Args:
        package: the project's importable name.

    Raises:
        UserError: the installed package holds no scripts.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent
    checkout = installed.parents[1]
    folder = checkout if (checkout / "pyproject.toml").exists() else installed / "verbs"
    paths = [path for name in NAMES for pattern in (f"{name}.py", f"*/{name}.py") for path in folder.glob(pattern)]
    if not paths:
        raise UserError(f"{installed}: holds none of the scripts {', '.join(NAMES)}; install the project again")
    return {" ".join(path.relative_to(folder).with_suffix("").parts): path for path in paths}


@command
def main() -> None:
    """Run the script that the first words of the command line name, with the flags after them."""
    program = Path(sys.argv[0])  # .../bin/fullpaper-fftformer or .../fftformer/__main__.py
    package = program.parent.name if program.name == "__main__.py" else program.name.removeprefix("fullpaper-")
    verbs = find_verbs(package)
    words = [word for word in sys.argv[1:3] if not word.startswith("-")]
    for count in range(len(words), 0, -1):
        if path := verbs.get(" ".join(words[:count])):
            sys.argv = [str(path), *sys.argv[1 + count :]]
            runpy.run_path(str(path), run_name="__main__")
            return
    usage = f"expected one of: {', '.join(sorted(verbs))}; each explains its flags with --help"
    if words:
        raise UserError(f"fullpaper-{package} {' '.join(words)}: no such command; {usage}")
    print(f"fullpaper-{package}: {usage}")
