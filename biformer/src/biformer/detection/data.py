"""Images with annotated objects, in COCO's published layout.

    DIR/annotations/instances_train2017.json   DIR/annotations/instances_val2017.json
    DIR/train2017/*.jpg                        DIR/val2017/*.jpg

Your own images can be used in the same layout. Category numbers may have gaps (COCO's 80 categories have numbers from
1 to 90). Networks number the classes 0, 1, 2 and so on in the same order; results have the numbers of the file again.

As in mmdetection, which the authors used, two kinds of annotations are left out of training: crowd regions (COCO's
metric ignores detections inside them), and boxes that are narrower or lower than one pixel inside the image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biformer.detection.annotations import LAYOUT, as_text, check_annotation, read_annotations, run_lengths, shape_of
from biformer.detection.coco import coco_mask
from common.errors import UserError
from common.photographs.images import read_rgb

SPLITS = {"train": "train2017", "validation": "val2017"}
_LEAST_SIDE = 32  # mmdetection trains on no smaller images


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one image, without crowd regions.

    Attributes:
        boxes: `(N, 4)` float32, left, top, right, bottom in pixels.
        labels: `(N,)` class numbers from 0.
        shapes: for each object its polygons, each `(2 P,)` x, y, x, y ...; or run lengths as COCO writes them.
    """

    boxes: np.ndarray
    labels: np.ndarray
    shapes: list[Any]


@dataclass(frozen=True)
class CocoPictures:
    """One split, read one image at a time.

    Attributes:
        folder: of the images.
        annotation_file: the file with the annotations.
        names: file names of the images.
        ids: numbers of the images in the annotation file.
        sizes: height and width of the images in pixels, from the annotation file.
        objects: the objects of each image.
        category_ids: number of every class in the annotation file, ascending.
        classes: names of the classes.
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
        """The image in RGB, in the orientation in which it was annotated.

        Raises:
            UserError: the image is missing, cannot be decoded, or does not have the annotated size.
        """
        path, (height, width) = self.folder / self.names[index], self.sizes[index]
        # If EXIF says that the image must be turned, the annotated size shows whether it was annotated upright.
        for upright in (False, True):
            image = read_rgb(path, upright=upright)
            if image.size == (width, height):
                return image
        raise UserError(
            f"{path}: has {image.width}x{image.height} pixels, {self.annotation_file.name} says "
            f"{width}x{height}; copy the images that belong to the annotations"
        )

    def masks(self, index: int) -> np.ndarray:
        """The masks of the objects, `(N, H, W)` uint8, 0 or 1."""
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
        """The images that have an object and at least 32 pixels on each side.

        Raises:
            UserError: there is no such image.
        """
        kept = [i for i, size in enumerate(self.sizes) if len(self.objects[i].labels) and min(size) >= _LEAST_SIDE]
        if not kept:
            raise UserError(
                f"{self.annotation_file}: none of its {len(self)} images has an object to learn and "
                f"{_LEAST_SIDE} pixels or more on each side; add such images"
            )
        return self.subset(kept)


def open_split(root: Path, split: str, *, masks: bool = False) -> CocoPictures:
    """One split of a data set in COCO's layout.

    Args:
        root: the data set's folder.
        split: "train" or "validation".
        masks: refuse objects without a shape.

    Raises:
        UserError: a file or folder is missing, or an annotation is wrong; the message names it.
    """
    coco_mask()  # if pycocotools is not installed, the error comes now and not in a loading process
    folder, path = root / SPLITS[split], root / "annotations" / f"instances_{SPLITS[split]}.json"
    if not root.is_dir():
        raise UserError(f"{root}: the folder does not exist; put the data set there or correct --data-root")
    content = read_annotations(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images; {LAYOUT}")
    categories = {c["id"]: c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])}
    labels = {number: label for label, number in enumerate(categories)}
    by_image: dict[int, list[tuple[list[float], int, Any]]] = {image["id"]: [] for image in content["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    crowds = degenerate = 0
    for annotation in content["annotations"]:
        where = f"{path}: annotation {as_text(annotation['id']) if 'id' in annotation else 'without an id'}"
        number, box, label = check_annotation(annotation, where, labels, sizes)
        shape = shape_of(annotation.get("segmentation"), where, sizes[number])
        if annotation.get("iscrowd"):
            crowds += 1
        elif box is None or (masks and shape == []):
            degenerate += 1
        elif masks and shape is None:
            raise UserError(
                f"{where}: has no segmentation, which Mask R-CNN needs; add it, or train with --method retinanet"
            )
        else:
            by_image[number].append((box, label, shape))
    names = [image["file_name"] for image in content["images"]]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"{path}: lists the image {twice} twice, so it would count twice; keep one of its entries")
    there = {entry.name for entry in os.scandir(folder)}
    missing = [name for name in names if name not in there and not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images that {path.name} lists are missing "
            f"(first: {missing[0]}); copy the rest of the data set"
        )
    return CocoPictures(
        folder,
        path,
        names,
        list(by_image),
        list(sizes.values()),
        [_objects(found) for found in by_image.values()],
        list(categories),
        list(categories.values()),
        crowds,
        degenerate,
    )


def _objects(found: Sequence[tuple[list[float], int, Any]]) -> Objects:
    boxes = np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in found], dtype=np.int64)
    return Objects(boxes, labels, [shape for _, _, shape in found])
