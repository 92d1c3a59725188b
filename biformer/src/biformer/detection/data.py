"""Images with annotated objects, in COCO's published layout.

    DIR/annotations/instances_train2017.json   DIR/annotations/instances_val2017.json
    DIR/train2017/*.jpg                        DIR/val2017/*.jpg

Own images go into the same layout. Category numbers may have gaps (COCO's run from 1 to 90 for 80
categories): networks count 0, 1, 2 and so on in their order, and results name the file's numbers again.

As in mmdetection, which the authors used: crowd regions are left out of training (COCO's metric ignores
what is found in them), and so are boxes narrower or lower than one pixel inside the image.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biformer.detection.coco import coco_mask, run_counts
from common.errors import UserError
from common.photographs.images import read_rgb

SPLITS = {"train": "train2017", "validation": "val2017"}
LAYOUT = "expected COCO's layout, annotations/instances_train2017.json with train2017/, and the same for val2017"
_LEAST_SIDE = 32  # mmdetection trains on no smaller images
_LARGEST_ID = 2**53  # pycocotools sorts ids in arrays
_LARGEST = 1e5  # pixels; from larger coordinates pycocotools would draw outlines that fill the memory


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one image, without crowd regions.

    Attributes:
        boxes: `(N, 4)` float32, left, top, right, bottom in pixels.
        labels: `(N,)` class numbers from 0.
        shapes: per object its polygons, each `(2 P,)` x, y, x, y ...; or run lengths as COCO writes them.
    """

    boxes: np.ndarray
    labels: np.ndarray
    shapes: list[Any]


@dataclass(frozen=True)
class CocoPictures:
    """One split, read one image at a time.

    Attributes:
        folder: of the images.
        annotation_file: that describes them.
        names: file names.
        ids: their numbers in the file.
        sizes: height and width in pixels, as the file says.
        objects: per image.
        category_ids: the file's number of every class, rising.
        classes: their names.
        crowds, degenerate: how many annotations were left out as crowd regions or as too small.
    """

    folder: Path
    annotation_file: Path
    names: list[str]
    ids: list[int]
    sizes: list[tuple[int, int]]
    objects: list[Objects]
    category_ids: list[int]
    classes: list[str]
    crowds: int
    degenerate: int

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """The image in RGB, turned as the annotations have it.

        Raises:
            UserError: it is missing, cannot be decoded, or has another size than annotated.
        """
        path, (height, width) = self.folder / self.names[index], self.sizes[index]
        # A camera's image may be stored on its side: the annotated size tells whether it was annotated upright.
        for upright in (False, True):
            picture = read_rgb(path, upright=upright)
            if picture.size == (width, height):
                return picture
        raise UserError(
            f"{path}: has {picture.width}x{picture.height} pixels, {self.annotation_file.name} says "
            f"{width}x{height}; copy the images that belong to the annotations"
        )

    def masks(self, index: int) -> np.ndarray:
        """The objects' masks, `(N, H, W)` uint8 of 0 and 1."""
        height, width = self.sizes[index]
        shapes = [run_lengths(shape, height, width) for shape in self.objects[index].shapes]
        return np.ascontiguousarray(coco_mask().decode(shapes).transpose(2, 0, 1))

    def subset(self, indices: Sequence[int]) -> CocoPictures:
        """The images at `indices`, with all classes."""
        return replace(
            self,
            names=[self.names[i] for i in indices],
            ids=[self.ids[i] for i in indices],
            sizes=[self.sizes[i] for i in indices],
            objects=[self.objects[i] for i in indices],
        )

    def for_training(self) -> CocoPictures:
        """The images that have an object and 32 pixels or more on each side.

        Raises:
            UserError: there is none.
        """
        kept = [i for i, size in enumerate(self.sizes) if len(self.objects[i].labels) and min(size) >= _LEAST_SIDE]
        if not kept:
            raise UserError(
                f"{self.annotation_file}: none of its {len(self)} images has an object to learn and "
                f"{_LEAST_SIDE} pixels or more on each side; annotate some"
            )
        return self.subset(kept)


