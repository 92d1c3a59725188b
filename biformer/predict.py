"""Predict the class of an image, or of all images of a folder, and write CSV.

    python biformer/predict.py --checkpoint runs/biformer_demo/model --input photos --output labels.csv
    python biformer/predict.py --checkpoint biformer_small.pth --input photo.jpg --output label.csv --routing r.png

The CSV has one line for each image: the file, then class and probability of the `--top` most probable classes. Class
names are stored in the model folder; released files have ImageNet's. `--routing` draws the regions to which a query
attends in each stage, for the first images. The processes of `accelerate launch` share the images. Unreadable images
are listed in a CSV file beside the output, `labels_failed.csv`. `--existing skip` continues after an interruption.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from timm.data import ImageNetInfo

from biformer.augmentation import check_image_size, evaluation_transform
from biformer.checkpoints import load_model
from biformer.data import list_pictures, reading, relative
from biformer.journal import Journal
from biformer.model import BiFormer
from biformer.pictures import routing_figure
from common import config
from common.config import BatchSize, BelowOne, Positive
from common.errors import UserError, command
from common.figures import save
from common.files import atomic_path, printable
from common.photographs.folders import Share, refuse_overwriting
from common.photographs.images import SUFFIXES, read_rgb


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    input: Path
    """An image, or a folder; all images in it and in its subfolders are classified."""
    output: Path
    """The CSV file."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """If an output exists: refuse to start, skip finished images, or replace it."""
    top: Positive[int] = 3
    """Number of classes in the CSV for each image."""
    image_size: Positive[int] | None = None
    """Side of the crop in pixels; by default that of the training."""
    routing: Path | None = None
    """PNG file for a figure of the regions to which --query attends, for the first --routing-pictures images."""
    routing_pictures: Positive[int] = 4
    """Number of images in this figure."""
    query: tuple[BelowOne[float], BelowOne[float]] = (0.45, 0.5)
    """Position of the query as shares of height and width, in [0, 1)."""
    ema: bool = False
    """Use the averaged weights of a training checkpoint that has raw and averaged weights."""
    batch_size: BatchSize[int] = 32
    """Number of images per forward pass."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one."""


@command
def main() -> None:
    """Classify every readable image; end with an error if some could not be read."""
    options = config.parse(PredictConfig, __doc__)
    if options.output.suffix.lower() in SUFFIXES:
        raise UserError(
            f"--output {printable(options.output)}: is the name of an image; expected a name like classes.csv"
        )
    files = list_pictures(options.input, outside=options.output)
    failures = options.output.with_name(f"{options.output.stem}_failed.csv")
    flags = {"top": options.top, "image_size": options.image_size, "ema": options.ema}
    journal = Journal(options.output, options.checkpoint, flags, options.existing)
    wanted = [options.output, *([options.routing] if options.routing else [])]
    refuse_overwriting([], [*wanted, failures, *journal.files], options.existing, inputs=files)
    if options.existing == "skip" and all(path.exists() for path in wanted) and not journal.files:
        print(f"{printable(options.output)}: exists already, nothing to do")
        return
    names = [relative(file, options.input) for file in files]
    todo = [(file, name) for file, name in zip(files, names, strict=True) if name not in journal.places]
    share = Share(todo, options.input, options.device)
    model = load_model(options.checkpoint, ema=options.ema).float().to(share.device)
    size = options.image_size or model.image_size
    check_image_size(size, model)
    transform = evaluation_transform(size, model.crop_pct)
    classes = class_names(model)
    top = min(options.top, len(classes))
    with share.progress("classifying") as bar:
        for start in range(0, len(share.mine), options.batch_size):
            batch = []
            for file, name in share.mine[start : start + options.batch_size]:
                with share.reported(file), reading(file):
                    batch.append((name, transform(read_rgb(file))))
                bar.update()
            if not batch:
                continue
            with torch.inference_mode():
                images = torch.stack([image for _, image in batch]).to(share.device)
                probabilities = model(images).float().softmax(dim=1).cpu()
            for (name, _), row in zip(batch, probabilities, strict=True):
                best = row.topk(top)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                cells = [cell for i, value in pairs for cell in (classes[i], f"{value:.4f}")]
                journal.add(name, cells, share.rank)
    share.wait()  # until the journals of all processes are complete
    if share.is_main and journal.files:
        write_csv(options.output, journal.results(names), top)
        if options.routing is not None:
            shown = [name for name, _ in islice(journal.results(names), options.routing_pictures)]
            pictures = [transform(read_rgb(files[names.index(name)])) for name in shown]
            images = torch.stack(pictures).to(share.device)
            save(routing_figure(model, images, [options.query] * len(shown), shown), options.routing)
    share.finish(failures, "classified", of=len(files), see=options.output)
    if share.is_main:
        journal.remove()


def class_names(model: BiFormer) -> list[str]:
    """Readable names of the classes: the model's, ImageNet's for 1,000 classes without names, or numbers."""
    info = ImageNetInfo("imagenet-1k")
    if model.class_names is None and model.num_classes == 1000:
        return [info.index_to_description(i) for i in range(1000)]
    if model.class_names is not None and model.class_names == info.label_names():
        return [info.index_to_description(i) for i in range(1000)]
    return model.class_names or [f"class {i}" for i in range(model.num_classes)]


def write_csv(path: Path, results: Iterable[tuple[str, list[str]]], top: int) -> None:
    """Write file, class, probability, class 2, probability 2 and so on."""
    further = [f"{name} {i}" for i in range(2, top + 1) for name in ("class", "probability")]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "probability", *further])
        table.writerows([name, *cells] for name, cells in results)


if __name__ == "__main__":
    main()
