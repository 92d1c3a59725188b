"""Splits: the published sizes and pixels, no pixel twice, no shared window in a disjoint split."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from common.errors import UserError
from common.hyperspectral.classification.catalogue import load_labels
from common.hyperspectral.classification.disjoint import disjoint_split, overlap
from common.hyperspectral.classification.splits import Split, fixed_split, per_class_split, stratified_split
from support.data import real_data

# Labelled pixels per class of the published ground truths, and AMGCFN's split sizes on them.
INDIAN_PINES = (46, 1428, 830, 237, 483, 730, 28, 478, 20, 972, 2455, 593, 205, 1265, 386, 93)
PAVIA = (6631, 18649, 2099, 3064, 1345, 5029, 1330, 3682, 947)
SALINAS = (2009, 3726, 1976, 1394, 2678, 3959, 3579, 11271, 6203, 3278, 1068, 1927, 916, 1070, 7268, 1807)
PUBLISHED = {
    "indian_pines": (INDIAN_PINES, 0.02, (212, 204, 9833)),
    "pavia_university": (PAVIA, 0.002, (91, 85, 42600)),
    "salinas": (SALINAS, 0.002, (116, 108, 53905)),
}


def label_map(counts, width=200, seed=0):
    classes = np.repeat(np.arange(len(counts) + 1), [sum(counts) // 3, *counts])
    np.random.default_rng(seed).shuffle(classes)
    return np.append(classes, np.zeros(-len(classes) % width, int)).reshape(-1, width)


def stripes(height=60, width=80):
    """Four classes in two fields each, a fifth in one corner only."""
    labels = np.zeros((height, width), np.int64)
    for i in range(8):
        labels[2:-2, 10 * i : 10 * i + 9] = i % 4 + 1
    labels[:6, :6] = 5
    return labels


def check_parts(split, labels):
    parts = np.concatenate([split.train, split.validation, split.test])
    assert len(np.unique(parts)) == len(parts)
    assert (labels.flat[parts] > 0).all()
    for part in (split.train, split.validation, split.test):
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()


@pytest.mark.parametrize("scene", PUBLISHED)
def test_published_sizes_on_the_published_histogram(scene):
    counts, ratio, sizes = PUBLISHED[scene]
    labels = label_map(counts)
    split = per_class_split(labels, ratio=ratio, validation=ratio, seed=1330)
    assert split.sizes == sizes
    assert split.counts(labels)["train"].tolist() == np.ceil(ratio * np.array(counts)).astype(int).tolist()
    check_parts(split, labels)


@pytest.mark.parametrize("scene", PUBLISHED)
def test_published_sizes_on_the_real_ground_truth(scene):
    labels, _ = load_labels(scene, real_data("ground_truth_only"))
    counts, ratio, sizes = PUBLISHED[scene]
    assert np.bincount(labels.ravel())[1:].tolist() == list(counts)
    assert per_class_split(labels, ratio=ratio, validation=ratio, seed=1330).sizes == sizes


@pytest.mark.parametrize("seed", [5, 6, 7])
@pytest.mark.parametrize("counts", [INDIAN_PINES, PAVIA, (7, 7, 7, 15, 15)])
def test_stratified_equals_scikit_learn(counts, seed):
    labels = label_map(counts)
    pixels = np.flatnonzero(labels)
    ratio = 0.1 if sum(counts) > 1000 else 0.3
    train, test = train_test_split(pixels, test_size=1 - ratio, stratify=labels.flat[pixels], random_state=seed)
    split = stratified_split(labels, ratio, seed=seed)
    np.testing.assert_array_equal(split.train, np.sort(train))
    np.testing.assert_array_equal(split.test, np.sort(test))


def test_seeds_repeat_and_differ():
    labels = label_map((50, 60))
    for draw in (
        lambda seed: per_class_split(labels, ratio=0.2, validation=0.1, seed=seed),
        lambda seed: stratified_split(labels, 0.2, seed=seed),
        lambda seed: disjoint_split(stripes(), 0.2, window=5, seed=seed),
    ):
        np.testing.assert_array_equal(draw(3).train, draw(3).train)
        assert not np.array_equal(draw(3).train, draw(4).train)


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_windows_of_a_disjoint_split_share_no_pixel(window, seed):
    labels = stripes()
    split = disjoint_split(labels, 0.1, window=window, seed=seed, validation=0.05)
    check_parts(split, labels)
    seen, tested = np.zeros_like(labels, bool), np.zeros_like(labels, bool)
    for part, mask in ((np.concatenate([split.train, split.validation]), seen), (split.test, tested)):
        for row, column in zip(*np.unravel_index(part, labels.shape), strict=True):
            h = window // 2
            mask[max(0, row - h) : row + h + 1, max(0, column - h) : column + h + 1] = True
    assert not (seen & tested).any()
    assert str(overlap(split, window)).startswith("0.0 % of the test windows")
    counts = split.counts(labels)
    assert (counts["train"] > 0).all()
    assert (counts["train"] <= np.ceil(0.1 * np.bincount(labels.ravel())[1:])).all()
    assert (counts["test"][:4] > 0).all()


def test_disjoint_split_says_what_it_could_not_do():
    labels = stripes()
    split = disjoint_split(labels, 0.1, window=9, seed=0)
    assert split.counts(labels)["test"][4] == 0
    assert any("classes [5] have no test pixel" in note for note in split.notes)
    lost = int((labels > 0).sum()) - sum(split.sizes)
    assert split.notes[0].startswith(f"{lost:,} labelled pixels lie in the blocks or their margin")


def test_disjoint_training_set_has_the_size_asked_for():
    labels = stripes()
    labels[labels == 5] = 0
    split = disjoint_split(labels, 0.1, window=3, seed=1)
    expected = np.ceil(0.1 * np.bincount(labels.ravel())[1:]).astype(int)
    assert split.counts(labels)["train"].tolist() == expected.tolist()


def test_overlap_counts_windows():
    labels = np.ones((1, 20), int)
    split = Split(np.array([0]), np.array([], int), np.arange(1, 20), labels.shape, "", "")
    measured = overlap(split, 5)
    assert measured.contained == pytest.approx(100 * 2 / 19)  # centres at 1 and 2
    assert measured.shared == pytest.approx(100 * 4 / 19)  # centres at 1 to 4


def test_fixed_maps_define_their_labels():
    train, test = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    train[0, :2], test[3, :4] = (1, 2), (1, 1, 2, 2)
    labels, split = fixed_split(train, test, codes=(2, 1))
    assert labels[0, :2].tolist() == [2, 1]
    assert (split.train.tolist(), split.test.tolist()) == ([0, 1], [15, 16, 17, 18])
    test[0, 0] = 1
    with pytest.raises(UserError, match="1 pixels are in the training map and in the test map"):
        fixed_split(train, test)
    test[0, 0], test[3] = 0, 1
    with pytest.raises(UserError, match=r"classes \[2\] are not in both maps"):
        fixed_split(train, test)
    with pytest.raises(UserError, match="expected one size"):
        fixed_split(train, test[:2])


def test_a_saved_split_comes_back_for_its_own_labels_only(tmp_path):
    labels = label_map((30, 40), width=10)
    split = per_class_split(labels, ratio=0.1, validation=0.1, seed=2)
    split.save(tmp_path / "split.npz")
    loaded = Split.load(tmp_path / "split.npz", labels.astype(np.uint8))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(loaded, part), getattr(split, part))
    assert (loaded.description, loaded.notes) == (split.description, split.notes)
    other = np.where(labels == 1, 2, labels)
    with pytest.raises(UserError, match="was drawn from other labels"):
        Split.load(tmp_path / "split.npz", other)
    with pytest.raises(UserError, match=r"was drawn from labels of \(\d+, 10\) pixels"):
        Split.load(tmp_path / "split.npz", labels[:3])
    with pytest.raises(UserError, match="no such file"):
        Split.load(tmp_path / "none.npz", labels)
    (tmp_path / "split.npz").write_bytes((tmp_path / "split.npz").read_bytes()[:200])
    with pytest.raises(UserError, match="is not a saved split"):
        Split.load(tmp_path / "split.npz", labels)


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: per_class_split(label_map((9, 1)), ratio=0.1, seed=0), "class 2 has 1 labelled pixel; expected at"),
        (lambda: per_class_split(label_map((9,)), ratio=0.1, seed=0), "the labels hold a single class; expected at"),
        (lambda: stratified_split(label_map((9,)), 0.1, seed=0), "the labels hold a single class; expected at least"),
        (
            lambda: disjoint_split(np.ones((9, 9), int), 0.1, window=9, seed=0),
            "the labels hold a single class; expected",
        ),
        (lambda: stratified_split(label_map((9, 1)), 0.1, seed=0), "class 2 has 1 labelled pixel; expected at least"),
        (lambda: stratified_split(label_map((90, 3)), 0.1, seed=0), "ratio of 0.1 leaves class 2 with its 3 labelled"),
        (lambda: stratified_split(label_map((90, 3)), 1.0, seed=0), "expected more than 0 and less than 1"),
        (lambda: per_class_split(label_map((90, 3)), ratio=0.8, seed=0), "class 2 with its 3 .* without a test pixel"),
        (lambda: per_class_split(label_map((9, 9)), ratio=0.5, validation=0.5, seed=0), "validation asks for 9 pixels"),
        (lambda: disjoint_split(stripes(), 0.1, window=61, seed=0), "window of 61 pixels is larger than the scene"),
        (
            lambda: disjoint_split(np.repeat([[1], [1], [2]], 9, axis=1).repeat(3, axis=0), 0.1, window=9, seed=0),
            "every labelled pixel is within 9 pixels",
        ),
    ],
)
def test_wrong_input_is_said_in_one_sentence(draw, sentence):
    with pytest.raises(UserError, match=sentence):
        draw()
