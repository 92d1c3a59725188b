"""Images with a class for each pixel, in ADE20K's published layout.

    ADEChallengeData2016/
        images/training/ADE_train_00000001.jpg   images/validation/ADE_val_00000001.jpg
        annotations/training/ADE_train_00000001.png   annotations/validation/ADE_val_00000001.png
        objectInfo150.txt

Annotations have 8 bits: 0 is unlabelled, 1 to 150 are the classes. `objectInfo150.txt` names the classes. The table may
have fewer or more lines; the data set then has this number of classes. Without a table there are 150 classes without
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biformer.data import UnreadablePicture, reading
from biformer.segmentation.model import IGNORED
from common.errors import UserError
from common.photographs.images import SUFFIXES, list_images, read_rgb, refuse_shared

FOLDER = "ADEChallengeData2016"
_TABLE = "objectInfo150.txt"


@dataclass(frozen=True)
class Scenes:
    """Annotated images of one split, read one at a time.

    Attributes:
        root: the data set's folder.
        names: paths of the images relative to images/<split>, sorted.
        split: "training" or "validation".
        classes: names of the classes.
    """

    root: Path
    names: Sequence[str]
    split: str
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """An image `(3, H, W)` uint8 in RGB, and its labels `(H, W)` uint8: class numbers from 0, 255 for unlabelled.

        Raises:
            UserError: a file cannot be decoded, the sizes differ, or a label is larger than the number of classes.
        """
        path = annotation_of(self.root / "annotations" / self.split, self.names[index])
        try:
            image = read_picture(self.root / "images" / self.split / self.names[index])
            labels = _read_annotation(path, len(self.classes))
        except UnreadablePicture as error:
            raise UserError(str(error)) from None
        if labels.shape != image.shape[1:]:
            raise UserError(
                f"{path}: has {labels.shape[1]}x{labels.shape[0]} pixels, its image has "
                f"{image.shape[2]}x{image.shape[1]}; copy both again"
            )
        return image, labels


def open_both(root: Path) -> tuple[Scenes, Scenes]:
    """Training and validation images of a data set.

    Raises:
        UserError: as `open_scenes`, or an image is in both splits.
    """
    training, validation = open_scenes(root, "training"), open_scenes(root, "validation")
    refuse_shared(*([s.root / "images" / s.split / name for name in s.names] for s in (training, validation)))
    return training, validation


def open_scenes(root: Path, split: str) -> Scenes:
    """One split of a data set.

    Args:
        root: the folder ADEChallengeData2016, or its parent.
        split: "training" or "validation".

    Raises:
        UserError: a folder is missing or empty, images have no annotation or annotations no image, or the table of
            classes cannot be read.
    """
    root = data_folder(root)
    images, annotations = root / "images" / split, root / "annotations" / split
    for folder in (images, annotations):
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; expected images/{split} and annotations/{split} below {FOLDER}, "
                "as ADE20K is published: put the data set there or correct --data-root"
            )
    names = sorted(path.relative_to(images).as_posix() for path in list_images(images))
    if not names:
        raise UserError(f"{images}: has no images, expected files ending in {', '.join(SUFFIXES)}")
    there = {path.relative_to(annotations).as_posix() for path in list_images(annotations, suffixes=(".png",))}
    wanted = {annotation_of(Path(), name).as_posix(): name for name in names}
    missing = [name for annotation, name in wanted.items() if annotation not in there]
    if missing:
        raise UserError(
            f"{annotations}: {len(missing)} of {len(names)} images have no annotation (first: "
            f"{annotation_of(Path(), missing[0])}); copy the rest of the data set"
        )
    if len(wanted) < len(names):
        twice = next(name for name in names if name not in wanted.values())
        raise UserError(f"{images}: {twice} differs from another image in its suffix alone; keep one of the two")
    if alone := sorted(there - wanted.keys()):
        raise UserError(
            f"{images}: {len(alone)} of {len(there)} annotations have no image (first: {alone[0]}); "
            "finish copying the data set, or remove them"
        )
    return Scenes(root, names, split, read_classes(root / _TABLE))


def data_folder(root: Path) -> Path:
    """The folder of the data set: `root`, or ADEChallengeData2016 inside it.

    Raises:
        UserError: `root` does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root}: the folder does not exist; put the data set there or correct --data-root")
    return root / FOLDER if (root / FOLDER).is_dir() else root


def annotation_of(folder: Path, name: str) -> Path:
    """Path of the annotation of the image `name` in the annotations' folder."""
    return (folder / name).with_suffix(".png")


def read_classes(table: Path) -> list[str]:
    """Read the class names from `objectInfo150.txt`; of several synonyms the first is taken.

    Returns:
        the names; "class 1" to "class 150" if the table does not exist.

    Raises:
        UserError: the table has no class or too many, or they are not numbered from 1.
    """
    if not table.exists():
        return [f"class {i}" for i in range(1, 151)]
    lines = table.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    cells = [cells for cells in (line.rstrip().split("\t") for line in lines) if cells[0].strip().isdigit()]
    names = [line[-1].split(",")[0].split(";")[0].strip() for line in cells]
    if not 1 <= len(names) < IGNORED or not all(names):
        raise UserError(
            f"{table}: names {len(names)} classes, expected 1 to {IGNORED - 1} lines of number, tab, ..., tab, name; "
            "copy it again or remove it"
        )
    numbers = [int(line[0]) for line in cells]
    if numbers != list(range(1, len(names) + 1)):
        raise UserError(f"{table}: numbers its classes {numbers}; expected 1 to {len(names)} in this order")
    return names


def read_picture(path: Path) -> Tensor:
    """Read an image and turn it upright: `(3, H, W)` uint8, RGB.

    Raises:
        UnreadablePicture: the image cannot be decoded.
    """
    with reading(path):
        return torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1)


def _bits(path: Path) -> int:
    """Bits per pixel of a PNG; some programs store class numbers with 2 or 4 bits to make files smaller."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _read_annotation(path: Path, classes: int) -> Tensor:
    with reading(path), Image.open(path) as file:
        mode, codes = file.mode, np.array(file)
        if mode == "L" and file.format == "PNG" and (bits := _bits(path)) < 8:
            codes //= 255 // (2**bits - 1)  # Pillow stretches grey values of fewer bits to the range of 8 bits
    if mode not in ("L", "P"):
        raise UserError(f"{path}: has pixels of mode {mode}, expected 8-bit class numbers, 0 for unlabelled")
    if codes.max() > classes:
        raise UserError(
            f"{path}: has the label {codes.max()}, expected 0 for unlabelled and 1 to {classes} for the classes; "
            f"correct it, or list the classes in {_TABLE}"
        )
    return torch.from_numpy(codes - np.uint8(1))  # unlabelled: 0 becomes 255
