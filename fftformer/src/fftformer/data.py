"""Blurred and sharp images in the folder layouts in which the data sets are published.

| layout | files under the root |
|---|---|
| `gopro` | `train|test/<sequence>/{blur,blur_gamma,sharp}/NNNNNN.png` |
| `hide` | `train|test/`, at any depth, for example `test/test-close-ups/*.png`; all sharp ones in `GT/` by name |
| `realblur_j`, `realblur_r` | `RealBlur_J_train_list.txt` and so on: one "sharp blurred" pair of paths per line |
| `input_target` | `train|test/{input,target}/NAME.png`, or `{input,target}/` without splits |
| `levin` | `im1_kernel1_img.png`, sharp `gt/im1.png`; no splits |
| `pairs` | `NAME_blur1.png` beside `NAME_sharp1.png`, as GoPro's authors publish examples; no splits |
| `crops` | what `prepare.py` writes: `train|test/{blurred,sharp}/NAME.npy`, read by memory mapping |

Hidden files and folders are no data, links are followed.

Data sets take `(epoch, index)` keys and derive every random choice from (seed, epoch, index).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from common.photographs.images import list_images
from fftformer.crops import MANIFEST, verified_names
from fftformer.images import FORMATS, picture_size, read_pixels, to_float

_RED_GREEN_BLUE = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # luma weights of the released saturation jitter


@dataclass(frozen=True)
class Pair:
    """A blurred image and its sharp one.

    Attributes:
        name: unique in its data set, a relative path without suffix.
        blurred, sharp: the files.
    """

    name: str
    blurred: Path
    sharp: Path


def find_pairs(
    root: str | Path, split: str = "test", layout: str = "auto", *, gopro_blur: str = "blur", check_sizes: bool = True
) -> list[Pair]:
    """List the pairs of a data set, sorted by name.

    Args:
        root: the data set's folder.
        split: "train" or "test"; layouts without splits give all their pairs for either.
        layout: one of `LAYOUTS`, or "auto" to recognise it.
        gopro_blur: GoPro's blurred folder: "blur" (averaged as recorded) or "blur_gamma" (averaged in linear light).
        check_sizes: read every header, so that a cut-off PNG or a wrong partner is found before the first step.

    Raises:
        UserError: the folder is missing, empty or half copied, a pair differs in size, or two have one name.
    """
    root = Path(root)
    layout = find_layout(root, split) if layout == "auto" else layout
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout} does not exist; choose auto or one of {', '.join(LAYOUTS)}")
    pairs = _gopro(root, split, gopro_blur) if layout == "gopro" else _READERS[layout](root, split)
    if not pairs:
        raise UserError(f"{root}: found no images for the split {split} in the layout {layout}; {_EXPECTED}")
    name, count = Counter(pair.name for pair in pairs).most_common(1)[0]
    if count > 1:
        raise UserError(f"{root}: found {count} pairs of the name {name}, expected one; remove or rename the others")
    for pair in pairs if check_sizes and layout != "crops" else ():
        blurred, sharp = picture_size(pair.blurred), picture_size(pair.sharp)
        if blurred != sharp:
            raise UserError(
                f"{pair.blurred}: found {blurred[1]}x{blurred[0]} pixels, expected {sharp[1]}x{sharp[0]} "
                f"as in {pair.sharp}; copy the pair again"
            )
    return sorted(pairs, key=lambda pair: pair.name)


def find_layout(root: str | Path, split: str = "test") -> str:
    """Recognise the layout of a data set's folder by its own marks.

    Raises:
        UserError: the folder does not exist, or looks like no layout or like two.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: the folder does not exist; put the data set there or correct --data-root")
    part = root / split
    marks = {
        "crops": (part / MANIFEST).is_file(),
        "realblur_j": (root / f"RealBlur_J_{split}_list.txt").is_file(),
        "realblur_r": (root / f"RealBlur_R_{split}_list.txt").is_file(),
        "hide": (root / "GT").is_dir() and part.is_dir(),
        "gopro": any((folder / "sharp").is_dir() or (folder / "blur").is_dir() for folder in _folders(part)),
        "input_target": any((f / name).is_dir() for f in (part, root) for name in ("input", "target")),
        "levin": bool(_matches(root, _LEVIN)),
        "pairs": bool(_matches(root, _SIDE_BY_SIDE)),
    }
    found = [layout for layout, marked in marks.items() if marked]
    if len(found) == 1:
        return found[0]
    if {"realblur_j", "realblur_r"} <= set(found):
        raise UserError(f"{root}: found the lists of both RealBlur sets; choose --layout realblur_j or realblur_r")
    if found:
        raise UserError(f"{root}: looks like {' and like '.join(found)}; choose one with --layout")
    inside = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())[:6]
    raise UserError(f"{root}: no split {split} in a known layout, found {', '.join(inside) or 'nothing'}; {_EXPECTED}")


