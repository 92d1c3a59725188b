"""Scores of one seed's class map, and rows and table over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amgcfn.data import PreparedScene
from amgcfn.published import PUBLISHED
from common.hyperspectral.classification.scores import (
    DEFINITIONS,
    Scores,
    count_and_spread,
    over_seeds,
    per_class_table,
    score,
)
from common.hyperspectral.classification.splits import Split
from common.hyperspectral.scene import Scene
from common.results import SPREAD, Row


def score_map(classes: np.ndarray, prepared: PreparedScene) -> Scores:
    """Score a map of classes 1..K, `(H, W)`, on the test pixels."""
    labels, test = prepared.scene.require_labels().reshape(-1), prepared.split.test
    return score(labels[test], classes.reshape(-1)[test], prepared.scene.num_classes)


def rows(runs: Sequence[Scores], splits: Sequence[Split], dataset: str, preset: str, seeds: Sequence[int]) -> list[Row]:
    """Return OA, AA and kappa over seeds, beside the published values if the protocol is the same.

    Args:
        runs, splits, seeds: one of each per seed, in the same order.
        dataset: the scene's name.
    """
    sizes = "/".join(count_and_spread(np.array(part)) for part in zip(*(split.sizes for split in splits), strict=True))
    protocol = splits[0].description.partition(", seed")[0]
    found = []
    for metric, (value, spread) in over_seeds(runs).items():
        published, source = PUBLISHED.get((preset, metric), (None, None))
        if protocol.startswith("disjoint"):
            published = source = None
        found.append(
            Row(
                paper="amgcfn",
                preset=preset,
                dataset=dataset,
                split=f"test; {protocol}, {sizes} train/validation/test",
                metric=metric,
                definition=DEFINITIONS[metric] + (f"; {SPREAD}" if spread is not None else ""),
                value=value,
                std=spread,
                seeds=list(seeds),
                published=published,
                source=source,
            )
        )
    return found


def class_table(runs: Sequence[Scores], splits: Sequence[Split], scene: Scene) -> str:
    """Return a table of the accuracy per class, with the pixels of each part (mean ± standard deviation over seeds)."""
    counts = [split.counts(scene.require_labels()) for split in splits]
    return per_class_table(runs, scene.class_names, {part: np.stack([c[part] for c in counts]) for part in counts[0]})
