"""Score a segmentation network and print the published scores beside the measured ones.

    python biformer/segmentation/evaluate.py --checkpoint runs/biformer_segmentation_demo/model      the demo's scenes
    python biformer/segmentation/evaluate.py --checkpoint RUN/model --data-root ADEChallengeData2016
    python biformer/segmentation/evaluate.py --checkpoint RUN/model --data-root ADEChallengeData2016 --multi-scale
    accelerate launch --num_processes 8 biformer/segmentation/evaluate.py ...              several GPUs share the images

Prints and writes mIoU, mean and overall pixel accuracy of whole images, and the scores of each class. `--multi-scale`
averages over six scales and their mirror images, as in the published multi-scale results.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from biformer.data import check_classes
from biformer.evaluation import EvaluationFlags
from biformer.segmentation import scoring
from biformer.segmentation.data import open_scenes
from biformer.segmentation.inference import MULTI_SCALE, Protocol
from biformer.segmentation.model import load_segmenter
from biformer.segmentation.photographs import write_demo
from biformer.segmentation.pictures import prediction_sheet
from common import config, launch
from common.config import Positive
from common.errors import UserError, command
from common.networks.weights import beside, locate
from common.results import measured, table, write_rows


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluationFlags):
    """Flags of this script."""

    checkpoint: Path
    """A run's exported model folder."""
    data_root: Path | None = None
    """Folder of the data set; by default the demo's scenes are scored."""
    split: Literal["validation", "training"] = "validation"
    """Split to score."""
    multi_scale: bool = False
    """Average over six scales from 0.5 to 1.75 and their mirror images."""
    image_size: Positive[int] | None = None
    """Shorter side of the resized images in pixels; by default the model's."""
    size_divisor: Positive[int] | None = None
    """Stretch the resized sides to multiples of this; by default the model's value."""
    save_pictures: int = 0
    """Draw this number of scored images with their annotations and predictions."""
    output: Path | None = None
    """Folder for results.json; by default evaluation_<data set> beside the checkpoint."""


@command
def main() -> None:
    """Load the network, score the images, print and write the scores."""
    options = config.parse(EvaluateConfig, __doc__)
    options = replace(options, checkpoint=locate(options.checkpoint))
    accelerator, device = launch.on_device(options.device, mixed_precision=options.mixed_precision)
    model = load_segmenter(options.checkpoint).float().to(device)
    protocol = Protocol(
        options.image_size or model.image_size,
        options.size_divisor or model.size_divisor,
        scales=MULTI_SCALE if options.multi_scale else (1.0,),
        flip=options.multi_scale,
    )
    if min(protocol.image_size, protocol.size_divisor) < 1:
        raise UserError("--image-size and --size-divisor must be at least 1")
    root = options.data_root or write_demo(beside(options.checkpoint) / "data")
    scenes = open_scenes(root, options.split)
    check_classes(scenes.classes, model.class_names, f"{scenes.root}: the annotations", f"{options.checkpoint}")
    scores = scoring.score(model, scenes, accelerator, protocol, workers=options.workers)
    if accelerator.is_main_process:
        trained = config.recorded(options.checkpoint)
        dataset = scoring.dataset_name(scenes, demo=options.data_root is None)
        found = scoring.rows(
            scores,
            model,
            preset=trained["preset"] + options.checkpoint.name.removeprefix("model"),
            seeds=[trained["seed"]] if "seed" in trained else [],
            dataset=dataset,
            split=options.split,
            protocol=protocol,
        )
        rows = measured(found, device)
        several = "_multi_scale" if options.multi_scale else ""
        output = options.output or beside(options.checkpoint) / f"evaluation_{dataset.replace(' ', '_')}{several}"
        write_rows(output / "results.json", rows)
        scoring.write_classes(output / "classes.csv", scores, model.class_names)
        print(table(rows))
        print("\n".join(f"{row.metric}: {row.definition}" for row in rows))
        if options.save_pictures:
            sheet = output / "predictions.png"
            prediction_sheet(model, scenes, protocol, device, sheet, count=options.save_pictures)
            print(f"figure: {sheet}")
        print(f"rows: {output / 'results.json'}; each class: {output / 'classes.csv'}")


if __name__ == "__main__":
    main()
