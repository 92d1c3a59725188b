"""Score a network on a validation split and print the published scores beside the measured ones.

    python biformer/evaluate.py --checkpoint runs/biformer_demo/model                    the demo's test crops
    python biformer/evaluate.py --checkpoint biformer_small.pth --data-root IMAGENET     the authors' released file
    accelerate launch --num_processes 8 biformer/evaluate.py ...                         several GPUs share the images

Prints and writes top-1 and top-5. Images are cropped as published: the shorter side is resized to size / 0.875 by
bicubic interpolation, then the centre is cropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from biformer import scoring
from biformer.augmentation import check_image_size, evaluation_transform
from biformer.checkpoints import load_model
from biformer.data import Pictures, check_classes
from biformer.evaluation import EvaluationFlags
from biformer.layouts import open_split
from biformer.model import BiFormer
from biformer.photographs import demo_pictures
from biformer.variants import name_of
from common import config, launch
from common.config import BatchSize, Positive
from common.errors import UserError, command
from common.files import atomic_path
from common.networks.weights import beside, locate
from common.results import measured, table, write_rows


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluationFlags):
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    data_root: Path | None = None
    """Folder of the data set, or only its validation folder; by default the demo's test crops are scored."""
    dataset: str = ""
    """A name of timm's dataset factory; empty for class folders and zips."""
    split: Literal["validation", "train"] = "validation"
    """Split to score."""
    split_file: Path | None = None
    """JSON file with the names of the split's images; runs with --holdout or --split-file write OUTPUT/split.json."""
    image_size: Positive[int] | None = None
    """Side of the crop in pixels; by default that of the training."""
    crop_pct: Positive[float] | None = None
    """Share of the resized image's side that is kept; by default the model's, 0.875 for released files."""
    ema: bool = False
    """Use the averaged weights of a training checkpoint that has raw and averaged weights."""
    strict: bool = False
    """Refuse images that cannot be read, instead of leaving them out and counting them."""
    batch_size: BatchSize[int] = 64
    """Number of images per process and forward pass."""
    upright: bool | None = None
    """Turn images by their EXIF orientation; by default as in training, and not for the authors' weights."""
    save_pictures: int = 0
    """Copy this number of scored images, evenly spread, to class folders in the output folder, as PNG."""
    output: Path | None = None
    """Folder for results.json; by default evaluation_<data set> beside the checkpoint."""


@command
def main() -> None:
    """Load the network, score the images, print and write the scores."""
    options = config.parse(EvaluateConfig, __doc__)
    options = replace(options, checkpoint=locate(options.checkpoint))
    accelerator, device = launch.on_device(options.device, mixed_precision=options.mixed_precision)
    model = load_model(options.checkpoint, ema=options.ema).float().to(device)
    pictures = pictures_to_score(options)
    check_fit(model, pictures, options.checkpoint)
    size, crop_pct = options.image_size or model.image_size, options.crop_pct or model.crop_pct
    check_image_size(size, model)
    scores = scoring.score(
        model,
        pictures,
        evaluation_transform(size, crop_pct),
        accelerator,
        batch_size=options.batch_size,
        workers=options.workers,
        strict=options.strict,
    )
    if accelerator.is_main_process:
        trained = config.recorded(options.checkpoint)
        dataset = scoring.dataset_name(options.data_root, pictures.classes)
        found = scoring.rows(
            scores,
            variant=name_of(model),
            preset=trained["preset"] + options.checkpoint.name.removeprefix("model") * options.checkpoint.is_dir(),
            seeds=[trained["seed"]] if "seed" in trained else [],
            dataset=dataset,
            split=options.split,
            crop=scoring.crop_text(size, crop_pct),
        )
        rows = measured(found, device)
        output = options.output or beside(options.checkpoint) / f"evaluation_{dataset.replace(' ', '_')}"
        write_rows(output / "results.json", rows)
        print(table(rows))
        print("\n".join(f"{row.metric}: {row.definition}" for row in rows))
        if scores.unreadable:
            print(f"{scores.unreadable} unreadable images left out")
        if options.save_pictures:
            save_pictures(pictures, options.save_pictures, output / "pictures")
        print(f"rows: {output / 'results.json'}")


def save_pictures(pictures: Pictures, count: int, folder: Path) -> None:
    """Write some images as PNG, as input for `predict.py` for example."""
    for index in range(0, len(pictures), -(-len(pictures) // count)):
        image, label = pictures.read(index)
        with atomic_path(folder / pictures.classes[label] / f"{index:05d}.png") as temporary:
            image.save(temporary)


def pictures_to_score(options: EvaluateConfig) -> Pictures:
    """The split's images, or the demo's."""
    if options.data_root is None and not options.dataset:
        training, test = demo_pictures()
        return test if options.split == "validation" else training
    upright = options.upright
    if upright is None:  # as in training; for the authors' weights as in the release
        upright = config.recorded(options.checkpoint).get("upright", False)
    root = options.data_root or Path(".")
    return open_split(root, options.split, dataset=options.dataset, split_file=options.split_file, upright=upright)


def check_fit(model: BiFormer, pictures: Pictures, checkpoint: Path) -> None:
    """Refuse a model that was trained for other classes than those of the data set.

    Raises:
        UserError: the message names the classes that differ.
    """
    if model.class_names is not None:
        check_classes(pictures.classes, model.class_names, "the images", f"{checkpoint}")
    elif model.num_classes != len(pictures.classes):
        raise UserError(
            f"{checkpoint}: has {model.num_classes} classes, the images have {len(pictures.classes)}; "
            "fine-tune the model on these images first (train.py --preset finetune --weights)"
        )


if __name__ == "__main__":
    main()
