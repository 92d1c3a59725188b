"""Split labelled pixels into training, validation and test pixels by the published protocols.

A split consists of three lists of flat pixel indices (row · W + column), with shape and hash of the label map from
which they were drawn. It is saved as one `.npz` file, which can only be loaded for the same label map.

Random splits have test pixels beside training pixels, so their scores are optimistic. `disjoint.py` measures this for
any split and draws splits without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_path

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Flat indices of the pixels of each part, int64, ascending, without a pixel in common.

    Attributes:
        shape: rows and columns of the label map.
        labels_sha256: hash of the label map, so that a saved split is not used for another one.
        description: one line for tables, for example "stratified 10 %, seed 5".
        notes: sentences about shortcomings of the split (classes left out, pixels lost).
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    shape: tuple[int, int]
    labels_sha256: str
    description: str
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Training, validation and test pixels."""
        return len(self.train), len(self.validation), len(self.test)

    def counts(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Pixels per class of each part, class 1 first."""
        return {part: class_counts(labels.flat[getattr(self, part)], labels.max()) for part in _PARTS}

    def save(self, path: str | Path) -> None:
        """Write one `.npz`, atomically."""
        meta = {"shape": self.shape, "labels_sha256": self.labels_sha256}
        meta |= {"description": self.description, "notes": self.notes}
        with atomic_path(path) as temporary:
            parts: dict[str, Any] = {part: getattr(self, part) for part in _PARTS}
            np.savez_compressed(temporary, meta=json.dumps(meta), **parts)

    @classmethod
    def load(cls, path: str | Path, labels: np.ndarray) -> Split:
        """Read what `save` wrote, for the same label map.

        Raises:
            UserError: the file is missing or damaged, or belongs to other labels.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                train, validation, test = (file[part].astype(np.int64) for part in _PARTS)
                shape, digest = tuple(meta["shape"]), meta["labels_sha256"]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected a saved split (.npz)") from None
        except Exception as error:  # numpy raises six types of errors for damaged archives
            raise UserError(f"{path}: is not a saved split ({error})") from error
        if shape != labels.shape:
            raise UserError(f"{path}: was drawn from labels of {shape} pixels; the scene's are {labels.shape}")
        if digest != labels_sha256(labels):
            raise UserError(f"{path}: was drawn from other labels than the scene's; draw a new split")
        return cls(train, validation, test, shape, digest, meta["description"], tuple(meta["notes"]))


def labels_sha256(labels: np.ndarray) -> str:
    """Return the hash of a label map, independent of its integer type."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype=np.int64).tobytes()).hexdigest()


def stratified_split(labels: np.ndarray, ratio: float, *, seed: int) -> Split:
    """Draw a share of all labelled pixels, proportionally per class, as LSGA-ViT's release does.

    The result has the same pixels as scikit-learn's `train_test_split(pixels, test_size=1 - ratio, stratify=classes,
    random_state=seed)` on the labelled pixels in row order; the tests compare both.

    Args:
        labels: `(H, W)`, 0 unlabelled, classes 1..K.
        ratio: share of the labelled pixels for training, in (0, 1).

    Raises:
        UserError: a class has one pixel, or the ratio leaves it without a training or test pixel.
    """
    pixels = np.flatnonzero(labels)
    classes = labels.flat[pixels]
    counts = class_counts(classes, labels.max())
    check_classes(counts, ratio)
    size_test = math.ceil((1 - ratio) * len(pixels))
    rng = np.random.RandomState(seed)
    of_train = _proportional(counts, len(pixels) - size_test, rng)
    of_test = _proportional(counts - of_train, size_test, rng)
    _refuse_empty(counts, of_train, "training", ratio)
    _refuse_empty(counts, of_test, "test", ratio)
    train, test = [], []
    for index, members in enumerate(class_members(labels)):
        shuffled = members[rng.permutation(len(members))]
        train.append(shuffled[: of_train[index]])
        test.append(shuffled[of_train[index] : of_train[index] + of_test[index]])
    return make_split(labels, (train, [], test), f"stratified {100 * ratio:g} %, seed {seed}")


def per_class_split(labels: np.ndarray, *, ratio: float, validation: float = 0.0, seed: int) -> Split:
    """Draw training pixels of each class at random, as AMGCFN's release does; the others are test pixels.

    Args:
        labels: `(H, W)`, 0 unlabelled, classes 1..K.
        ratio: a class of n pixels gets ceil(ratio · n) training pixels, so at least one.
        validation: int(validation · labelled pixels) validation pixels are drawn from the others, over all classes.

    Raises:
        UserError: a class has one pixel or no test pixel, or no test pixels would be left.
    """
    counts = class_counts(labels[labels > 0], labels.max())
    check_classes(counts, ratio)
    of_train = np.ceil(ratio * counts).astype(np.int64)
    _refuse_empty(counts, counts - of_train, "test", ratio)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(members) for members in class_members(labels)]
    train = [members[:n] for members, n in zip(shuffled, of_train, strict=True)]
    rest = rng.permutation(np.concatenate([members[n:] for members, n in zip(shuffled, of_train, strict=True)]))
    held_out = int(validation * counts.sum())
    if held_out >= len(rest):
        raise UserError(f"validation asks for {held_out} pixels; training leaves {len(rest)}, of which some are tested")
    return make_split(
        labels, (train, [rest[:held_out]], [rest[held_out:]]), f"random {100 * ratio:g} % per class, seed {seed}"
    )


def fixed_split(
    train_map: np.ndarray, test_map: np.ndarray, *, codes: Sequence[int] | None = None
) -> tuple[np.ndarray, Split]:
    """Make a split from a published pair of maps, whose labels may differ from the usual ground truth.

    Args:
        train_map, test_map: `(H, W)` class codes, 0 elsewhere.
        codes: code i in the maps means code `codes[i - 1]` of the usual ground truth; None if both are the same.

    Returns:
        labels `(H, W)` int64 of both maps together, and their split.

    Raises:
        UserError: sizes differ, a pixel is in both maps, or a class is in only one map.
    """
    if train_map.shape != test_map.shape:
        raise UserError(
            f"the training map is {train_map.shape} pixels and the test map {test_map.shape}; expected one size"
        )
    both = int(((train_map > 0) & (test_map > 0)).sum())
    if both:
        raise UserError(f"{both} pixels are in the training map and in the test map; expected none")
    labels = train_map.astype(np.int64) + test_map.astype(np.int64)
    classes = labels.max()
    if codes is not None:
        if classes > len(codes):
            raise UserError(f"the maps hold code {classes}; expected at most {len(codes)}")
        labels = np.array([0, *codes], dtype=np.int64)[labels]
    train, test = np.flatnonzero(train_map), np.flatnonzero(test_map)
    of_train, of_test = (class_counts(labels.flat[pixels], labels.max()) for pixels in (train, test))
    unpaired = [int(code) for code in np.flatnonzero((of_train == 0) | (of_test == 0)) + 1]
    if unpaired:
        raise UserError(f"classes {unpaired} are not in both maps; expected every class to be trained and tested")
    return labels, make_split(labels, ([train], [], [test]), "published fixed split")


def make_split(
    labels: np.ndarray, parts: Sequence[Sequence[np.ndarray]], description: str, notes: Sequence[str] = ()
) -> Split:
    """Make a split of `labels` from lists of its training, validation and test pixels."""
    train, validation, test = (np.sort(np.concatenate([np.empty(0, np.int64), *pieces])) for pieces in parts)
    return Split(train, validation, test, labels.shape, labels_sha256(labels), description, tuple(notes))


def class_counts(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the pixels per class `(num_classes,)`, class 1 first, of a flat array that may hold 0."""
    return np.bincount(classes, minlength=num_classes + 1)[1:]


def class_members(labels: np.ndarray) -> list[np.ndarray]:
    """Return the flat indices of each class, in row order, class 1 first."""
    return [np.flatnonzero(labels == index) for index in range(1, labels.max() + 1)]


def check_classes(counts: np.ndarray, ratio: float) -> None:
    """Refuse a single class, a class of fewer than two pixels and a ratio outside (0, 1), with a `UserError`."""
    if not 0 < ratio < 1:
        raise UserError(f"a training ratio of {ratio:g} was asked for; expected more than 0 and less than 1")
    if len(counts) < 2:
        raise UserError("the labels hold a single class; expected at least two, with 0 for unlabelled pixels")
    if (counts < 2).any():
        index = int(np.argmax(counts < 2))
        raise UserError(
            f"class {index + 1} has {counts[index]} labelled pixel; expected at least 2, one to train and one to test: "
            "leave this class out"
        )


def _refuse_empty(counts: np.ndarray, part: np.ndarray, name: str, ratio: float) -> None:
    if (part < 1).any():
        index = int(np.argmax(part < 1))
        raise UserError(
            f"a training ratio of {ratio:g} leaves class {index + 1} with its {counts[index]} labelled pixels without "
            f"a {name} pixel; {'raise' if name == 'training' else 'lower'} the ratio or leave this class out"
        )


def _proportional(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """Distribute `total` among classes in proportion, largest remainders first, ties at random.

    It equals scikit-learn's stratified splits, including the order of random draws.
    """
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        if not missing:
            break
        (tied,) = np.where(remainders == remainder)
        chosen = rng.choice(tied, size=min(len(tied), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(np.int64)
