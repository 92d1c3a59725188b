"""Detect the objects in an image, or in all images of a folder; write one JSON file and draw each image.

    python biformer/detection/predict.py --checkpoint runs/biformer_detection_demo/model --input photos --output found

OUTPUT/detections.json has COCO's layout (images, annotations with a score, categories), so that programs for COCO can
read it. OUTPUT/pictures/ has the subfolders of the input; boxes, masks, names and scores are drawn on each image, as
PNG. Photographs are turned upright by their EXIF orientation; boxes are in pixels of the upright image. The processes
of `accelerate launch` share the images. Unreadable images are listed in OUTPUT/failed.csv. `--existing skip` continues
after an interruption.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from PIL import Image

from biformer.data import list_pictures, reading, relative
from biformer.detection.coco import coco_mask
from biformer.detection.model import Detector, check_size, load_detector
from biformer.detection.pictures import SCORE, draw_found
from biformer.detection.scoring import results_of
from biformer.detection.transforms import to_tensor
from biformer.journal import Journal
from common import config
from common.config import Fraction
from common.errors import command
from common.files import atomic_path
from common.photographs.folders import Share, refuse_overwriting
from common.photographs.images import read_rgb


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's exported model folder."""
    input: Path
    """An image, or a folder; objects are detected in all images in it and in its subfolders."""
    output: Path
    """Folder for detections.json and pictures/."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """If an output exists: refuse to start, skip finished images, or replace it."""
    score: Fraction[float] = SCORE
    """Lowest score in [0, 1] of the objects that are written and drawn."""
    draw: bool = True
    """Write the drawn images."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one."""


@command
def main() -> None:
    """Detect objects in all readable images; end with an error if some could not be read."""
    options = config.parse(PredictConfig, __doc__)
    coco_mask()  # if pycocotools is not installed, the error comes now and not after the first image
    files = list_pictures(options.input, outside=options.output)
    names = [relative(file, options.input) for file in files]
    found, failures = options.output / "detections.json", options.output / "failed.csv"
    drawn = [options.output / "pictures" / target for target in drawn_names(names)]
    journal = Journal(found, options.checkpoint, {"score": options.score, "draw": options.draw}, options.existing)
    refuse_overwriting(
        list(zip(files, drawn, strict=True)) if options.draw else [],
        [found, failures, *journal.files],
        options.existing,
    )
    if options.existing == "skip" and found.exists() and not journal.files:
        print(f"{found}: exists already, nothing to do")
        return
    todo = [job for job in zip(files, names, drawn, strict=True) if job[1] not in journal.places]
    share = Share(todo, options.input, options.device)
    detector = load_detector(options.checkpoint).to(share.device)
    with share.progress("detecting") as bar:
        for file, name, target in share.mine:
            with share.reported(file):
                image = read(file, detector)
                journal.add(name, detect(image, detector, options, share.device, target), share.rank)
            bar.update()
    share.wait()  # until the journals of all processes are complete
    if share.is_main and journal.files:
        write_coco(found, journal.results(names), detector)
    share.finish(failures, "searched", of=len(files), see=found)
    if share.is_main:
        journal.remove()


def detect(
    image: Image.Image, detector: Detector, options: PredictConfig, device: torch.device, target: Path
) -> dict[str, Any]:
    """Detect the objects in an image, and draw them if `options.draw`.

    Returns:
        width and height of the image, and COCO's annotations without their numbers.
    """
    with torch.inference_mode():
        (found,) = detector([to_tensor(image).to(device)])
    keep = found["scores"] >= options.score
    found = {name: value[keep] for name, value in found.items()}
    annotations = results_of(found, detector, 0, image.height, image.width)
    for annotation in annotations:
        width, height = annotation["bbox"][2:]
        area = float(coco_mask().area(annotation["segmentation"])) if "segmentation" in annotation else width * height
        annotation |= {"area": area, "iscrowd": 0}
    if options.draw:
        drawing = draw_found(image, found, detector.class_names, score=options.score)
        with atomic_path(target) as temporary:
            drawing.save(temporary)
    return {"width": image.width, "height": image.height, "annotations": annotations}


def read(file: Path, detector: Detector) -> Image.Image:
    """Read an image in RGB and turn it upright.

    Raises:
        UnreadablePicture: the image cannot be decoded, or is too narrow for the detector.
    """
    with reading(file):
        image = read_rgb(file)
        check_size(image.size, detector, file)
    return image


def drawn_names(names: list[str]) -> list[str]:
    """PNG names for drawn images; a.jpg and a.png in the same folder become a.jpg.png and a.png.png."""
    short = [PurePosixPath(name).with_suffix(".png").as_posix() for name in names]
    count = Counter(short)
    return [f"{name}.png" if count[target] > 1 else target for name, target in zip(names, short, strict=True)]


def write_coco(path: Path, results: Iterable[tuple[str, Any]], detector: Detector) -> None:
    """Write the detections in the layout of COCO's annotation files, with one object per line."""
    sizes: list[tuple[str, int, int]] = []
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for number, (name, result) in enumerate(results, start=1):
            sizes.append((name, result["width"], result["height"]))
            for annotation in result["annotations"]:
                file.write(",\n" if count else "\n")
                count += 1
                json.dump({"id": count, **annotation, "image_id": number}, file)
        images = [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, width, height) in enumerate(sizes, start=1)
        ]
        categories = zip(detector.category_ids, detector.class_names, strict=True)
        named = [{"id": number, "name": name} for number, name in categories]
        file.write(f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(named)}}}\n')
    print(f"{count} objects in {len(sizes)} images")


if __name__ == "__main__":
    main()
