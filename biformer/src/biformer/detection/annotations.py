"""Reading and checking COCO's annotation files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biformer.detection.coco import coco_mask, run_counts
from common.errors import UserError

LAYOUT = "expected COCO's layout, annotations/instances_train2017.json with train2017/, and the same for val2017"
_LARGEST_ID = 2**53  # pycocotools stores ids in arrays of numbers
_LARGEST = 1e5  # pixels; for larger coordinates pycocotools needs more memory than there is


def read_annotations(path: Path) -> dict[str, Any]:
    """Read an annotation file.

    Returns:
        the content, with at least the keys images, annotations and categories.

    Raises:
        UserError: the file does not exist, is not JSON, or does not have COCO's form.
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
                raise UserError(f"{path}: an entry of {part} is {as_text(entry)}; expected an object with names")
            for key, kind in kinds.items():
                if key not in entry:
                    raise UserError(f"{path}: an entry of {part} has no {key}; expected {', '.join(kinds)} in each")
                if type(entry[key]) is not kind or (kind is int and abs(entry[key]) > _LARGEST_ID):
                    raise UserError(
                        f"{path}: {part} hold the {key} {as_text(entry[key])}; expected "
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


def check_annotation(
    annotation: Mapping[str, Any], where: str, labels: Mapping[int, int], sizes: Mapping[int, tuple[int, int]]
) -> tuple[int, list[float] | None, int]:
    """Check the image, the box and the category of an annotation.

    Args:
        annotation: as in the file.
        where: names the annotation in errors.
        labels: class number of every category number.
        sizes: height and width of every image number, in pixels.

    Returns:
        the image's number, the box (left, top, right, bottom in pixels) cut at the image's border, or None if it is
        narrower or lower than one pixel, and the class number.

    Raises:
        UserError: a value is missing or wrong.
    """
    box: Any = annotation.get("bbox")
    image: Any = annotation.get("image_id")
    category: Any = annotation.get("category_id")
    for name, value in (("image_id", image), ("category_id", category)):
        if type(value) is not int:
            raise UserError(f"{where}: has the {name} {as_text(value)}; expected a whole number, the id of an entry")
    if image not in sizes:
        raise UserError(
            f"{where}: belongs to image {as_text(image)}, which the file does not list; correct its image_id"
        )
    if category not in labels:
        raise UserError(
            f"{where}: is of category {as_text(category)}, which the file does not list (it has "
            f"{_few([str(number) for number in labels])}); add the category"
        )
    if annotation.get("iscrowd") not in (None, 0, 1):
        raise UserError(f"{where}: has iscrowd {as_text(annotation['iscrowd'])}; expected 0 or 1")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))) or min(box[2:]) < 0:
        raise UserError(
            f"{where}: has the box {as_text(box)}, expected left, top, width and height in pixels; correct it"
        )
    (left, top, width, height), (down, across) = box, sizes[image]
    inside = [max(left, 0.0), max(top, 0.0), min(left + width, across), min(top + height, down)]
    degenerate = min(width, height, inside[2] - inside[0], inside[3] - inside[1]) < 1
    return image, None if degenerate else inside, labels[category]


def shape_of(segmentation: Any, where: str, size: tuple[int, int]) -> Any:
    """Check the shape of an annotation.

    Args:
        segmentation: as in the file.
        where: names the annotation in errors.
        size: height and width of the image, in pixels.

    Returns:
        polygons as arrays (which loading processes share without copying), or run lengths as in the file; None without
        a shape, and an empty list if no polygon has three points.

    Raises:
        UserError: the shape is neither polygons nor run lengths of an image of this size.
    """
    if not segmentation:  # absent, null or an empty list
        return None
    if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        for polygon in segmentation:
            if len(polygon) % 2 or not all(map(_is_number, polygon)):
                raise UserError(f"{where}: has the polygon {as_text(polygon)}; expected x, y, x, y ... in pixels")
        # A polygon of fewer than three points has no area.
        return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation if len(polygon) >= 6]
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= set(segmentation):
        raise UserError(f"{where}: has the segmentation {as_text(segmentation)}; expected polygons or run lengths")
    counts, expected = segmentation["counts"], list(size)
    try:
        runs = run_counts(counts) if isinstance(counts, str) else counts
        valid = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{where}: has the run lengths {as_text(counts)}; expected numbers or COCO's text")
    # pycocotools would write as many pixels as are counted, even beyond the image's memory.
    if segmentation["size"] != expected or sum(runs) != size[0] * size[1]:
        raise UserError(
            f"{where}: its run lengths are of an image of {as_text(segmentation['size'])}; expected {expected}, "
            "height and width, all pixels counted"
        )
    return segmentation


def run_lengths(shape: Any, height: int, width: int) -> Any:
    """Convert the shape of an object to COCO's compressed run lengths.

    Args:
        shape: polygons or run lengths, as in `Objects.shapes`.
        height, width: of the image, in pixels.
    """
    if isinstance(shape, Mapping):
        return shape if isinstance(shape["counts"], (str, bytes)) else coco_mask().frPyObjects(shape, height, width)
    return coco_mask().merge(coco_mask().frPyObjects([polygon.tolist() for polygon in shape], height, width))


def check_categories(
    found: Sequence[str], found_ids: Sequence[int], expected: Sequence[str], expected_ids: Sequence[int], *, whose: str
) -> None:
    """Refuse a data set that has other categories than expected.

    Args:
        found, found_ids: names and numbers of the categories of the data set.
        expected, expected_ids: names and numbers of the expected categories.
        whose: names the data set in the error.

    Raises:
        UserError: the categories differ; the message names the differences.
    """
    if list(found) == list(expected) and list(found_ids) == list(expected_ids):
        return
    pairs = [list(zip(*both, strict=True)) for both in ((found_ids, found), (expected_ids, expected))]
    only = [[f"{i} {name}" for i, name in a if (i, name) not in b] for a, b in (pairs, pairs[::-1])]
    raise UserError(
        f"{whose}: has other categories ({_few(only[0])} instead of {_few(only[1])}); "
        "use images annotated with the same ones"
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # false for NaN


def as_text(value: Any) -> str:
    """A value as JSON, shortened to 60 characters, for error messages."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]) or "none"
