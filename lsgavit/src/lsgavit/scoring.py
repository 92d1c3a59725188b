"""Scores of one seed's class map, and rows and table over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.hyperspectral.classification.disjoint import overlap
from common.hyperspectral.classification.scores import DEFINITIONS, Scores, over_seeds, score, sizes_over_seeds
from common.results import SPREAD, Row
from lsgavit.data import PreparedScene
from lsgavit.fast.prediction import predict_pixels
from lsgavit.model import LSGAViT
from lsgavit.published import PUBLISHED
from lsgavit.windows import SceneWindows


def classify(model: LSGAViT, windows: SceneWindows, pixels: np.ndarray | None = None) -> np.ndarray:
    """Return a map `(H, W)` of classes 1..K at `pixels` (flat indices, ascending; None: all), and 0 elsewhere."""
    found = np.zeros(len(windows), dtype=np.int64)
    for batch, logits in predict_pixels(model, windows, pixels):
        found[batch.cpu().numpy()] = logits.argmax(dim=1).cpu().numpy() + 1
    return found.reshape(windows.shape)


def score_pixels(classes: np.ndarray, prepared: PreparedScene, pixels: np.ndarray) -> Scores:
    """Score a map of classes 1..K, `(H, W)`, on labelled pixels."""
    labels = prepared.scene.require_labels().reshape(-1)[pixels]
    return score(labels, classes.reshape(-1)[pixels], prepared.scene.num_classes)


def rows(
    runs: Sequence[Scores], scenes: Sequence[PreparedScene], preset: str, seeds: Sequence[int], window: int
) -> list[Row]:
    """Return OA, AA and kappa over seeds, beside the published values if the protocol is the same.

    The split's text says how many test windows contain training pixels (mean over seeds), because this influences the
    accuracy of the random protocol.
    """
    first = scenes[0]
    sizes = sizes_over_seeds([prepared.split for prepared in scenes])
    protocol = first.split.description.partition(", seed")[0]
    seen = np.mean([overlap(prepared.split, window).contained for prepared in scenes])
    kind = "disjoint" if protocol.startswith("disjoint") else "fixed" if "fixed" in protocol else "random"
    ten_percent = kind == "fixed" or protocol.partition(" %")[0].endswith(" 10")
    found = []
    for metric, (value, spread) in over_seeds(runs).items():
        published, source = PUBLISHED.get((first.scene.name, kind, metric), (None, None))
        found.append(
            Row(
                paper="lsgavit",
                preset=preset,
                dataset=first.scene.name,
                split=f"{protocol}, {sizes} train/validation/test, {seen:.0f} % of test windows hold training pixels",
                metric=metric,
                definition=DEFINITIONS[metric] + (f"; {SPREAD}" if spread is not None else ""),
                value=value,
                std=spread,
                seeds=list(seeds),
                published=published if ten_percent else None,
                source=source if ten_percent else None,
            )
        )
    return found
