"""Scores of hyperspectral classification: overall accuracy, average accuracy, kappa, accuracy per class.

All are in percent, as papers print them (kappa × 100). Classes are 1..K as in `Scene.labels`.
Checked against scikit-learn in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.hyperspectral.classification.splits import Split
from common.hyperspectral.scene import Scene
from common.results import markdown

DEFINITIONS = {
    "OA": "percentage of the scored pixels whose predicted class is correct",
    "AA": "unweighted mean of the per-class accuracies over the classes present in the scored pixels, percent",
    "kappa": "Cohen's kappa, times 100",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one confusion matrix.

    Attributes:
        confusion: `(K, K)` numbers of pixels, true class by row, predicted class by column.
        overall: OA in percent.
        average: AA in percent; classes without a scored pixel do not count.
        kappa: times 100; 0 if agreement by chance is already perfect.
        per_class: `(K,)` accuracy (recall) in percent, NaN for a class without a scored pixel.
    """

    confusion: np.ndarray
    overall: float
    average: float
    kappa: float
    per_class: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """OA, AA and kappa by the names of `DEFINITIONS`."""
        return {"OA": self.overall, "AA": self.average, "kappa": self.kappa}


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        truth: classes 1..K of the scored pixels, any shape; unlabelled pixels must be left out.
        predicted: the same shape, 1..K.

    Raises:
        ValueError: shapes differ, there are no pixels, or a class is outside 1..K.
    """
    if truth.shape != predicted.shape or not truth.size:
        raise ValueError(f"expected equally many classes, at least one; got {truth.shape} and {predicted.shape}")
    for name, classes in (("true", truth), ("predicted", predicted)):
        if classes.min() < 1 or classes.max() > num_classes:
            raise ValueError(f"{name} classes span {classes.min()}..{classes.max()}, expected 1..{num_classes}")
    pairs = (truth.ravel().astype(np.int64) - 1) * num_classes + predicted.ravel().astype(np.int64) - 1
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def score(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> Scores:
    """Score predictions; arguments and errors as in `confusion_matrix`."""
    return from_confusion(confusion_matrix(truth, predicted, num_classes))


def from_confusion(confusion: np.ndarray) -> Scores:
    """Score a confusion matrix, which may be the sum of several matrices."""
    total = confusion.sum()
    right = np.diag(confusion) / total
    by_truth, by_prediction = confusion.sum(axis=1), confusion.sum(axis=0)
    chance = float((by_truth / total) @ (by_prediction / total))
    per_class = np.full(len(confusion), np.nan)
    np.divide(100 * np.diag(confusion), by_truth, out=per_class, where=by_truth > 0)
    overall = float(right.sum())
    kappa = (overall - chance) / (1 - chance) if chance < 1 else 0.0
    return Scores(confusion, 100 * overall, float(np.nanmean(per_class)), 100 * kappa, per_class)


def over_seeds(runs: Sequence[Scores]) -> dict[str, tuple[float, float | None]]:
    """Mean and standard deviation of OA, AA and kappa over runs.

    The standard deviation is numpy's default, divided by n, as in the published code of the field; for
    three seeds the sample standard deviation (divided by n − 1) is 22 % larger. None for a single run.
    """
    columns = {name: np.array([run.metrics[name] for run in runs]) for name in DEFINITIONS}
    return {name: (float(v.mean()), float(v.std()) if len(v) > 1 else None) for name, v in columns.items()}


def class_table(runs: Sequence[Scores], splits: Sequence[Split], scene: Scene) -> str:
    """Return a table of the accuracy per class, with the pixels of each part (mean ± standard deviation over seeds)."""
    counts = [split.counts(scene.require_labels()) for split in splits]
    return per_class_table(runs, scene.class_names, {part: np.stack([c[part] for c in counts]) for part in counts[0]})


def per_class_table(
    runs: Sequence[Scores], class_names: Sequence[str], counts: Mapping[str, np.ndarray] | None = None
) -> str:
    """Markdown table: accuracy per class, then OA, AA and kappa, as mean ± standard deviation over runs.

    Args:
        class_names: class 1 first.
        counts: further columns of pixels per class by title, for example training and test:
            `(K,)`, or `(runs, K)` where each run has its own.
    """
    counts = {title: np.atleast_2d(column) for title, column in (counts or {}).items()}
    accuracies = np.array([run.per_class for run in runs])
    cells = []
    for i, name in enumerate(class_names):
        pixels = [_count_and_spread(column[:, i]) for column in counts.values()]
        cells.append([f"{i + 1}", name, *pixels, _mean_and_spread(accuracies[:, i])])
    sums = [_count_and_spread(column.sum(axis=1)) for column in counts.values()]
    for name in DEFINITIONS:
        values = np.array([run.metrics[name] for run in runs])
        cells.append(["", name, *(sums if name == "OA" else [""] * len(counts)), _mean_and_spread(values)])
    return markdown(["", "class", *counts, "accuracy, %"], cells)


def sizes_over_seeds(splits: Sequence[Split]) -> str:
    """Return the numbers of training, validation and test pixels, for example "538/0/2,271.7 ± 474.8"."""
    return "/".join(_count_and_spread(np.array(part)) for part in zip(*(split.sizes for split in splits), strict=True))


def _count_and_spread(counts: np.ndarray) -> str:
    """Return whole numbers of several runs as text: one number if all agree, else "mean ± standard deviation"."""
    if (counts == counts[0]).all():
        return f"{counts[0]:,}"
    return f"{counts.mean():,.1f} ± {counts.std():,.1f}"


def _mean_and_spread(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "no pixel"
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")
