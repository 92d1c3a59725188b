"""Score a detector on COCO images and print the published scores beside the measured ones.

    python biformer/detection/evaluate.py --checkpoint runs/biformer_detection_demo/model        the demo's images
    python biformer/detection/evaluate.py --checkpoint runs/biformer_detection_mask_rcnn_small/model --data-root COCO
    accelerate launch --num_processes 8 biformer/detection/evaluate.py ...               several GPUs share the images

Prints and writes COCO's average precisions of boxes and, for Mask R-CNN, of masks. The detections are written in COCO's
results format. The network gets one image at a time, so scores do not depend on batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from biformer.detection import scoring
from biformer.detection.annotations import check_categories
from biformer.detection.data import CocoPictures, open_split
from biformer.detection.model import load_detector
from biformer.evaluation import EvaluationFlags
from common import config, launch
from common.errors import UserError, command
from common.files import atomic_path, write_json
from common.networks.weights import beside, locate
from common.results import measured, table, write_rows


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluationFlags):
    """Flags of this script."""

    checkpoint: Path
    """A run's exported model folder."""
    data_root: Path | None = None
    """Folder of the data set; by default the demo's images beside the demo's model are scored."""
    split: Literal["validation", "train"] = "validation"
    """Split to score."""
    save_pictures: int = 0
    """Copy this number of scored images, evenly spread, to the output folder, as PNG."""
    output: Path | None = None
    """Folder for results.json and detections.json; by default evaluation_<data set>_<split> beside the checkpoint."""


@command
def main() -> None:
    """Load the detector, detect and score, print and write the scores."""
    options = config.parse(EvaluateConfig, __doc__)
    options = replace(options, checkpoint=locate(options.checkpoint))
    accelerator, device = launch.on_device(options.device, mixed_precision=options.mixed_precision)
    detector = load_detector(options.checkpoint).to(device)
    pictures = pictures_to_score(options, masks=detector.method == "mask_rcnn")
    check_categories(
        pictures.classes,
        pictures.category_ids,
        detector.class_names,
        detector.category_ids,
        whose=f"{pictures.annotation_file} (for {options.checkpoint})",
    )
    if not any(len(one.labels) for one in pictures.objects):
        raise UserError(f"{pictures.annotation_file}: has no object to score; annotate some")
    found = scoring.detect(detector, pictures, accelerator, workers=options.workers)
    if accelerator.is_main_process:
        scores = scoring.average_precision(found, pictures, detector)
        trained = config.recorded(options.checkpoint)
        dataset = scoring.dataset_name(options.data_root, pictures)
        rows = scoring.rows(
            scores,
            detector=detector,
            preset=trained["preset"] + options.checkpoint.name.removeprefix("model"),
            seeds=[trained["seed"]] if "seed" in trained else [],
            dataset=dataset,
            split=options.split,
        )
        rows = measured(rows, device)
        name = f"evaluation_{dataset.replace(' ', '_')}_{options.split}"
        output = options.output or beside(options.checkpoint) / name
        write_rows(output / "results.json", rows)
        write_json(output / "detections.json", found)
        print(table(rows, {"published in": [row.source or "" for row in rows]}))
        print("\n".join(dict.fromkeys(f"{row.metric}: {row.definition}" for row in rows)))
        if options.save_pictures:
            save_pictures(pictures, options.save_pictures, output / "pictures")
        print(f"rows: {output / 'results.json'}; detections: {output / 'detections.json'}")


def pictures_to_score(options: EvaluateConfig, *, masks: bool) -> CocoPictures:
    """The split's images, or the demo's."""
    root = options.data_root or beside(options.checkpoint) / "data"
    if options.data_root is None and not root.is_dir():
        raise UserError(f"{options.checkpoint}: has no demo data beside it ({root}); pass the data set as --data-root")
    return open_split(root, options.split, masks=masks)


def save_pictures(pictures: CocoPictures, count: int, folder: Path) -> None:
    """Write some images as PNG, as input for `detection/predict.py` for example."""
    for index in range(0, len(pictures), -(-len(pictures) // count)):
        with atomic_path(folder / Path(pictures.names[index]).with_suffix(".png").name) as temporary:
            pictures.read(index).save(temporary)


if __name__ == "__main__":
    main()
