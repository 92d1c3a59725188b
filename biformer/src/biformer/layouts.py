"""The layouts in which data sets of labelled images are published.

| layout | found under --data-root |
|---|---|
| folders | `train/<class>/*` for training; `val/`, `validation/`, `valid/`, `eval/` or `test/` for validation |
| zips | `train.zip`, `NAME_train.zip` and so on, with class folders inside; they are read without unpacking |
| one set | only class folders; `--split-file` or `--holdout` splits them |
| timm | data sets that `timm.data.create_dataset` reads by index: `--dataset torch/cifar100`, `hfds/owner/name`, ... |

The classes are the sorted names of the class folders.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from timm.data import create_dataset

from biformer.data import Pictures, check_classes, stratified_split
from common.errors import UserError
from common.photographs.images import SUFFIXES, list_images, read_rgb, refuse_shared

_FOLDERS = {"train": ("train", "training"), "validation": ("val", "validation", "valid", "eval", "test")}
_EXPECTED = "the supported layouts are listed at the top of biformer/layouts.py and in the README"


def open_both(
    root: Path,
    *,
    dataset: str = "",
    split_file: Path | None = None,
    holdout: float = 0.0,
    seed: int = 0,
    upright: bool = True,
) -> tuple[Pictures, Pictures]:
    """Training and validation images of a data set.

    Args:
        root: the data set's folder.
        dataset: a name of timm's dataset factory; "" for folders and zips.
        split_file: a file written by `save_split`, for a data set without splits.
        holdout: share of every class for validation, for a data set without splits and without a split file.
        seed: seed of this random split.
        upright: turn images by their EXIF orientation; see `open_split`.

    Raises:
        UserError: a folder is missing or empty, or the two splits have different classes.
    """
    if split_file is None and holdout:
        whole = open_split(root, "any", dataset=dataset, upright=upright)
        train, validation = stratified_split(whole, holdout, seed)
        return whole.subset(train), whole.subset(validation)
    training, validation_set = (
        open_split(root, split, dataset=dataset, split_file=split_file, upright=upright)
        for split in ("train", "validation")
    )
    if not dataset:  # images in zips are not files; they are not compared
        refuse_shared(*([root / name for name in pictures.names] for pictures in (training, validation_set)))
    check_classes(validation_set.classes, training.classes, f"{root}: the validation images", "the training images")
    return training, validation_set


def open_split(
    root: Path, split: str, *, dataset: str = "", split_file: Path | None = None, upright: bool = True
) -> Pictures:
    """One split of a data set.

    Args:
        root: the data set's folder.
        split: "train", "validation", or "any" for a data set without splits.
        dataset: a name of timm's dataset factory; "" for folders and zips.
        split_file: a file written by `save_split`.
        upright: turn images by their EXIF orientation. The release does not, so the published scores on ImageNet need
            False (about one in some thousand photographs is not stored upright). timm's data sets decode images
            themselves, and these are not turned.

    Raises:
        UserError: there are no images; the message names what was found and what is expected.
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
    if split != "train":  # the root can be the split itself, for example ImageNet's val folder
        pictures = _walk(root, root)
        if pictures and all(len(PurePosixPath(name).parts) > 1 for name in pictures[:100]):
            return _from_names(root, pictures, str(root), upright)
    found = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())[:6]
    raise UserError(
        f"{root}: no {split} images (expected {names[0]}/<class>/* or {names[0]}.zip), found "
        f"{', '.join(found) or 'nothing'}; pass --split-file or --holdout if the data set has no splits; {_EXPECTED}"
    )


def _from_split_file(root: Path, path: Path, split: str, upright: bool) -> Pictures:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        lists = {part: [PurePosixPath(name).as_posix() for name in content[part]] for part in ("train", "validation")}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a split file such as a run's split.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a split file ({error}); expected JSON with train and validation") from None
    both = set(lists["train"]) & set(lists["validation"])
    if both:
        raise UserError(f"{path}: {len(both)} images are in both splits (first: {min(both)}); write the file again")
    if len(set(lists[split])) < len(lists[split]):
        raise UserError(f"{path}: an image is listed twice in {split} and would count twice; write the file again")
    missing = [name for name in lists[split] if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(lists[split])} images that {path.name} lists are missing "
            f"(first: {missing[0]}); copy the rest of the data set"
        )
    return _from_names(root, lists[split], f"{path}: the split {split}", upright)


def _from_names(root: Path, names: list[str], whose: str, upright: bool) -> Pictures:
    classes, labels = _classes(names, whose)
    return Pictures(names, labels, classes, partial(_load_file, root, names, labels, upright))


def _from_zip(path: Path, upright: bool) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in sorted(archive.namelist()) if _is_image(name)]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: is not a readable zip ({error}); copy it again") from None
    classes, labels = _classes(members, str(path))
    return Pictures(members, labels, classes, partial(_load_member, path, members, labels, upright))


def _from_timm(name: str, root: Path, split: str) -> Pictures:
    if split == "any":
        raise UserError(f"--dataset {name}: has its own splits; leave out --holdout")
    try:
        source: Any = create_dataset(name, root=str(root), split=split)
        length = len(source)
    except ImportError as error:
        raise UserError(f"--dataset {name}: needs a package that is not installed ({error}); install it") from None
    except (AssertionError, RuntimeError, OSError, ValueError) as error:
        raise UserError(f"--dataset {name}: timm cannot open it under {root} ({error}); correct the name") from None
    except TypeError:
        raise UserError(
            f"--dataset {name}: is a stream, which cannot be resumed exactly; use an indexed form (hfds/, folders)"
        ) from None
    reader = getattr(source, "reader", source)
    mapping: dict[str, int] = getattr(reader, "class_to_idx", None) or {}
    classes = list(getattr(source, "classes", None) or sorted(mapping, key=lambda name: mapping[name]))
    if not classes:
        raise UserError(f"--dataset {name}: does not name its classes; export it as class folders")
    return Pictures([f"{split}[{i}]" for i in range(length)], None, classes, source.__getitem__)


def _classes(names: Sequence[str], whose: str) -> tuple[list[str], list[int]]:
    """Class names, and the class number of each image, from the images' parent folders."""
    parents = [PurePosixPath(name).parent.name for name in names]
    classes = sorted(set(parents))
    if len(classes) < 2:
        raise UserError(f"{whose}: found {len(names)} images in {len(classes)} class folders, expected at least two")
    if len({PurePosixPath(name).parent for name in names}) > len(classes):
        raise UserError(
            f"{whose}: several class folders have the same name; expected <class>/* with one folder for each class"
        )
    numbers = {name: i for i, name in enumerate(classes)}
    return classes, [numbers[parent] for parent in parents]


def _walk(root: Path, folder: Path) -> list[str]:
    """Images in `folder` and its subfolders, as sorted paths relative to `root`."""
    return sorted(path.relative_to(root).as_posix() for path in list_images(folder))


def _is_image(name: str) -> bool:
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
    # The zip is opened for every image: loading processes that share a handle would also share its position.
    with zipfile.ZipFile(path) as archive, archive.open(names[index]) as member:
        return read_rgb(member, name=f"{path}:{names[index]}", upright=upright), labels[index]
