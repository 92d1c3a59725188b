"""Labelled images and their splits; `layouts` finds them in published data sets."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import printable, write_json
from common.photographs.images import SUFFIXES, list_images


class UnreadablePicture(UserError):
    """An image is truncated or damaged, or the file is not an image; the message names it."""


@contextlib.contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Convert exceptions of the decoding inside the context to an error that names the image.

    Args:
        name: of the image.

    Raises:
        UnreadablePicture: the image cannot be decoded.
    """
    try:
        yield
    except UserError as error:
        raise UnreadablePicture(str(error)) from None
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UnreadablePicture(f"{printable(name)}: cannot be read as an image ({reason}); copy it again") from None


@dataclass(frozen=True)
class Pictures:
    """Labelled images, read one at a time.

    Attributes:
        names: unique names of the images; if they are files, paths relative to the data set's folder.
        labels: class number of each image; None if it is only known after reading the image.
        classes: names of the classes, sorted.
        load: index → image and class number; can raise the exceptions of Pillow.
    """

    names: Sequence[str]
    labels: Sequence[int] | None
    classes: Sequence[str]
    load: Callable[[int], tuple[Image.Image, int]]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Read an image in RGB, and its class number.

        Raises:
            UnreadablePicture: the image cannot be decoded.
        """
        with reading(self.names[index]):
            image, label = self.load(index)
            return image if image.mode == "RGB" else image.convert("RGB"), label

    def subset(self, indices: Sequence[int]) -> Pictures:
        """The images at `indices`, with all classes."""
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return replace(
            self,
            names=[self.names[i] for i in indices],
            labels=labels,
            load=partial(_load_subset, self.load, list(indices)),
        )


def list_pictures(source: Path, *, outside: Path | None = None) -> list[Path]:
    """List the images of a folder and its subfolders, sorted.

    Args:
        source: a folder, or one image.
        outside: the output of the script, which is left out.

    Raises:
        UserError: there is no image.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{printable(source)}: no such image or folder; correct --input")
    found = list_images(source, outside=outside)
    if not found:
        raise UserError(f"{printable(source)}: found no images, expected files ending in {', '.join(SUFFIXES)}")
    return found


def relative(file: Path, source: Path) -> str:
    """Name of an image in results: its path relative to the input folder; bytes that are not UTF-8 are escaped."""
    return printable(file.relative_to(source).as_posix() if source.is_dir() else file.name)


def check_classes(found: Sequence[str], expected: Sequence[str], whose: str, others: str) -> None:
    """Refuse class names that differ from the expected ones.

    Args:
        found: class names of the first data set.
        expected: class names of the second data set or of a model.
        whose, others: name the two in the error.

    Raises:
        UserError: the names differ; the message lists those that only one side has.
    """
    if list(found) == list(expected):
        return
    only = [
        f"only {name}: {', '.join(sorted(classes)[:5])}{', ...' if len(classes) > 5 else ''}"
        for name, classes in (("here", set(found) - set(expected)), ("there", set(expected) - set(found)))
        if classes
    ]
    raise UserError(
        f"{whose} have {len(found)} classes, {others} {len(expected)} ({'; '.join(only) or 'in another order'}); "
        "make the class folders the same"
    )


def stratified_split(pictures: Pictures, holdout: float, seed: int) -> tuple[list[int], list[int]]:
    """Split images at random, with the same share of every class.

    Args:
        pictures: the images; their labels must be known.
        holdout: share of every class for validation; each class has at least one image in both splits.
        seed: seed of the random choice.

    Returns:
        indices of the training images and of the validation images, both sorted.

    Raises:
        UserError: the share is not between 0 and 1, or a class has only one image.
    """
    if not 0 < holdout < 1:
        raise UserError(f"--holdout {holdout}: expected a share between 0 and 1")
    if pictures.labels is None:
        raise UserError("--holdout needs class folders or a zip of them; this data set has its own splits")
    labels = np.asarray(pictures.labels)
    train, validation = [], []
    for label, name in enumerate(pictures.classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"class {name}: {len(members)} images cannot be split; expected at least two")
        members = np.random.default_rng([seed, label]).permutation(members)
        held_out = min(max(round(holdout * len(members)), 1), len(members) - 1)
        validation += members[:held_out].tolist()
        train += members[held_out:].tolist()
    return sorted(train), sorted(validation)


def save_split(path: Path, training: Pictures, validation: Pictures) -> None:
    """Write the names of both splits as JSON, for `--split-file`."""
    write_json(path, {"train": list(training.names), "validation": list(validation.names)})


def _load_subset(
    load: Callable[[int], tuple[Image.Image, int]], indices: Sequence[int], index: int
) -> tuple[Image.Image, int]:
    return load(indices[index])
