"""Predict the class of every pixel of an image, or of all images of a folder.

    python biformer/segmentation/predict.py --checkpoint runs/biformer_segmentation_demo/model \\
        --input photos --output segmented

For `photos/a/b.jpg` this writes `segmented/a/b_labels.png` and `segmented/a/b_overlay.png`. Labels have the size of the
upright image and the codes of the data set (1 for the first class, as in ADE20K's annotations); image viewers show them
in colours. The overlay has a legend; it is reduced for images with a side above 1600 pixels. The processes of
`accelerate launch` share the images; those that cannot be read are listed in OUTPUT/failed.csv.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from biformer.data import list_pictures
from biformer.segmentation.data import read_picture
from biformer.segmentation.inference import MULTI_SCALE, Protocol, predict_labels
from biformer.segmentation.model import load_segmenter
from biformer.segmentation.pictures import label_picture, overlay
from common import config
from common.config import Positive
from common.errors import UserError, command
from common.files import atomic_path
from common.photographs.folders import Share, refuse_overwriting
from common.photographs.images import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's exported model folder."""
    input: Path
    """An image, or a folder; all images in it and in its subfolders are segmented."""
    output: Path
    """Folder for labels and overlays."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """If outputs exist: refuse to start, skip images whose outputs exist, or replace them."""
    overlay: bool = True
    """Write the overlays."""
    multi_scale: bool = False
    """Average over six scales from 0.5 to 1.75 and their mirror images: better, and twenty times slower."""
    image_size: Positive[int] | None = None
    """Shorter side of the resized images in pixels; by default the model's."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one."""


@command
def main() -> None:
    """Segment all readable images; end with an error if some could not be read."""
    options = config.parse(PredictConfig, __doc__)
    jobs = list_jobs(options.input, options.output)
    failures = options.output / "failed.csv"
    outputs = [(source, path) for source, stem in jobs for path in outputs_of(stem, options)]
    refuse_overwriting(outputs, [failures] if options.input.is_dir() else [], options.existing)
    if options.existing == "skip":
        todo = [job for job in jobs if not all(path.exists() for path in outputs_of(job[1], options))]
    else:
        todo = jobs
    share = Share(todo, options.input, options.device)
    model = load_segmenter(options.checkpoint).float().to(share.device)
    scales = MULTI_SCALE if options.multi_scale else (1.0,)
    protocol = Protocol(options.image_size or model.image_size, model.size_divisor, scales, options.multi_scale)
    with share.progress("segmenting") as bar:
        for source, stem in share.mine:
            with share.reported(source):
                image = read_picture(source)
                labels = predict_labels(model, image.to(share.device), protocol).cpu().numpy()
                with atomic_path(labels_of(stem)) as temporary:
                    label_picture(labels, model.num_classes).save(temporary)
                if options.overlay:
                    photograph = Image.fromarray(image.permute(1, 2, 0).numpy())
                    with atomic_path(overlay_of(stem)) as temporary:
                        overlay(photograph, labels, model.class_names).save(temporary)
            bar.update()
    share.finish(failures, "segmented", of=len(jobs), see=options.output)


def list_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair every image with the path of its outputs, without `_labels.png`.

    If the names of two images differ only in their suffix, the outputs keep the suffix.

    Raises:
        UserError: there is no image, or the output is a file.
    """
    if output.is_file() or (output.suffix.lower() in SUFFIXES and not output.is_dir()):
        raise UserError(f"{output}: is the name of an image, expected a folder for labels and overlays")
    if source.is_file():
        return [(source, output / source.stem)]
    if source.resolve() == output.resolve():
        raise UserError(f"{output}: is the input folder itself; choose another --output")
    found = list_pictures(source, outside=output)
    stems = [output / path.relative_to(source).with_suffix("") for path in found]
    count = Counter(stems)
    return [
        (path, stem if count[stem] == 1 else stem.with_name(path.name)) for path, stem in zip(found, stems, strict=True)
    ]


def outputs_of(stem: Path, options: PredictConfig) -> list[Path]:
    """The files that are written for one image."""
    return [labels_of(stem), overlay_of(stem)] if options.overlay else [labels_of(stem)]


def labels_of(stem: Path) -> Path:
    """The file of the labels."""
    return stem.with_name(f"{stem.name}_labels.png")


def overlay_of(stem: Path) -> Path:
    """The file of the overlay."""
    return stem.with_name(f"{stem.name}_overlay.png")


if __name__ == "__main__":
    main()