def open_split(root: Path, split: str, *, masks: bool = False) -> CocoPictures:
    """One split of a data set in COCO's layout.

    Args:
        root: the data set's folder.
        split: "train" or "validation".
        masks: refuse objects without a shape.

    Raises:
        UserError: a file or folder is missing, or an annotation is wrong, naming it.
    """
    coco_mask()  # missing, it would be missed later, in a loading process
    folder, path = root / SPLITS[split], root / "annotations" / f"instances_{SPLITS[split]}.json"
    if not root.is_dir():
        raise UserError(f"{root}: the folder does not exist; put the data set there or correct --data-root")
    content = read_annotations(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images; {LAYOUT}")
    categories = {c["id"]: c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])}
    labels = {number: label for label, number in enumerate(categories)}
    by_picture: dict[int, list[tuple[list[float], int, Any]]] = {image["id"]: [] for image in content["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    crowds = degenerate = 0
    for annotation in content["annotations"]:
        where = f"{path}: annotation {_shown(annotation['id']) if 'id' in annotation else 'without an id'}"
        picture, box, label = _checked(annotation, where, labels, sizes)
        shape = shape_of(annotation.get("segmentation"), where, sizes[picture])
        if annotation.get("iscrowd"):
            crowds += 1
        elif box is None or (masks and shape == []):
            degenerate += 1
        elif masks and shape is None:
            raise UserError(f"{where}: has no segmentation, which Mask R-CNN needs; add it, or use --method retinanet")
        else:
            by_picture[picture].append((box, label, shape))
    names = [image["file_name"] for image in content["images"]]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"{path}: lists the image {twice} twice, so it would count twice; join its entries")
    there = {entry.name for entry in os.scandir(folder)}
    missing = [name for name in names if name not in there and not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images that {path.name} lists are missing "
            f"(first: {missing[0]}); finish copying the data set"
        )
    return CocoPictures(
        folder,
        path,
        names,
        list(by_picture),
        list(sizes.values()),
        [_objects(found) for found in by_picture.values()],
        list(categories),
        list(categories.values()),
        crowds,
        degenerate,
    )


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file.

    Raises:
        UserError: no such file, no JSON, or not what COCO writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation file; {LAYOUT}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); copy it again") from None
    wanted: dict[str, dict[str, type]] = {
        "images": {"id": int, "file_name": str, "height": int, "width": int},
        "annotations": {},
        "categories": {"id": int, "name": str},
    }
    for part, kinds in wanted.items():
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise UserError(f"{path}: has no list of {part}; expected COCO's images, annotations and categories")
        for entry in content[part]:
            if not isinstance(entry, dict):
                raise UserError(f"{path}: an entry of {part} is {_shown(entry)}; expected an object with names")
            for key, kind in kinds.items():
                if key not in entry:
                    raise UserError(f"{path}: an entry of {part} has no {key}; expected {', '.join(kinds)} in each")
                if type(entry[key]) is not kind or (kind is int and abs(entry[key]) > _LARGEST_ID):
                    raise UserError(
                        f"{path}: {part} hold the {key} {_shown(entry[key])}; expected "
                        f"{'a whole number' if kind is int else 'text'}"
                    )
        numbers = [entry["id"] for entry in content[part]] if kinds else []
        if len(set(numbers)) < len(numbers):
            raise UserError(f"{path}: two entries of {part} have the same id; number them again")
    for image in content["images"]:
        if min(image["height"], image["width"]) < 1:
            raise UserError(
                f"{path}: {image['file_name']} is {image['width']}x{image['height']} pixels; expected its real size"
            )
    if not content["categories"]:
        raise UserError(f"{path}: lists no categories; expected their id and name")
    return content


def check_categories(
    found: Sequence[str], found_ids: Sequence[int], expected: Sequence[str], expected_ids: Sequence[int], *, whose: str
) -> None:
    """Refuse images whose categories are not the ones expected.

    Args:
        whose: the file of the images and what is expected instead, "A, expected those of B".

    Raises:
        UserError: names what differs.
    """
    if list(found) == list(expected) and list(found_ids) == list(expected_ids):
        return
    pairs = [list(zip(*both, strict=True)) for both in ((found_ids, found), (expected_ids, expected))]
    only = [[f"{i} {name}" for i, name in a if (i, name) not in b] for a, b in (pairs, pairs[::-1])]
    raise UserError(
        f"{whose}: has other categories ({_few(only[0])} instead of {_few(only[1])}); "
        "use images annotated with the same ones"
    )


