"""Scores of one seed's class map, and rows and table over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amgcfn.data import PreparedScene
from amgcfn.published import PUBLISHED
from common.hyperspectral.classification.scores import (
    DEFINITIONS,
    Scores,
    over_seeds,
    score,
    sizes_over_seeds,
)
from common.hyperspectral.classification.splits import Split
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
                split=f"test; {protocol}, {sizes_over_seeds(splits)} train/validation/test",
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
