"""Typed configuration: a preset whose values the command line can change; a run records it in its folder.

A preset is a function that returns a frozen dataclass. `tyro` turns the dataclass into flags, and the docstrings
below the fields into `--help`. Numbers are checked after parsing: they are finite and at least 0, unless the field
says otherwise with `Positive[int]`, `Fraction[float]`, `AnyNumber[float]` or an `Annotated[..., Bound(...)]`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from common.errors import UserError

T = TypeVar("T")
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Bound:
    """The numbers that a flag accepts: `low` to `high`, both included.

    Attributes:
        above: `low` itself is refused.
        below: `high` itself is refused.
        finite: NaN and infinities are refused.
    """

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False
    finite: bool = True

    def holds(self, number: float) -> bool:
        """Whether the flag accepts this number."""
        if not math.isfinite(number):
            return not self.finite
        inside = self.low <= number <= self.high
        return inside and not (self.above and number == self.low) and not (self.below and number == self.high)

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f" {'above' if self.above else 'of at least'} {self.low:.10g}"
        high = "" if self.high == math.inf else f" {'below' if self.below else 'of at most'} {self.high:.10g}"
        return f"a number{low}{' and' if low and high else ''}{high}"


Positive = Annotated[Number, Bound(above=True)]
"""Above 0: `Positive[int]`, `Positive[float] | None`, `tuple[Positive[int], ...]`."""
Fraction = Annotated[Number, Bound(high=1)]
"""0 to 1, both included."""
BelowOne = Annotated[Number, Bound(high=1, below=True)]
"""At least 0 and below 1, for decay rates."""
AnyNumber = Annotated[Number, Bound(low=-math.inf, finite=False)]
"""Any number, also negative, infinite or NaN."""
Seed = Annotated[Number, Bound(high=2**31 - 1)]
"""A seed that NumPy and torch both accept, with room for adding the rank."""
BatchSize = Annotated[Number, Bound(above=True, high=2**20)]
"""Samples of a batch, or batches of an update; the lists of larger numbers, typing errors, would fill the memory."""
Workers = Annotated[Number, Bound(high=256)]
"""Loading processes; many more would fill the machine's memory before one of them loads anything."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The flags that every trainer has. Projects add their own fields in a subclass."""

    preset: str = "demo"
    """Which published experiment (or the demo) gives the defaults of all other flags."""
    data_root: Path | None = None
    """Folder that holds the data set in its published layout; see the project's README."""
    output: Path | None = None
    """The run's folder; by default runs/<paper>_<preset>."""
    seed: Seed[int] = 0
    """Seeds weights, sample order and augmentation, in every process and worker."""
    resume: str = "auto"
    """auto: continue from the newest intact checkpoint in the run's folder. none: start a new run in an
    empty folder. Otherwise the path of a checkpoint folder (.../checkpoints/step_00012000)."""
    max_steps: Positive[int] | None = None
    """Stop after this many optimiser updates in all, at least one; schedules keep their full length."""
    compile: bool = False
    """Compile the network with torch.compile; the first steps take minutes, the later ones less."""
    save_every: int = 1000
    """Optimiser updates between two checkpoints, of which the newest two are kept; 0: only one, at the end."""
    log_every: int = 10
    """Optimiser updates between two lines of losses in metrics.jsonl; 0: none."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(RunConfig):
    """The flags of a trainer that draws batches from a data set. Each flag must have an effect."""

    batch_size: BatchSize[int] = 8
    """Samples per process and forward pass."""
    workers: Workers[int] = 4
    """Data loading processes per training process; 0 loads in the training process."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast type of the forward pass. fp16 scales the loss; an update whose gradients overflow leaves the weights
    as they are and counts like any other."""
    gradient_accumulation: BatchSize[int] = 1
    """Forward passes per optimiser update."""


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
        UserError: the preset does not exist, or a flag does not accept its number.
        SystemExit: `--help`, or a flag or value that does not parse (status 2).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    find_preset = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    find_preset.add_argument("--preset", default=next(iter(presets)))
    name = find_preset.parse_known_args(arguments)[0].preset
    if name not in presets:
        raise UserError(f"--preset {name} does not exist; choose one of {', '.join(presets)}")
    default = _as_launched(dataclasses.replace(presets[name](), preset=name))
    first_lines = {key: (make.__doc__ or "").strip().partition("\n")[0] for key, make in presets.items()}
    summaries = "\n".join(f"    {key}: {line}" for key, line in first_lines.items())
    help_text = f"{(doc or '').strip()}\n\nPresets (values shown below are those of {name}):\n{summaries}"
    return _parsed(type(default), default=default, args=arguments, description=help_text)


def parse(config: Callable[..., T], doc: str | None, arguments: Sequence[str] | None = None) -> T:
    """Parse the command line of a script that has no presets into a dataclass.

    Raises:
        UserError: a flag does not accept its number.
        SystemExit: `--help`, or a flag or value that does not parse (status 2).
    """
    return _parsed(config, args=arguments, description=(doc or "").strip())


def parse_some(config: Callable[..., T], doc: str | None) -> tuple[T, list[str]]:
    """Like `parse`; also return the words of the command line that belong to none of these flags."""
    return _parsed(config, description=(doc or "").strip(), return_unknown_args=True)


def _parsed(config: Callable[..., Any], **options: Any) -> Any:
    import tyro  # noqa: PLC0415 - takes a third of a second

    parsed = tyro.cli(config, **options)
    check_numbers(parsed[0] if isinstance(parsed, tuple) else parsed)
    return parsed


def build(create: Callable[..., T], name: str, options: Sequence[str], **keywords: Any) -> T:
    """Build a network: `create(name, **keywords)`, where the KEY=VALUE options of `--network` replace keywords.

    Raises:
        UserError: an option without a value, an unknown keyword, or a value that the network refuses.
    """
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise UserError(f"--network {option}: expected KEY=VALUE, for example dim=32")
        try:
            keywords[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            keywords[key] = text  # not a Python literal: a word
    try:
        return create(name, **keywords)
    except (ValueError, TypeError) as error:
        raise UserError(f"the network cannot be built: {error}") from None


def check_numbers(config: Any) -> None:
    """Refuse numbers of a dataclass that its fields' types do not allow.

    Raises:
        UserError: the flag, what was found, what was expected.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        bound = next(_bounds(hints[field.name]), Bound())
        if field.name == "seeds" and len(set(value)) < len(value):  # their mean would count a run twice
            raise UserError(f"--seeds {' '.join(map(str, value))}: names a seed twice; expected different ones")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool) and not bound.holds(number):
                raise UserError(f"--{field.name.replace('_', '-')} {number}: expected {bound}")


