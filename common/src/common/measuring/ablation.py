"""Ablations: train variants of a network with the project's `train.py`, measure them, and print one table.

    ablate(__doc__, VARIANTS, load=load_model, example=example, metrics=("PSNR (dB)", "SSIM"))

A variant has a title in the table and the flags of `train.py` that define it, mostly `--network KEY=VALUE`. Flags that
the ablation does not have itself are passed to every training, so any data set and recipe of the project can be used.
Variants train one after the other in this process, each in OUTPUT/<variant>. The same command continues an interrupted
ablation.
"""

from __future__ import annotations

import os
import runpy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from common.config import Seed, parse_some
from common.environment import choose_device
from common.errors import UserError
from common.files import atomic_path
from common.measuring.counting import count, timed
from common.results import SPREAD, Row, digits, markdown, measured, read_rows, write_rows

Variants = Mapping[str, tuple[str, Sequence[str]]]
"""Variant name → its title in the table, its flags of train.py. The first variant is the released network."""
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """Flags of this script. All other flags are passed to train.py in every training."""

    variants: tuple[str, ...] = ()
    """Names of the variants to train; by default all."""
    seeds: tuple[Seed[int], ...] = ()
    """Seeds to train every variant with; by default those named in the description above."""
    output: Path | None = None
    """Folder for the runs, ablation.md and results.json; by default runs/<paper>_ablation."""


def ablate(
    doc: str | None,
    variants: Variants,
    *,
    load: Callable[[Path], Any],
    example: Callable[[Any], tuple[Tensor, ...]],
    metrics: Sequence[str],
    seeds: Sequence[int] = (0,),
    together: bool = False,
) -> None:
    """Train and measure all variants and print the table: all that a project's `ablation.py` does.

    Args:
        doc: the script's docstring, for `--help`.
        load: a model folder → the network.
        example: a network → the inputs with which its operations are counted and its times are measured.
        metrics: the columns of the table, by their names in a run's `results.json`.
        seeds: the default of `--seeds`.
        together: whether train.py trains all seeds in one call, with `--seeds`.

    Raises:
        UserError: a variant is unknown.
        SystemExit: a training was stopped, or its flags are wrong.
    """
    options, flags = parse_some(AblationConfig, doc)
    if unknown := set(options.variants) - set(variants):
        raise UserError(f"--variants {', '.join(sorted(unknown))}: unknown; choose among {', '.join(variants)}")
    script = Path(sys.argv[0]).with_name("train.py")
    output = options.output or Path("runs") / f"{script.resolve().parent.name}_ablation"
    chosen = {name: variants[name] for name in options.variants or variants}
    rows: dict[str, list[Row]] = {}
    models: dict[str, nn.Module] = {}
    every = options.seeds or tuple(seeds)
    for name, (title, own) in chosen.items():
        runs = []
        for part in [every] if together else [(seed,) for seed in every]:
            folder = output / name / ("" if together else f"seed_{part[0]}")
            seed_flags = ["--seeds" if together else "--seed", *map(str, part)]
            _train(script, [*flags, *own, *seed_flags, "--output", str(folder)])
            runs.append(_of_network(folder / "results.json", metrics))
        rows[name] = [_over_seeds(same, title, every) for same in zip(*runs, strict=True)]
        models[name] = load(min((output / name).rglob("model/model.safetensors")).parent)
    if int(os.environ.get("RANK", "0")):
        return
    device = choose_device("auto")
    for name, costs in cost(models, example, device).items():
        rows[name] += [
            replace(rows[name][0], metric=metric, definition=definition, value=value, std=None)
            for metric, (value, definition) in costs.items()
        ]
    found = measured([row for lines in rows.values() for row in lines], device)
    text = table(found)
    write_rows(output / "results.json", found)
    with atomic_path(output / "ablation.md") as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    print(text)
    print(f"{found[0].dataset}: {found[0].split}; seeds {list(every)}; {found[0].device}; in {output}")


