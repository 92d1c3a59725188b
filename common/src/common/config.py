"""Typed configuration: a preset, changed by the command line, written into the run's folder.

A preset is a function that returns a frozen dataclass; its docstring says the command, the
hardware, the time and the score to expect. `tyro` turns the dataclass into flags, and the
docstrings below the fields into `--help`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from common.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The flags that every trainer has. Projects add their own fields in a subclass."""

    preset: str = "demo"
    """Which published experiment (or the demo) gives the defaults of all other flags."""
    data_root: Path | None = None
    """Folder that holds the data set in its published layout; see the project's README."""
    output: Path | None = None
    """The run's folder; by default runs/<paper>_<preset>."""
    seed: int = 0
    """Seeds weights, sample order and augmentation, in every process and worker."""
    resume: str = "auto"
    """auto: continue from the newest intact checkpoint in the run's folder. none: start anew in an
    empty folder. Otherwise the path of a checkpoint folder (.../checkpoints/step_00012000)."""
    max_steps: int | None = None
    """Stop after this many optimiser updates in all; schedules keep their full length."""
    batch_size: int = 8
    """Samples per process and forward pass."""
    workers: int = 4
    """Data loading processes per training process; 0 loads in the training process."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast type of the forward pass."""
    gradient_accumulation: int = 1
    """Forward passes per optimiser update."""
    compile: bool = False
    """Compile the network with torch.compile; the first steps take minutes, the later ones less."""
    save_every: int = 1000
    """Optimiser updates between two checkpoints; the newest two are kept."""
    log_every: int = 10
    """Optimiser updates between two lines of metrics.jsonl."""


Config = TypeVar("Config", bound=RunConfig)


def from_command_line(
    presets: Mapping[str, Callable[[], Config]], doc: str | None, arguments: Sequence[str] | None = None
) -> Config:
    """Build the configuration of a training run: the preset's values, overridden by flags.

    Args:
        presets: name → function that returns the preset; the first one is the default.
        doc: the script's docstring; `--help` shows it, with the presets appended.
        arguments: the command line without the program's name; by default the process's own.

    Raises:
        UserError: the preset does not exist; the message lists those that do.
        SystemExit: `--help`, or a flag or value that does not parse (status 2).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = _value_of("--preset", arguments) or next(iter(presets))
    if name not in presets:
        raise UserError(f"--preset {name} does not exist; choose one of {', '.join(presets)}")
    default = dataclasses.replace(presets[name](), preset=name)
    summaries = "\n".join(f"    {key}: {(make.__doc__ or '').strip().splitlines()[0]}" for key, make in presets.items())
    help_text = f"{(doc or '').strip()}\n\nPresets (values shown below are those of {name}):\n{summaries}"
    return tyro.cli(type(default), default=default, args=arguments, description=help_text)


def parse(config: Callable[..., T], doc: str | None, arguments: Sequence[str] | None = None) -> T:
    """Parse the command line of a script that has no presets into a dataclass."""
    return tyro.cli(config, args=arguments, description=(doc or "").strip())


def to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON-able values: paths become text, tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def recorded(checkpoint: Path) -> dict[str, Any]:
    """The flags of the run that exported a model folder; `{"preset": "released"}` for a file, "unknown" otherwise."""
    try:
        return dict(json.loads((checkpoint.parent / "config.json").read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"preset": "released" if checkpoint.is_file() else "unknown"}


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of `flag` in a command line, written as `flag value` or `flag=value`."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None
