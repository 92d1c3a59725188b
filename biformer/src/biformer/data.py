"""Labelled images in the layouts in which data sets are published, and how they are split.

| layout | found under --data-root |
|---|---|
| folders | `train/<class>/*`, and `val/`, `validation/`, `valid/`, `eval/` or `test/` alike |
| zips | `train.zip`, `NAME_train.zip` and so on, with class folders inside, read without unpacking |
| one set | class folders only; split by `--split-file` or `--holdout` |
| timm | whatever `timm.data.create_dataset` indexes: `--dataset torch/cifar100`, `hfds/owner/name`, ... |

Classes are the sorted names of the class folders.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_dataset

from common.errors import UserError
from common.files import printable, write_json
from common.photographs.images import SUFFIXES, list_images, read_rgb, refuse_shared

_FOLDERS = {"train": ("train", "training"), "validation": ("val", "validation", "valid", "eval", "test")}
_EXPECTED = "the supported layouts are listed at the top of biformer/data.py and in the README"


class UnreadablePicture(UserError):
    """An image that is truncated, damaged or no image at all; the message names it."""


@contextlib.contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Turn any exception inside into an error message about the image `name`.

    Raises:
        UnreadablePicture: it cannot be decoded.
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
        names: unique, a path relative to the data set's folder where there is one.
        labels: class number per image; None where only reading tells.
        classes: names, sorted.
        load: index → image and class number; may raise what pillow raises.
    """

    names: Sequence[str]
    labels: Sequence[int] | None
    classes: Sequence[str]
    load: Callable[[int], tuple[Image.Image, int]]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded image in RGB, and its class number.

        Raises:
            UnreadablePicture: it cannot be decoded.
        """
        with reading(self.names[index]):
            picture, label = self.load(index)
            return picture if picture.mode == "RGB" else picture.convert("RGB"), label

    def subset(self, indices: Sequence[int]) -> Pictures:
        """The images at `indices`, with all classes."""
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return replace(
            self,
            names=[self.names[i] for i in indices],
            labels=labels,
            load=partial(_load_subset, self.load, list(indices)),
        )


def open_both(
    root: Path,
    *,
    dataset: str = "",
    split_file: Path | None = None,
    holdout: float = 0.0,
    seed: int = 0,
    upright: bool = True,
) -> tuple[Pictures, Pictures]:
    """Training and validation images of a data set, with the same classes.

    Args:
        root: the data set's folder.
        dataset: a name of timm's dataset factory; "" for folders and zips.
        split_file: written by `save_split`; for a data set that comes in one piece.
        holdout: without a split file, share of every class that is held out of that piece.
        seed: of that choice.
        upright: turn images as their EXIF orientation says; see `open_split`.

    Raises:
        UserError: a folder is missing or empty, or the classes of the two differ, with their names.
    """
    if split_file is None and holdout:
        whole = open_split(root, "any", dataset=dataset, upright=upright)
        train, validation = stratified_split(whole, holdout, seed)
        return whole.subset(train), whole.subset(validation)
    training, validation_set = (
        open_split(root, split, dataset=dataset, split_file=split_file, upright=upright)
        for split in ("train", "validation")
    )
    if not dataset:  # what lies in zips is no file, and passes
        refuse_shared(*([root / name for name in pictures.names] for pictures in (training, validation_set)))
    check_classes(validation_set.classes, training.classes, f"{root}: the validation images", "the training images")
    return training, validation_set


def open_split(
    root: Path, split: str, *, dataset: str = "", split_file: Path | None = None, upright: bool = True
) -> Pictures:
    """One split of a data set.

    Args:
        root: the data set's folder.
        split: "train", "validation", or "any" for the only one there is.
        dataset: a name of timm's dataset factory; "" for folders and zips.
        split_file: written by `save_split`.
        upright: turn images as their EXIF orientation says. The release does not, so ImageNet's published
            scores need False; 1 of its photographs in some thousands is stored on its side. timm's data
            sets decode by themselves and are left as they are.

    Raises:
        UserError: nothing there, with what was found and what is expected.
    """
    if dataset:
        return _from_timm(dataset, root, split)
    if not root.is_dir():
        raise UserError(f"{root}: the folder does not exist; put the data set there or correct --data-root")
    if split_file is not None:
        return _from_split_file(root, split_file, split, upright)
    names = _FOLDERS.get(split, (*_FOLDERS["train"], *_FOLDERS["validation"]))
    for name in names:
        if (root / name).is_dir():
            return _from_names(root, _walk(root, root / name), str(root / name), upright)
        archive = next((path for path in sorted(root.glob("*.zip")) if _is_archive_of(path, name)), None)
        if archive is not None:
            return _from_zip(archive, upright)
    if split != "train":  # the root may be the split itself, such as ImageNet's val folder
        pictures = _walk(root, root)
        if pictures and all(len(PurePosixPath(name).parts) > 1 for name in pictures[:100]):
            return _from_names(root, pictures, str(root), upright)
    found = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())[:6]
    raise UserError(
        f"{root}: no {split} images (expected {names[0]}/<class>/* or {names[0]}.zip), found "
        f"{', '.join(found) or 'nothing'}; name a --split-file or a --holdout if the set comes in one piece, "
        f"else {_EXPECTED}"
    )


def list_pictures(source: Path, *, outside: Path | None = None) -> list[Path]:
    """The image, or the sorted images of a folder at any depth.

    Args:
        outside: the script's own output, left out.

    Raises:
        UserError: there is none.
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
    """How results name an image: relative to the input folder; bytes that are no UTF-8 as escapes."""
    return printable(file.relative_to(source).as_posix() if source.is_dir() else file.name)