def _as_launched(config: Config) -> Config:
    """Let `accelerate launch --mixed_precision bf16` act like the flag, where the preset asks for none."""
    asked: Any = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if not isinstance(config, LoaderConfig) or config.mixed_precision != "no" or asked == "no":
        return config
    if asked not in ("fp16", "bf16"):
        raise UserError(f"accelerate's --mixed_precision {asked}: expected no, fp16 or bf16")
    return dataclasses.replace(config, mixed_precision=asked)


def _bounds(hint: Any) -> Iterator[Bound]:
    """The bounds in a type: `Positive[int] | None` holds one, `int` none."""
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        if isinstance(part, Bound):
            yield part
        else:
            yield from _bounds(part)


def to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass as values that JSON can store: paths become text, tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def recorded(checkpoint: Path) -> dict[str, Any]:
    """Return the flags of the run that exported a model folder.

    Without a run the only flag is `preset`: "released" for a file, "unknown" for a folder.

    Raises:
        UserError: the run's config.json is damaged.
    """
    path = checkpoint.parent / "config.json"
    preset = {"preset": "released" if checkpoint.is_file() else "unknown"}
    try:
        found = preset | dict(json.loads(path.read_text(encoding="utf-8"))["config"])
        return found if isinstance(found["preset"], str) else preset
    except (OSError, KeyError, TypeError):
        return preset
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error}); copy the run again, or move the model out of it") from None
