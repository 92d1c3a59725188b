"""Scores of whole images, of the network and of bicubic interpolation, as result rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from common.errors import UserError
from common.results import Row, markdown
from essaformer.metrics import DEFINITIONS, METRICS, Protocol, score
from essaformer.published import PUBLISHED, SOURCE
from essaformer.resize import imresize

PROTOCOLS: tuple[Protocol, ...] = ("sspsr", "mcnet")
Scores = dict[str, dict[str, float]]
"""Protocol → metric → value."""


@dataclass(frozen=True)
class PictureScore:
    """Scores of one image, for the network's result and for bicubic interpolation."""

    name: str
    network: Scores
    bicubic: Scores


def score_pictures(
    items: Any,
    enlarge: Callable[[Tensor], Tensor],
    scale: int,
    *,
    rank: int = 0,
    processes: int = 1,
    show: Callable[[dict[str, Any], Tensor, PictureScore], None] | None = None,
    protocols: Sequence[Protocol] = PROTOCOLS,
) -> list[PictureScore]:
    """Enlarge and score images; processes share the images, and each image counts exactly once.

    Args:
        items: an `EvaluationPictures` or a sequence of the same items.
        enlarge: `(bands, h, w)` → `(bands, h · scale, w · scale)` on the CPU.
        scale: factor of the super-resolution.
        rank, processes: this process's number and the number of processes.
        show: called with every item of this process, its result and its scores.

    Returns:
        the scores of all images in the order of `items`, in every process.
    """
    mine = []
    for index in tqdm(range(rank, len(items), processes), unit="image", disable=rank > 0, leave=False):
        item = items[index]
        result = enlarge(item["low"])
        truth = _hwb(item["high"])
        bicubic = imresize(item["low"], size=(truth.shape[0], truth.shape[1]))
        ours, theirs = (
            {str(protocol): score(_hwb(image), truth, scale, protocol, item["region"].valid) for protocol in protocols}
            for image in (result, bicubic)
        )
        picture_score = PictureScore(item["name"], ours, theirs)
        if show:
            show(item, result, picture_score)
        mine.append((index, picture_score))
    gathered = gather_object(mine) if processes > 1 else mine
    return [found for _, found in sorted(gathered, key=lambda pair: pair[0])]


def mean(scores: Sequence[PictureScore], metric: str, of: str = "network", protocol: Protocol = "sspsr") -> float:
    """Return the mean of one metric over images, for the network or for bicubic."""
    return float(np.mean([getattr(found, of)[protocol][metric] for found in scores]))


def rows(  # noqa: PLR0917
    scores: Sequence[PictureScore], dataset: str, scale: int, split: str, preset: str, seeds: Sequence[int]
) -> list[Row]:
    """Return result rows: every metric of both protocols, for the network and for bicubic.

    Args:
        scores: the scores of all images.
        dataset: name of the data set.
        scale: factor of the super-resolution.
        split: which images were scored.
        preset: the preset that trained the network.
        seeds: the seeds of that training, if known.

    Raises:
        UserError: there are no scores.
    """
    if not scores:
        raise UserError(f"{dataset}: no images were scored")
    found = []
    for protocol in scores[0].network:
        for of in ("network", "bicubic"):
            published = PUBLISHED.get((dataset, scale, "bicubic"), {}) if (of, protocol) == ("bicubic", "sspsr") else {}
            for metric in METRICS:
                found.append(
                    Row(
                        paper="essaformer",
                        preset=preset if of == "network" else "bicubic",
                        dataset=f"{dataset} ×{scale}",
                        split=f"{split}{f', {len(scores)} images' if len(scores) > 1 else ''}; protocol {protocol}",
                        metric=metric,
                        definition=DEFINITIONS[protocol][metric] + ("; mean over images" if len(scores) > 1 else ""),
                        value=mean(scores, metric, of, protocol),  # type: ignore[arg-type]
                        seeds=list(seeds),
                        published=published.get(metric),
                        source=SOURCE if published else None,
                    )
                )
    return found


def comparison(scores: Sequence[PictureScore], dataset: str, scale: int) -> str:
    """Return a Markdown table: methods in rows, the six metrics in columns, published rows below the measured ones."""
    lines = []
    for protocol in scores[0].network:
        for title, of in (("ESSAformer", "network"), ("bicubic", "bicubic")):
            values = [f"{mean(scores, metric, of, protocol):.4f}" for metric in METRICS]  # type: ignore[arg-type]
            lines.append([title, protocol, "measured", *values])
    for (name, factor, method), published in PUBLISHED.items():
        if (name, factor) == (dataset, scale):
            lines.append([method, "sspsr", "published", *(f"{published[metric]:.4f}" for metric in METRICS)])
    return markdown(["method", "protocol", "", *METRICS], lines)


def _hwb(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).float().numpy()
