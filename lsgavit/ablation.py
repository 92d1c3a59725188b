"""The paper's ablation in one table: plain attention, light, Gaussian, light + Gaussian; and as released.

    python lsgavit/ablation.py --data-root DIR                                  Houston 2018 crop, three seeds
    python lsgavit/ablation.py --preset demo --seeds 5 --epochs 10              a quick look, without data

Every variant is trained with `train.py` into OUTPUT/<variant>, so an interrupted ablation continues
where it was. Parameters are those of one attention layer and of the network's trained part;
multiply-adds are counted on the literal equations for one window (matrix products and
convolutions, one multiplication with its addition as one). Times are of one training step and
of one forward pass, both of 128 windows, medians of three.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from common.config import AnyNumber, Positive, Seed, parse
from common.errors import UserError, command
from common.files import atomic_path
from common.hyperspectral.scene import BandAxis
from common.results import Row, markdown, measured, read_rows, write_rows
from lsgavit import LSGAViT, create_model, literal
from lsgavit.model import Block
from lsgavit.presets import PRESETS

VARIANTS = {
    "lsgavit_plain": "plain attention",
    "lsgavit_light": "light",
    "lsgavit_gaussian": "Gaussian",
    "lsgavit_paper": "light + Gaussian (paper)",
    "lsgavit_spatial": "light + Gaussian + token mixing",
    "lsgavit": "light + token-index bias + token mixing (released)",
}


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """Flags of this script."""

    preset: str = "houston2018_crop"
    """Scene and recipe."""
    data_root: Path | None = None
    """Folder that holds the scene."""
    cube: str | None = None
    """Your own scene instead of the preset's: FILE[:KEY]."""
    labels: str | None = None
    """Its class codes: FILE[:KEY]."""
    band_axis: BandAxis | None = None
    """Where the bands of --cube are, if the labels' shape does not tell: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of the pixels of --cube without data, instead of the one its file declares."""
    split: Literal["random", "disjoint", "fixed"] | None = None
    """Instead of the preset's; see train.py."""
    seeds: tuple[Seed[int], ...] = (5, 6, 7)
    """Seeds of every variant."""
    epochs: Positive[int] | None = None
    """Instead of the preset's."""
    max_steps: Positive[int] | None = None
    """Stop every training after this many updates."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which of them."""
    output: Path = Path("runs/lsgavit_ablation")
    """One run per variant, ablation.md and results.json."""


@command
def main() -> None:
    """Train every variant, measure it, print the table."""
    options = parse(AblationConfig, __doc__)
    if options.preset not in PRESETS:
        raise UserError(f"--preset {options.preset} does not exist; choose one of {', '.join(PRESETS)}")
    if unknown := set(options.variants) - set(VARIANTS):
        raise UserError(f"--variants {', '.join(sorted(unknown))}: unknown; choose among {', '.join(VARIANTS)}")
    lines, rows = [], []
    for variant in options.variants:
        scores = {row.metric: row for row in train(variant, options)}
        rows += scores.values()
        lines.append(
            [VARIANTS[variant], *(_spread(scores[metric]) for metric in ("OA", "AA", "kappa")), *cost(variant)]
        )
    titles = ["attention", "OA", "AA", "kappa", "parameters of attention", "trained parameters"]
    text = markdown([*titles, "multiply-adds, M", "step, ms", "forward, ms"], lines)
    write_rows(options.output / "results.json", measured(rows, "cpu"))
    with atomic_path(options.output / "ablation.md") as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    print(text)
    print(f"{rows[0].dataset}: {rows[0].split}; seeds {list(options.seeds)}; {torch.get_num_threads()} threads")


def train(variant: str, options: AblationConfig) -> list[Row]:
    """Train one variant over all seeds (or continue) and return its rows."""
    folder = options.output / variant
    command_line = [sys.executable, str(Path(__file__).with_name("train.py")), "--preset", options.preset]
    command_line += ["--model", variant, "--output", str(folder), "--seeds", *map(str, options.seeds)]
    for flag in ("data_root", "cube", "labels", "band_axis", "no_data", "split", "epochs", "max_steps"):
        if (value := getattr(options, flag)) is not None:
            command_line += [f"--{flag.replace('_', '-')}", str(value)]
    done = subprocess.run(command_line, check=False)
    if done.returncode:
        raise UserError(f"{variant}: training ended with status {done.returncode}; its message stands above")
    return [_named(row, VARIANTS[variant]) for row in read_rows(folder / "results.json")]


def cost(variant: str) -> list[str]:
    """Parameters, multiply-adds and times of a variant at the released sizes."""
    model: LSGAViT = create_model(variant)
    block = next(block for block in model.blocks if isinstance(block, Block))
    attention = sum(p.numel() for p in block.attention.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    windows, classes = torch.randn(128, 36, 9, 9), torch.arange(128) % 16
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        literal.lsgavit(model.eval(), windows[:1])
    with torch.inference_mode():
        forward = _milliseconds(lambda: model(windows))
    model.train()
    step = _milliseconds(lambda: F.cross_entropy(model(windows), classes).backward())
    macs = counter.get_total_flops() / 2e6
    return [f"{attention:,}", f"{trained:,}", f"{macs:.1f}", f"{step:.0f}", f"{forward:.0f}"]


def _milliseconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def _spread(row: Row) -> str:
    return f"{row.value:.2f}" + ("" if row.std is None else f" ± {row.std:.2f}")


def _named(row: Row, variant: str) -> Row:
    return replace(row, dataset=f"{row.dataset}, {variant}", published=None, source=None)


if __name__ == "__main__":
    main()