class TrainingPairs(Dataset[dict[str, Tensor]]):
    """Random crops of pairs, augmented alike.

    Flips and quarter turns as published. The released loader also jitters saturation, by
    mistake for validation images too; here training only.

    Args:
        pairs: from `find_pairs`.
        crop: side of the square crops in pixels.
        seed: of every random choice.
        saturation_jitter: factor 0.8 to 1.2 on both images, with probability 1/3, as released.

    Item `(epoch, index)`:
        `{"blurred", "sharp"}`, each `(3, crop, crop)` float32 in [0, 1].

    Raises:
        UserError: on access, when an image is damaged or smaller than the crop.
    """

    def __init__(self, pairs: Sequence[Pair], crop: int, seed: int, *, saturation_jitter: bool = True) -> None:
        if crop < 1:
            raise ValueError(f"crop must be at least 1, got {crop}")
        self.pairs, self.crop, self.seed = list(pairs), crop, seed
        self.saturation_jitter = saturation_jitter

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        pair, crop = self.pairs[index], self.crop
        blurred, sharp = read_pixels(pair.blurred), read_pixels(pair.sharp)
        height, width = sharp.shape[:2]
        if blurred.shape != sharp.shape:
            raise UserError(f"{pair.blurred}: found shape {blurred.shape}, expected {sharp.shape} as in {pair.sharp}")
        if min(height, width) < crop:
            raise UserError(
                f"{pair.blurred}: {width}x{height} pixels are too few for a crop of {crop}; "
                "lower --crop or remove the pair"
            )
        top, left = int(random.integers(height - crop + 1)), int(random.integers(width - crop + 1))
        window = (slice(top, top + crop), slice(left, left + crop))
        turn = random_turn(random)
        pictures = [turn(to_float(np.asarray(pixels[window]))) for pixels in (blurred, sharp)]
        if self.saturation_jitter and random.integers(3) == 0:
            factor = np.float32(random.uniform(0.8, 1.2))
            pictures = [_saturate(picture, factor) for picture in pictures]
        return {"blurred": to_tensor(pictures[0]), "sharp": to_tensor(pictures[1])}


class EvaluationPairs(Dataset[dict[str, Any]]):
    """Whole pairs for scoring.

    Item `index`: `{"name": str, "blurred": Tensor, "sharp": Tensor}`, `(3, H, W)` float32 in [0, 1].
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self.pairs[index]
        blurred, sharp = (to_tensor(to_float(np.asarray(read_pixels(path)))) for path in (pair.blurred, pair.sharp))
        return {"name": pair.name, "blurred": blurred, "sharp": sharp}


def random_turn(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Draw one of the eight flips and quarter turns of an `(H, W, C)` image, all equally likely."""
    flip_vertical, flip_horizontal, transpose = random.integers(2, size=3)

    def turn(picture: np.ndarray) -> np.ndarray:
        picture = picture[:: -1 if flip_vertical else 1, :: -1 if flip_horizontal else 1]
        return picture.swapaxes(0, 1) if transpose else picture

    return turn


