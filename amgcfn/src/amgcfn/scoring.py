"""Scores of one seed's map, and the rows and table over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amgcfn.data import Sample
from amgcfn.published import PUBLISHED
from common.hyperspectral.scores import DEFINITIONS, SPREAD, Scores, over_seeds, per_class_table, score
from common.results import Row


def score_map(classes: np.ndarray, sample: Sample) -> Scores:
    """Score a map of classes 1..K, `(H, W)`, on the test pixels."""
    labels, test = sample.scene.require_labels().reshape(-1), sample.split.test
    return score(labels[test], classes.reshape(-1)[test], sample.scene.num_classes)


def rows(runs: Sequence[Scores], sample: Sample, preset: str, seeds: Sequence[int]) -> list[Row]:
    """OA, AA and kappa over seeds, beside the published ones where the protocol is the same."""
    sizes = "/".join(f"{size:,}" for size in sample.split.sizes)
    protocol = sample.split.description.partition(", seed")[0]
    found = []
    for metric, (value, spread) in over_seeds(runs).items():
        published, source = PUBLISHED.get((preset, metric), (None, None))
        if protocol.startswith("disjoint"):
            published = source = None
        found.append(
            Row(
                paper="amgcfn",
                preset=preset,
                dataset=sample.scene.name,
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


def class_table(runs: Sequence[Scores], sample: Sample) -> str:
    """Accuracy per class, with the pixels of each part."""
    return per_class_table(runs, sample.scene.class_names, sample.split.counts(sample.scene.require_labels()))