def check_classes(found: Sequence[str], expected: Sequence[str], whose: str, others: str) -> None:
    """Refuse class names that differ.

    Raises:
        UserError: names the classes that only one side has.
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
    """Indices for training and validation; of every class the same share, at least one image each.

    Raises:
        UserError: the share is not between 0 and 1, or a class has a single image.
    """
    if not 0 < holdout < 1:
        raise UserError(f"--holdout {holdout}: expected a share between 0 and 1")
    if pictures.labels is None:
        raise UserError("--holdout needs class folders or a zip of them; this data set has splits of its own")
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


def _from_split_file(root: Path, path: Path, split: str, upright: bool) -> Pictures:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        lists = {part: [PurePosixPath(name).as_posix() for name in content[part]] for part in ("train", "validation")}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the names of a split, as a run's split.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a split file ({error}); expected JSON with train and validation") from None
    both = set(lists["train"]) & set(lists["validation"])
    if both:
        raise UserError(f"{path}: {len(both)} images are in both splits (first: {min(both)}); write it again")
    if len(set(lists[split])) < len(lists[split]):
        raise UserError(f"{path}: an image stands twice in {split} and would count twice; write it again")
    missing = [name for name in lists[split] if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(lists[split])} images that {path.name} lists are missing "
            f"(first: {missing[0]}); finish copying the data set"
        )
    return _from_names(root, lists[split], f"{path}: the split {split}", upright)


def _from_names(root: Path, names: list[str], whose: str, upright: bool) -> Pictures:
    classes, labels = _classes(names, whose)
    return Pictures(names, labels, classes, partial(_load_file, root, names, labels, upright))


def _from_zip(path: Path, upright: bool) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in sorted(archive.namelist()) if _is_picture(name)]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: is not a readable zip ({error}); copy it again") from None
    classes, labels = _classes(members, str(path))
    return Pictures(members, labels, classes, partial(_load_member, path, members, labels, upright))


def _from_timm(name: str, root: Path, split: str) -> Pictures:
    if split == "any":
        raise UserError(f"--dataset {name}: has splits of its own; leave out --holdout")
    try:
        source: Any = create_dataset(name, root=str(root), split=split)
        length = len(source)
    except (AssertionError, RuntimeError, OSError, ImportError, ValueError) as error:
        raise UserError(f"--dataset {name}: timm cannot open it under {root} ({error}); correct the name") from None
    except TypeError:
        raise UserError(
            f"--dataset {name}: is a stream, which cannot be resumed exactly; choose an indexed form (hfds/, folders)"
        ) from None
    reader = getattr(source, "reader", source)
    mapping: dict[str, int] = getattr(reader, "class_to_idx", None) or {}
    classes = list(getattr(source, "classes", None) or sorted(mapping, key=lambda name: mapping[name]))
    if not classes:
        raise UserError(f"--dataset {name}: does not name its classes; export it as class folders")
    return Pictures([f"{split}[{i}]" for i in range(length)], None, classes, source.__getitem__)


def _classes(names: Sequence[str], whose: str) -> tuple[list[str], list[int]]:
    """Class names and numbers of images, by their parent folders."""
    parents = [PurePosixPath(name).parent.name for name in names]
    classes = sorted(set(parents))
    if len(classes) < 2:
        raise UserError(f"{whose}: found {len(names)} images in {len(classes)} class folders, expected at least two")
    if len({PurePosixPath(name).parent for name in names}) > len(classes):
        raise UserError(
            f"{whose}: class folders of one name lie in several places; expected <class>/* with one of each"
        )
    numbers = {name: i for i, name in enumerate(classes)}
    return classes, [numbers[parent] for parent in parents]


def _walk(root: Path, folder: Path) -> list[str]:
    """Images below `folder`, as sorted paths relative to `root`."""
    return sorted(path.relative_to(root).as_posix() for path in list_images(folder))


def _is_picture(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _is_archive_of(path: Path, name: str) -> bool:
    return path.stem.lower() == name or path.stem.lower().endswith((f"_{name}", f"-{name}"))


def _load_file(
    root: Path, names: Sequence[str], labels: Sequence[int], upright: bool, index: int
) -> tuple[Image.Image, int]:
    return read_rgb(root / names[index], upright=upright), labels[index]


def _load_member(
    path: Path, names: Sequence[str], labels: Sequence[int], upright: bool, index: int
) -> tuple[Image.Image, int]:
    # Opened again: a handle that loading processes share would share its position too.
    with zipfile.ZipFile(path) as archive, archive.open(names[index]) as member:
        return read_rgb(member, name=f"{path}:{names[index]}", upright=upright), labels[index]


def _load_subset(
    load: Callable[[int], tuple[Image.Image, int]], indices: Sequence[int], index: int
) -> tuple[Image.Image, int]:
    return load(indices[index])