def to_tensor(picture: np.ndarray) -> Tensor:
    """Turn an `(H, W, 3)` image into a contiguous `(3, H, W)` tensor."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def _saturate(picture: np.ndarray, factor: np.float32) -> np.ndarray:
    grey = (picture @ _RED_GREEN_BLUE)[..., None]
    return (grey + factor * (picture - grey)).clip(0, 1)


def _gopro(root: Path, split: str, blur: str) -> list[Pair]:
    pairs = []
    for sequence in _folders(_split_folder(root, split)):
        blurred, sharp = (
            _named(_pictures(sequence / side), lambda path: f"{path.parents[1].name}/{path.stem}")
            for side in (blur, "sharp")
        )
        pairs += _join(blurred, sharp, f"{sequence}/{{{blur},sharp}}")
    return pairs


def _hide(root: Path, split: str) -> list[Pair]:
    # GT holds the sharp images of both splits.
    part = _split_folder(root, split)
    sharp = _named(_pictures(root / "GT"))
    blurred = _named(
        list_images(part, suffixes=FORMATS), lambda path: path.relative_to(part).with_suffix("").as_posix()
    )
    wanted = {name: sharp[path.stem] for name, path in blurred.items() if path.stem in sharp}
    return _join(blurred, wanted, f"{part} and {root / 'GT'}")


def _realblur(letter: str) -> Callable[[Path, str], list[Pair]]:
    def read(root: Path, split: str) -> list[Pair]:
        listing = root / f"RealBlur_{letter}_{split}_list.txt"
        if not listing.is_file():
            raise UserError(f"{listing}: the list does not exist; copy it from the data set's archive")
        pairs, missing = [], []
        for number, line in enumerate(_lines(listing), start=1):
            paths = line.split()
            if not paths:
                continue
            if len(paths) < 2:
                raise UserError(f"{listing}: line {number} is {line!r}, expected two paths: sharp and blurred")
            sharp, blurred = root / paths[0], root / paths[1]
            missing += [path for path in (sharp, blurred) if not path.is_file()]
            # .../scene230/gt/gt_7.png and .../scene230/blur/blur_7.png
            pairs.append(Pair(f"{blurred.parent.parent.name}/{blurred.stem}", blurred, sharp))
        if missing:
            raise UserError(
                f"{listing}: {len(missing)} of {2 * len(pairs)} listed images are missing "
                f"(first: {', '.join(map(str, missing[:3]))}); finish copying the data set"
            )
        return pairs

    return read


def _input_target(root: Path, split: str) -> list[Pair]:
    base = root / split if (root / split).is_dir() else root
    blurred, sharp = (_named(_pictures(base / name)) for name in ("input", "target"))
    return _join(blurred, sharp, f"{base}/{{input,target}}")


def _levin(root: Path, split: str) -> list[Pair]:
    blurred = _named(_matches(root, _LEVIN), lambda path: path.stem.removesuffix("_img"))
    gt = _named(_pictures(root / "gt"))
    sharp = {name: gt[name.split("_")[0]] for name in blurred if name.split("_")[0] in gt}
    return _join(blurred, sharp, f"{root} and {root / 'gt'}")


def _side_by_side(root: Path, split: str) -> list[Pair]:
    sides: dict[str, list[Path]] = {"blur": [], "sharp": []}
    for path in _matches(root, _SIDE_BY_SIDE):
        sides[_SIDE_BY_SIDE.sub(r"\g<side>", path.name)].append(path)
    blurred, sharp = (
        _named(paths, lambda path: _SIDE_BY_SIDE.sub(r"\g<name>\g<number>", path.name)) for paths in sides.values()
    )
    return _join(blurred, sharp, str(root))


def _crops(root: Path, split: str) -> list[Pair]:
    part = root / split
    return [
        Pair(name, part / "blurred" / f"{name}.npy", part / "sharp" / f"{name}.npy") for name in verified_names(part)
    ]


def _named(paths: Iterable[Path], name: Callable[[Path], str] = lambda path: path.stem) -> dict[str, Path]:
    """Name → file.

    Raises:
        UserError: two files have one name, for example a.png and a.jpg.
    """
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(name(path), path)
        if other is not path:
            raise UserError(f"{path}: has the same name as {other}; keep one of the two")
    return named


def _lines(path: Path) -> list[str]:
    # Paths are bytes on Linux: what is no UTF-8 is kept, and the mark that Windows writes first is dropped.
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()


def _join(blurred: dict[str, Path], sharp: dict[str, Path], where: str) -> list[Pair]:
    unpaired = sorted(blurred.keys() ^ sharp.keys())
    if unpaired:
        raise UserError(
            f"{where}: found {len(blurred)} blurred and {len(sharp)} sharp images, {len(unpaired)} without a partner "
            f"(first: {', '.join(unpaired[:3])}); finish copying the data set"
        )
    return [Pair(name, path, sharp[name]) for name, path in blurred.items()]


def _split_folder(root: Path, split: str) -> Path:
    part = root / split
    if not part.is_dir():
        raise UserError(f"{part}: the folder does not exist; {_EXPECTED}")
    return part


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_picture(path)) if folder.is_dir() else []


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file()


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in _pictures(folder) if pattern.fullmatch(path.name)]


_LEVIN = re.compile(r"im\d+_kernel\d+_img\.png")
_SIDE_BY_SIDE = re.compile(r"(?P<name>.+)_(?P<side>blur|sharp)(?P<number>\d*)\.\w+")
_EXPECTED = "the supported layouts are listed at the top of fftformer/data.py and in the README"
_READERS: dict[str, Callable[[Path, str], list[Pair]]] = {
    "hide": _hide,
    "realblur_j": _realblur("J"),
    "realblur_r": _realblur("R"),
    "input_target": _input_target,
    "levin": _levin,
    "pairs": _side_by_side,
    "crops": _crops,
}
LAYOUTS = ("gopro", *_READERS)