def run_lengths(shape: Any, height: int, width: int) -> Any:
    """An object's shape as COCO's compressed run lengths.

    Args:
        shape: polygons or run lengths, as `Objects` holds them.
        height, width: of the image.
    """
    if isinstance(shape, Mapping):
        return shape if isinstance(shape["counts"], (str, bytes)) else coco_mask().frPyObjects(shape, height, width)
    return coco_mask().merge(coco_mask().frPyObjects([polygon.tolist() for polygon in shape], height, width))


def _checked(
    annotation: Mapping[str, Any], where: str, labels: Mapping[int, int], sizes: Mapping[int, tuple[int, int]]
) -> tuple[int, list[float] | None, int]:
    """Image, box cut at its border (None if nothing is left) and label of an annotation."""
    box: Any = annotation.get("bbox")
    picture: Any = annotation.get("image_id")
    category: Any = annotation.get("category_id")
    for name, value in (("image_id", picture), ("category_id", category)):
        if type(value) is not int:
            raise UserError(f"{where}: has the {name} {_shown(value)}; expected a whole number, as the id it refers to")
    if picture not in sizes:
        raise UserError(
            f"{where}: belongs to image {_shown(picture)}, which the file does not list; correct its image_id"
        )
    if category not in labels:
        raise UserError(
            f"{where}: is of category {_shown(category)}, which the file does not list (it has "
            f"{_few([str(number) for number in labels])}); add the category"
        )
    if annotation.get("iscrowd") not in (None, 0, 1):
        raise UserError(f"{where}: has iscrowd {_shown(annotation['iscrowd'])}; expected 0 or 1")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))) or min(box[2:]) < 0:
        raise UserError(
            f"{where}: has the box {_shown(box)}, expected left, top, width and height in pixels; correct it"
        )
    (left, top, width, height), (down, across) = box, sizes[picture]
    inside = [max(left, 0.0), max(top, 0.0), min(left + width, across), min(top + height, down)]
    degenerate = min(width, height, inside[2] - inside[0], inside[3] - inside[1]) < 1
    return picture, None if degenerate else inside, labels[category]


def shape_of(segmentation: Any, where: str, size: tuple[int, int]) -> Any:
    """An annotation's shape: polygons as arrays, which loading processes share without copying, or run lengths.

    Args:
        segmentation: as the file has it.
        where: names the annotation in errors.
        size: height and width of the image.

    Returns:
        None without a shape, an empty list for polygons that enclose nothing.

    Raises:
        UserError: neither polygons nor run lengths of an image of this size.
    """
    if not segmentation:  # absent, null or an empty list
        return None
    if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        for polygon in segmentation:
            if len(polygon) % 2 or not all(map(_is_number, polygon)):
                raise UserError(f"{where}: has the polygon {_shown(polygon)}; expected x, y, x, y ... in pixels")
        # Fewer than three points enclose nothing.
        return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation if len(polygon) >= 6]
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= set(segmentation):
        raise UserError(f"{where}: has the segmentation {_shown(segmentation)}; expected polygons or run lengths")
    counts, expected = segmentation["counts"], list(size)
    try:
        runs = run_counts(counts) if isinstance(counts, str) else counts
        valid = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{where}: has the run lengths {_shown(counts)}; expected numbers or COCO's text")
    # pycocotools writes as many pixels as are counted, beyond the image too.
    if segmentation["size"] != expected or sum(runs) != size[0] * size[1]:
        raise UserError(
            f"{where}: its run lengths are of an image of {_shown(segmentation['size'])}; expected {expected}, "
            "height and width, all pixels counted"
        )
    return segmentation


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # which NaN is not


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _objects(found: Sequence[tuple[list[float], int, Any]]) -> Objects:
    boxes = np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in found], dtype=np.int64)
    return Objects(boxes, labels, [shape for _, _, shape in found])


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]) or "none"
