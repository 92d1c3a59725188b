"""Find the objects of a picture or of a folder of pictures: a JSON of all, and each picture drawn.

    python biformer/detection/predict.py --checkpoint runs/biformer_detection_demo/model --input photos --output found

OUTPUT/detections.json has COCO's layout (images, annotations with a score, categories), so that whatever
reads COCO reads it. OUTPUT/pictures/ holds the input's tree as PNG, with boxes, masks, names and scores.
Photographs are turned as their camera recorded it; boxes count in pixels of the turned picture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from PIL import Image
from tqdm.auto import tqdm

from biformer.data import UnreadablePicture, list_pictures, reading, relative
from biformer.detection.coco import coco_mask
from biformer.detection.model import Detector, check_size, load_detector
from biformer.detection.pictures import SCORE, draw_found
from biformer.detection.scoring import results_of
from biformer.detection.transforms import to_tensor
from common import config
from common.config import Fraction
from common.environment import choose_device
from common.errors import UserError, command
from common.files import atomic_path, write_json
from common.images import read_rgb


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's exported model folder."""
    input: Path
    """A picture, or a folder whose pictures are taken at any depth."""
    output: Path
    """Folder for detections.json and pictures/."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do where an output exists: refuse to start, skip everything (it is finished), or replace it."""
    score: Fraction[float] = SCORE
    """Least score of what is written and drawn, in [0, 1]."""
    draw: bool = True
    """Write the drawn pictures too."""
    strict: bool = False
    """Refuse pictures that cannot be read, instead of leaving them out and counting them."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""


@command
def main() -> None:
    """Detect in everything that can be read; say how much could not."""
    options = config.parse(PredictConfig, __doc__)
    device = choose_device(options.device)
    files = list_pictures(options.input, outside=options.output)
    targets = drawn_names([relative(file, options.input) for file in files])
    if check(options, targets):
        print(f"{options.output}: holds the outputs of all pictures already")
        return
    detector = load_detector(options.checkpoint).to(device)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for file, target in zip(tqdm(files, unit="picture", desc="detecting"), targets, strict=True):
        try:
            picture = read(file, detector)
        except UnreadablePicture as error:
            if options.strict:
                raise UserError(f"{error}; remove it, or leave out --strict to skip it") from None
            unreadable.append(str(error))
            tqdm.write(f"error: {error}")
            continue
        with torch.inference_mode():
            (found,) = detector([to_tensor(picture).to(device)])
        keep = found["scores"] >= options.score
        found = {name: value[keep] for name, value in found.items()}
        number = len(images) + 1
        name = relative(file, options.input)
        images.append({"id": number, "file_name": name, "width": picture.width, "height": picture.height})
        annotations += results_of(found, detector, number, picture.height, picture.width)
        if options.draw:
            drawn = draw_found(picture, found, detector.class_names, score=options.score)
            with atomic_path(options.output / "pictures" / target) as temporary:
                drawn.save(temporary)
    if not images:
        raise UserError(f"{options.input}: none of {len(files)} pictures could be read, the first: {unreadable[0]}")
    write_json(options.output / "detections.json", coco_layout(images, annotations, detector))
    left_out = f", {len(unreadable)} could not be read and are left out" if unreadable else ""
    print(
        f"{len(annotations)} objects found in {len(images)} of {len(files)} pictures{left_out}; "
        f"see {options.output / 'detections.json'}"
    )


def check(options: PredictConfig, targets: list[str]) -> bool:
    """Refuse flags that cannot be met, before anything is loaded; whether everything is there and may stay."""
    coco_mask()  # missing, it would be missed after the first picture
    wanted = [options.output / "detections.json"]
    wanted += [options.output / "pictures" / target for target in targets] if options.draw else []
    there = [str(path) for path in wanted if path.exists()]
    if options.existing == "skip" and wanted[0].exists():  # it is written last
        return True
    if there and options.existing == "refuse":
        more = f" and {len(there) - 2} more" if len(there) > 2 else ""
        raise UserError(
            f"{', '.join(there[:2])}{more}: exists already; add --existing skip or --existing replace, "
            "or choose another name"
        )
    if not 0 <= options.score <= 1:
        raise UserError(f"--score {options.score}: expected a number in [0, 1]")
    return False


def read(file: Path, detector: Detector) -> Image.Image:
    """A picture in RGB, upright.

    Raises:
        UnreadablePicture: it cannot be decoded, or is too narrow for the detector.
    """
    with reading(file):
        picture = read_rgb(file)
        check_size(picture.size, detector, file)
    return picture


def drawn_names(names: list[str]) -> list[str]:
    """PNG names for drawn pictures; a.jpg and a.png of one folder become a.jpg.png and a.png.png."""
    short = [PurePosixPath(name).with_suffix(".png").as_posix() for name in names]
    often = Counter(short)
    return [f"{name}.png" if often[target] > 1 else target for name, target in zip(names, short, strict=True)]


def coco_layout(images: list[dict[str, Any]], annotations: list[dict[str, Any]], detector: Detector) -> dict[str, Any]:
    """What was found, as COCO's annotation files are laid out."""
    for number, annotation in enumerate(annotations, start=1):
        width, height = annotation["bbox"][2:]
        area = float(coco_mask().area(annotation["segmentation"])) if "segmentation" in annotation else width * height
        annotation |= {"id": number, "area": area, "iscrowd": 0}
    categories = zip(detector.category_ids, detector.class_names, strict=True)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


if __name__ == "__main__":
    main()
