"""Scores of whole noisy scenes: of the network, of its noisy input, and of methods without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from common.errors import UserError
from common.results import SPREAD, Row, markdown
from hcanet import classical
from hcanet.data import COMPLEX
from hcanet.metrics import DEFINITIONS, FAMILIES, METRICS, score
from hcanet.noise import Noisy, check, corrupt, scene_generator
from hcanet.scenes import Region

NETWORK, NOISY = "HCANet", "noisy"
VARIATION, SUBSPACE, OUTLIERS = "total variation per band", "SVD rank 5 + NLM", "SVD rank 5 + NLM, outliers replaced"


@dataclass(frozen=True)
class SceneNoise:
    """How test scenes get their noise.

    Attributes:
        framework: see `hcanet.noise`.
        sigma: σ of gaussian noise, on the scale of 0 to 255.
        seed: seed of the noise.
        generator: "scene": made from the seed and the scene's name; "plain": from the seed alone.
    """

    framework: str = "mafnet"
    sigma: float = 50.0
    seed: int = 0
    generator: Literal["scene", "plain"] = "scene"

    def add(self, clean: np.ndarray, case: str, scene: str, position: int) -> Noisy:
        """Return the noisy scene, computed in float64; arguments as in `corrupt`."""
        plain = self.generator == "plain"
        generator = np.random.default_rng(self.seed) if plain else scene_generator(self.seed, scene)
        return corrupt(
            clean.astype(np.float64), case, generator, sigma=self.sigma, framework=self.framework, position=position
        )

    def title(self, case: str) -> str:
        """Return the name of the noise in results."""
        return f"σ {self.sigma:g}" if case == "gaussian" else case


@dataclass(frozen=True)
class SceneScore:
    """Metric values of one scene under one noise, method → metric → value."""

    scene: str
    noise: str
    values: dict[str, dict[str, float]]


Show = Callable[[Region, Noisy, np.ndarray, np.ndarray, SceneScore], None]


def cases_to_test(order: Sequence[str], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the cases to test: `wanted`, or the case of the last stage; "complex" stands for cases 1 to 4.

    Raises:
        UserError: a case is unknown.
    """
    found: list[str] = []
    for case in wanted or order[-1:]:
        found += COMPLEX if case == "complex" else [case]
    for case in found:
        check(case, "mafnet")
    return tuple(found)


def score_scenes(
    regions: Sequence[Region],
    denoise: Callable[[Tensor], Tensor],
    cases: Sequence[str],
    noise: SceneNoise,
    *,
    others: Sequence[str] = (),
    rank: int = 0,
    processes: int = 1,
    show: Show | None = None,
) -> list[SceneScore]:
    """Score regions with the noise of every case; processes share the work.

    Args:
        regions: clean regions; only pixels with data count.
        cases: names of cases.
        noise: the parameters of the noise.
        denoise: `(bands, H, W)` float32 → the same.
        others: methods besides the noisy input: `VARIATION`, `SUBSPACE`, `OUTLIERS`.
        rank, processes: this process's number and the number of processes.
        show: called with region, noisy image, clean image, denoised image and scores.

    Returns:
        one score per case and region, the same in every process.
    """
    work = [(case, index) for case in cases for index in range(len(regions))]
    mine = []
    for number in tqdm(range(rank, len(work), processes), unit="scene", disable=rank > 0 or len(work) < 3, leave=False):
        case, index = work[number]
        region = regions[index]
        clean = region.values()
        noisy = noise.add(clean, case, region.name, index)
        restored = denoise(torch.from_numpy(noisy.image.astype(np.float32))).numpy()
        images = {NETWORK: restored, NOISY: noisy.image} | {
            name: without_training(name, noisy, case) for name in others
        }
        values = {name: measure(image, clean, region.valid) for name, image in images.items()}
        scores = SceneScore(region.name, noise.title(case), values)
        if show:
            show(region, noisy, clean, restored, scores)
        mine.append((number, scores))
    gathered = gather_object(mine) if processes > 1 else mine
    return [found for _, found in sorted(gathered, key=lambda pair: pair[0])]


def without_training(name: str, noisy: Noisy, case: str) -> np.ndarray:
    """Denoise by a method without training; it gets the σ of `gaussian` and estimates the level of other noise."""
    if name == VARIATION:
        return classical.total_variation(noisy.image)
    if name == OUTLIERS:
        return classical.subspace_after_outliers(noisy.image)
    return classical.subspace(noisy.image, noisy.sigmas if case == "gaussian" else None)


def measure(image: np.ndarray, clean: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Return every metric of both families, over the pixels with data."""
    return {name: value for family in FAMILIES for name, value in score(image, clean, family, valid).items()}


def mean(scores: Sequence[SceneScore], method: str, metric: str, noise: str | None = None) -> float:
    """Return the mean of one metric over scenes."""
    return float(np.mean([s.values[method][metric] for s in scores if noise in (None, s.noise)]))


def rows(
    runs: Sequence[Sequence[SceneScore]], dataset: str, split: str, preset: str, seeds: Sequence[int] = ()
) -> list[Row]:
    """Return result rows: every metric of every method for every noise.

    Args:
        runs: the scores of each seed; those of methods without training are taken from the first.
        dataset, split: names of data set and split.
        preset: the preset that trained the network.
        seeds: seeds of the trainings.

    Raises:
        UserError: there are no scores.
    """
    if not runs or not runs[0]:
        raise UserError(f"{dataset}: no scenes were scored")
    first = runs[0]
    found = []
    for noise in dict.fromkeys(s.noise for s in first):
        here = [s for s in first if s.noise == noise]
        for method in here[0].values:
            for metric in [name for names in METRICS.values() for name in names if name in here[0].values[method]]:
                each = [mean(run, method, metric, noise) for run in (runs if method == NETWORK else runs[:1])]
                over = ["mean over scenes"] if len(here) > 1 else []
                over += [SPREAD] if len(each) > 1 else []
                found.append(
                    Row(
                        paper="hcanet",
                        preset=preset if method == NETWORK else method,
                        dataset=f"{dataset}, {noise}",
                        split=split + (f", {len(here)} scenes" if len(here) > 1 else ""),
                        metric=metric,
                        definition="; ".join([DEFINITIONS[metric], *over]),
                        value=float(np.mean(each)),
                        std=float(np.std(each)) if len(each) > 1 else None,
                        seeds=list(seeds),
                    )
                )
    return found


def comparison(scores: Sequence[SceneScore]) -> str:
    """Return a Markdown table: noise and methods in rows, metrics in columns."""
    metrics = [name for names in METRICS.values() for name in names]
    lines: list[list[str]] = []
    for noise in dict.fromkeys(s.noise for s in scores):
        here = [s for s in scores if s.noise == noise]
        for method in here[0].values:
            cells = [f"{mean(here, method, m):.4f}" if m in here[0].values[method] else "" for m in metrics]
            lines.append([noise, method, *cells])
    return markdown(["noise", "method", *metrics], lines)


def caption(values: dict[str, Any]) -> str:
    """Return the caption of an image."""
    return f"{values['PSNR (dB)']:.2f} dB, SAM {values['SAM (rad)']:.3f}"
