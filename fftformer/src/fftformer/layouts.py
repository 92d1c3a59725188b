"""The folder layouts in which data sets of blurred and sharp images are published.

| layout | files under the root |
|---|---|
| `gopro` | `train|test/<sequence>/{blur,blur_gamma,sharp}/NNNNNN.png` |
| `hide` | `train|test/`, at any depth, for example `test/test-close-ups/*.png`; all sharp images in `GT/`, by name |
| `realblur_j`, `realblur_r` | `RealBlur_J_train_list.txt` and so on: one "sharp blurred" pair of paths per line |
| `input_target` | `train|test/{input,target}/NAME.png`, or `{input,target}/` without splits |
| `levin` | `im1_kernel1_img.png`, sharp `gt/im1.png`; no splits |
| `pairs` | `NAME_blur1.png` beside `NAME_sharp1.png`, as GoPro's authors publish examples; no splits |
| `crops` | written by `prepare.py`: `train|test/{blurred,sharp}/NAME.npy`, read by memory mapping |

Hidden files and folders are ignored; links are followed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from common.errors import UserError
from common.photographs.images import SUFFIXES, list_images
from fftformer.crops import MANIFEST, verified_names
from fftformer.data import Pair
from fftformer.images import FORMATS, picture_size


def find_pairs(
    root: str | Path, split: str = "test", layout: str = "auto", *, gopro_blur: str = "blur", check_sizes: bool = True
) -> list[Pair]:
    """List the pairs of a data set, sorted by name.

    Args:
        root: the data set's folder.
        split: "train" or "test"; a layout without splits gives all its pairs for both.
        layout: one of `LAYOUTS`, or "auto" to recognise it.
        gopro_blur: GoPro's blurred folder: "blur" (averaged as recorded) or "blur_gamma" (averaged in linear light).
        check_sizes: read the header of every image, so that truncated PNGs and wrong pairs are found before the
            first step.

    Raises:
        UserError: the folder is missing, empty or half copied, the images of a pair differ in size, or two pairs
            have the same name.
    """
    root = Path(root)
    layout = find_layout(root, split) if layout == "auto" else layout
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout} does not exist; choose auto or one of {', '.join(LAYOUTS)}")
    pairs = _gopro(root, split, gopro_blur) if layout == "gopro" else _READERS[layout](root, split)
    if not pairs:
        raise UserError(f"{root}: found no images for the split {split} in the layout {layout}; {_EXPECTED}")
    name, count = Counter(pair.name for pair in pairs).most_common(1)[0]
    if count > 1:
        raise UserError(f"{root}: found {count} pairs with the name {name}, expected one; remove or rename the others")
    for pair in pairs if check_sizes and layout != "crops" else ():
        blurred, sharp = picture_size(pair.blurred), picture_size(pair.sharp)
        if blurred != sharp:
            raise UserError(
                f"{pair.blurred}: found {blurred[1]}x{blurred[0]} pixels, expected {sharp[1]}x{sharp[0]} "
                f"as in {pair.sharp}; copy the pair again"
            )
    return sorted(pairs, key=lambda pair: pair.name)


def find_layout(root: str | Path, split: str = "test") -> str:
    """Recognise the layout of a data set by its file and folder names.

    Raises:
        UserError: the folder does not exist, or has the names of no layout or of several.
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
        raise UserError(f"{root}: looks like the layouts {' and '.join(found)}; choose one with --layout")
    inside = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())[:6]
    raise UserError(f"{root}: no split {split} in a known layout, found {', '.join(inside) or 'nothing'}; {_EXPECTED}")


def _gopro(root: Path, split: str, blur: str) -> list[Pair]:
    pairs = []
    for sequence in _folders(_split_folder(root, split)):
        blurred, sharp = (
            _named(_images_in(sequence / side), lambda path: f"{path.parents[1].name}/{path.stem}")
            for side in (blur, "sharp")
        )
        pairs += _join(blurred, sharp, f"{sequence}/{{{blur},sharp}}")
    return pairs


def _hide(root: Path, split: str) -> list[Pair]:
    # The folder GT has the sharp images of both splits.
    part = _split_folder(root, split)
    sharp = _named(_images_in(root / "GT"))
    blurred = _named(_readable(list_images(part)), lambda path: path.relative_to(part).with_suffix("").as_posix())
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
                f"(first: {', '.join(map(str, missing[:3]))}); copy the rest of the data set"
            )
        return pairs

    return read


def _input_target(root: Path, split: str) -> list[Pair]:
    base = root / split if (root / split).is_dir() else root
    blurred, sharp = (_named(_images_in(base / name)) for name in ("input", "target"))
    return _join(blurred, sharp, f"{base}/{{input,target}}")


def _levin(root: Path, split: str) -> list[Pair]:
    blurred = _named(_matches(root, _LEVIN), lambda path: path.stem.removesuffix("_img"))
    gt = _named(_images_in(root / "gt"))
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
    """Files by name.

    Raises:
        UserError: two files have the same name, for example a.png and a.jpg.
    """
    named: dict[str, Path] = {}
    for path in paths:
        other = named.setdefault(name(path), path)
        if other is not path:
            raise UserError(f"{path}: has the same name as {other}; keep one of the two")
    return named


def _lines(path: Path) -> list[str]:
    # On Linux a path may have bytes that are not valid UTF-8; they are kept. Windows' byte order mark is dropped.
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()


def _join(blurred: dict[str, Path], sharp: dict[str, Path], where: str) -> list[Pair]:
    unpaired = sorted(blurred.keys() ^ sharp.keys())
    if unpaired:
        raise UserError(
            f"{where}: found {len(blurred)} blurred and {len(sharp)} sharp images, {len(unpaired)} of them unpaired "
            f"(first: {', '.join(unpaired[:3])}); copy the rest of the data set"
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


def _images_in(folder: Path) -> list[Path]:
    return _readable(_files(folder, SUFFIXES))


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in _files(folder, FORMATS) if pattern.fullmatch(path.name)]


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in suffixes and path.is_file())


def _readable(paths: list[Path]) -> list[Path]:
    """Return the paths as they are.

    Raises:
        UserError: one of them has a format that the project does not read; its pair would be left out.
    """
    if others := [path for path in paths if path.suffix.lower() not in FORMATS]:
        raise UserError(
            f"{others[0]}: found {len(others)} images of a format that is not read here, expected "
            f"{', '.join(FORMATS)}; convert them to PNG"
        )
    return paths


_LEVIN = re.compile(r"im\d+_kernel\d+_img\.png")
_SIDE_BY_SIDE = re.compile(r"(?P<name>.+)_(?P<side>blur|sharp)(?P<number>\d*)\.\w+")
_EXPECTED = "the supported layouts are listed at the top of fftformer/layouts.py and in the README"
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
