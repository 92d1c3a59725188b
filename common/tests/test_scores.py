"""Classification scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from common.hyperspectral.classification.scores import (
    class_table,
    confusion_matrix,
    from_confusion,
    over_seeds,
    per_class_table,
    score,
    sizes_over_seeds,
)
from common.hyperspectral.classification.splits import make_split
from common.hyperspectral.scene import make_scene

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(1, 6, 500)
PREDICTED = np.where(RNG.random(500) < 0.7, TRUTH, RNG.integers(1, 6, 500))


def test_scores_equal_scikit_learn():
    scores = score(TRUTH, PREDICTED, 5)
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(TRUTH, PREDICTED))
    assert scores.overall == pytest.approx(100 * metrics.accuracy_score(TRUTH, PREDICTED), rel=1e-12)
    assert scores.average == pytest.approx(100 * metrics.balanced_accuracy_score(TRUTH, PREDICTED), rel=1e-12)
    assert scores.kappa == pytest.approx(100 * metrics.cohen_kappa_score(TRUTH, PREDICTED), rel=1e-12)
    np.testing.assert_allclose(scores.per_class, 100 * metrics.recall_score(TRUTH, PREDICTED, average=None))


def test_a_class_without_scored_pixels_does_not_count():
    truth, predicted = np.array([1, 1, 3, 3]), np.array([1, 2, 3, 3])
    scores = score(truth, predicted, 4)
    np.testing.assert_array_equal(scores.per_class, [50, np.nan, 100, np.nan])
    assert (scores.overall, scores.average) == (75, 75)


def test_parts_may_be_added():
    whole = score(TRUTH, PREDICTED, 5)
    parts = [confusion_matrix(TRUTH[part], PREDICTED[part], 5) for part in (slice(200), slice(200, None))]
    assert from_confusion(sum(parts)).metrics == whole.metrics


def test_agreement_by_chance_alone():
    assert score(np.array([2, 2]), np.array([2, 2]), 3).kappa == 0
    assert score(np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]), 2).kappa == 0


def test_spread_over_seeds_is_the_population_deviation():
    runs = [score(TRUTH, np.where(np.arange(500) < n, TRUTH, 1), 5) for n in (100, 200, 450)]
    values = [run.overall for run in runs]
    mean, std = over_seeds(runs)["OA"]
    assert mean == pytest.approx(sum(values) / 3)
    assert std == pytest.approx((sum((v - mean) ** 2 for v in values) / 3) ** 0.5)
    assert over_seeds(runs[:1])["kappa"][1] is None


@pytest.mark.parametrize(
    ("truth", "predicted", "sentence"),
    [
        ([0, 1], [1, 1], "true classes span 0..1, expected 1..5"),
        ([1, 1], [1, 6], "predicted classes span 1..6"),
        ([1], [1, 1], "expected equally many"),
        ([], [], "at least one"),
    ],
)
def test_wrong_arguments(truth, predicted, sentence):
    with pytest.raises(ValueError, match=sentence):
        score(np.array(truth, int), np.array(predicted, int), 5)


def test_table_has_classes_counts_and_spread():
    runs = [score(np.array([1, 1, 2, 2]), np.array(p), 3) for p in ([1, 1, 2, 2], [1, 2, 2, 2])]
    lines = per_class_table(runs, ["soil", "water", "tree"], {"test": np.array([2, 2, 0])}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2:5] == [
        ["1", "soil", "2", "75.00 ± 25.00"], ["2", "water", "2", "100.00 ± 0.00"], ["3", "tree", "0", "no pixel"]
    ]  # fmt: skip
    assert cells[5] == ["", "OA", "4", "87.50 ± 12.50"]


def test_table_shows_counts_that_differ_between_runs():
    runs = [score(np.array([1, 2]), np.array([1, 2]), 2)] * 2
    counts = {"train": np.array([[3, 1], [3, 1]]), "test": np.array([[1000, 6], [2000, 6]])}
    lines = per_class_table(runs, ["soil", "water"], counts).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[2:4] for line in cells[2:5]] == [["3", "1,500.0 ± 500.0"], ["1", "6"], ["4", "1,506.0 ± 500.0"]]


def test_sizes_and_classes_count_the_pixels_of_every_seed() -> None:
    labels = np.zeros((4, 5), dtype=np.int64)
    labels[:2], labels[2:] = 1, 2
    pixels = np.arange(20)
    splits = [
        make_split(labels, ([pixels[:n]], [pixels[n : n + 2]], [pixels[n + 2 :]]), "drawn, seed 1") for n in (4, 8)
    ]
    assert sizes_over_seeds(splits) == "6.0 ± 2.0/2/12.0 ± 2.0"
    runs = [score(labels.flat[one.test], labels.flat[one.test], 2) for one in splits]
    scene = make_scene("tiny", np.arange(60.0).reshape(4, 5, 3), labels)
    printed = class_table(runs, splits, scene).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed]
    # Class 1 holds pixels 0..9, so seed by seed 4 and 8 train, 4 and 0 are tested; class 2 is always tested.
    assert cells[2][2:5] == ["6.0 ± 2.0", "2", "2.0 ± 2.0"]
    assert cells[3][2:5] == ["0", "0", "10"]
