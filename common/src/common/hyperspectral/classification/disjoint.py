"""Splits without leakage, and a measure of the leakage of a split.

A window classifier sees the neighbours of the pixel that it classifies. With randomly drawn pixels, nearly every test
window contains training pixels, so the accuracy measures interpolation rather than performance on unseen ground.
`overlap` measures this for any split and is reported with every score. `disjoint_split` draws training pixels from
blocks and leaves out every pixel whose window would touch a training window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from common.errors import UserError
from common.hyperspectral.classification.splits import Split, check_classes, class_counts, make_split


@dataclass(frozen=True)
class Overlap:
    """Leakage of a split, in percent of the test pixels.

    Attributes:
        window: side of the window in pixels.
        shared: test pixels whose window shares a pixel with a training pixel's window.
        contained: test pixels whose window contains a training pixel.
    """

    window: int
    shared: float
    contained: float

    def __str__(self) -> str:
        return (
            f"{self.contained:.1f} % of the test windows ({self.window} × {self.window}) contain a training pixel, "
            f"{self.shared:.1f} % overlap a training window"
        )


def overlap(split: Split, window: int) -> Overlap:
    """Measure how many test windows touch training windows or pixels; windows are centred squares of side `window`.

    Raises:
        UserError: the split has no training or no test pixels.
    """
    if not len(split.train) or not len(split.test):
        raise UserError(f"the split {split.description!r} has {split.sizes} pixels; expected training and test pixels")
    distance = _distance_to(split.train, split.shape).flat[split.test]
    return Overlap(window, 100 * float((distance < window).mean()), 100 * float((distance <= window // 2).mean()))


def disjoint_split(labels: np.ndarray, ratio: float, *, window: int, seed: int, validation: float = 0.0) -> Split:
    """Draw training pixels from random square blocks; test pixels are at least a window away from them.

    A block is two windows wide. Blocks are chosen in random order, for the rarest class first, until each class has its
    share of training pixels. A block that would leave some class without a test pixel is skipped. A class that is too
    compact for both is trained and not tested. If a class has more pixels than its share, a random part is kept, so
    that training sets are as large as those of a random split of the same ratio. Validation pixels come from the same
    blocks, so test pixels stay apart from both.

    Args:
        labels: `(H, W)`, 0 unlabelled, classes 1..K.
        ratio: share of each class for training, rounded up; compact classes may get less.
        window: side in pixels. Windows of side w share no pixel if their centres are w apart along an axis.
        validation: share of each class for validation, rounded down.

    Returns:
        A split whose notes name the classes without training or test pixels, those with less than
        their share, and the number of pixels lost in blocks and margins.

    Raises:
        UserError: the window is larger than the scene, a class has one pixel, or no test pixel is left.
    """
    if window > min(labels.shape):
        raise UserError(f"a window of {window} pixels is larger than the scene of {labels.shape} pixels")
    block = 2 * window  # larger blocks lose fewer pixels to margins, but show less variety of each class
    rng = np.random.default_rng(seed)
    counts = class_counts(labels[labels > 0], labels.max())
    check_classes(counts, ratio)
    want_train, want_validation = np.ceil(ratio * counts).astype(int), (validation * counts).astype(int)
    chosen = _choose_blocks(labels, want_train + want_validation, window, block, rng)
    train, held_out = [], []
    for index, (n_train, n_validation) in enumerate(zip(want_train, want_validation, strict=True), start=1):
        members = rng.permutation(np.flatnonzero(chosen & (labels == index)))
        # A class with too few pixels uses them for training first, so that it can be learnt without validation.
        train.append(members[:n_train])
        held_out.append(members[n_train : n_train + n_validation])
    used = np.concatenate([*train, *held_out])
    test = np.flatnonzero((labels > 0) & (_distance_to(used, labels.shape) >= window))
    if not len(test):
        raise UserError(f"every labelled pixel is within {window} pixels of a training pixel; choose a smaller window")
    description = f"disjoint {100 * ratio:g} %, blocks {block}, window {window}, seed {seed}"
    split = make_split(labels, (train, held_out, [test]), description)
    notes = _notes(split.counts(labels), want_train, int(counts.sum()) - sum(split.sizes))
    return make_split(labels, (train, held_out, [test]), description, notes)


def _choose_blocks(
    labels: np.ndarray, wanted: np.ndarray, window: int, block: int, rng: np.random.Generator
) -> np.ndarray:
    """Mask `(H, W)` of the blocks to train on.

    Every class keeps a test pixel outside the margin, except a class none of whose blocks allows that: it is only
    trained.
    """
    corners = [(r, c) for r in range(0, labels.shape[0], block) for c in range(0, labels.shape[1], block)]
    corners = [corners[i] for i in rng.permutation(len(corners))]
    held = {corner: class_counts(_area(labels, corner, block, 0).ravel(), labels.max()) for corner in corners}
    chosen, near = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    have, tested = np.zeros_like(wanted), np.ones(len(wanted), bool)
    for index in np.argsort(wanted, kind="stable"):
        for spare_it in (True, False):
            tested[index] = spare_it or have[index] > 0
            for corner in corners:
                if have[index] >= wanted[index]:
                    break
                if not held[corner][index] or _area(chosen, corner, block, 0).all():
                    continue
                after = near.copy()
                _area(after, corner, block, window - 1)[:] = True
                if (tested & (class_counts(labels[~after], labels.max()) == 0)).any():
                    continue
                near = after
                _area(chosen, corner, block, 0)[:] = True
                have += held[corner]
            if have[index]:
                break
    return chosen


def _area(grid: np.ndarray, corner: tuple[int, int], block: int, margin: int) -> np.ndarray:
    rows, columns = (slice(max(0, start - margin), start + block + margin) for start in corner)
    return grid[rows, columns]


def _distance_to(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Chessboard distance of every pixel to the nearest of `pixels` (flat indices)."""
    elsewhere = np.ones(shape, dtype=bool)
    elsewhere.flat[pixels] = False
    return ndimage.distance_transform_cdt(elsewhere, metric="chessboard")


def _notes(counts: dict[str, np.ndarray], wanted: np.ndarray, lost: int) -> list[str]:
    notes = [f"{lost:,} labelled pixels lie in the blocks or their margin and are neither trained nor tested on"]
    for what, classes in (
        ("no training pixel", counts["train"] == 0),
        ("no test pixel: each fills too small an area to be trained and tested", counts["test"] == 0),
        ("fewer training pixels than asked for", (counts["train"] > 0) & (counts["train"] < wanted)),
    ):
        if classes.any():
            notes.append(f"classes {[int(i) for i in np.flatnonzero(classes) + 1]} have {what}")
    return notes