def cost(
    models: Mapping[str, nn.Module], example: Callable[[Any], tuple[Tensor, ...]], device: torch.device
) -> dict[str, dict[str, tuple[float, str]]]:
    """Return variant → metric → (value, definition), for parameters, multiply-adds and times."""
    inputs = {name: example(model) for name, model in models.items()}
    steps: dict[str, list[float]] = {name: [] for name in models}
    forwards: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + ROUNDS):  # in turns, so that other load affects all variants; the first round warms up
        for name, model in models.items():
            tensors = [value.to(device) for value in inputs[name]]
            network = model.to(device).train()
            steps[name].append(timed(partial(_backward, network, tensors), device))
            network.zero_grad()
            with torch.inference_mode():
                network.eval()
                forwards[name].append(timed(partial(network, *tensors), device))
    result = {}
    for name, model in models.items():
        shape = " × ".join(map(str, inputs[name][0].shape))
        often = f"{shape} values, minimum of {ROUNDS} rounds; the variants are measured in turns"
        result[name] = {
            "parameters": (
                float(sum(p.numel() for p in model.parameters() if p.requires_grad)),
                "number of trained parameters of the whole network",
            ),
            "multiply-adds (M)": (
                multiply_adds(model, inputs[name]),
                f"millions in one forward pass of {shape} values; counts matrix products and convolutions of the "
                "plain implementation",
            ),
            "step (ms)": (1e3 * min(steps[name][1:]), f"forward and backward pass of {often}"),
            "forward (ms)": (1e3 * min(forwards[name][1:]), f"forward pass of {often}"),
        }
    return result


def multiply_adds(model: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return the millions of multiply-adds of a forward pass; the meta device computes nothing."""
    network = deepcopy(model).eval().to("meta")
    no_autocast = patch.object(torch, "autocast", lambda *_, **__: nullcontext())  # the meta device has no autocast
    with no_autocast, torch.no_grad():
        counted = count(partial(network, *(value.to("meta") for value in inputs)))
    assert counted.operations is not None
    return counted.operations / 2e6


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table with a line per variant and a column per metric."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    places = {metric: digits(row.value for row in rows if row.metric == metric) for metric in metrics}
    lines = []
    for title in dict.fromkeys(row.preset for row in rows):
        of = {row.metric: row for row in rows if row.preset == title}
        lines.append([title, *(_cell(of[metric], places[metric]) for metric in metrics)])
    return markdown(["", *metrics], lines)


def _cell(row: Row, places: int) -> str:
    spread = "" if row.std is None else f" ± {row.std:.{places}f}"
    return f"{row.value:,.{places}f}{spread}"


def _train(script: Path, flags: list[str]) -> None:
    """Run train.py in this process; its `SystemExit` ends the ablation too."""
    before = sys.argv
    sys.argv = [str(script), *flags]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before


def _of_network(path: Path, metrics: Sequence[str]) -> list[Row]:
    """The rows of the trained network under its first protocol, without those of baselines, which follow them."""
    rows = read_rows(path)
    first = rows[0]
    return [row for row in rows if (row.preset, row.split) == (first.preset, first.split) and row.metric in metrics]


def _over_seeds(same: Sequence[Row], title: str, seeds: Sequence[int]) -> Row:
    """One row for all runs of a variant, without a published value, which is that of the full recipe."""
    row = replace(same[0], preset=title, seeds=list(seeds), published=None, source=None)
    if len(same) > 1:
        values = [one.value for one in same]
        definition = f"{row.definition}; {SPREAD}"
        row = replace(row, value=statistics.fmean(values), std=statistics.pstdev(values), definition=definition)
    return row


def _backward(network: nn.Module, tensors: Sequence[Tensor]) -> None:
    outputs = network(*tensors)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    torch.stack([output.float().sum() for output in outputs]).sum().backward()
