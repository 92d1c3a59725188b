"""COCO's average precision of whole splits, computed by pycocotools; each image counts once.

The network gets one image at a time. The detections of a network with attention depend on the padding of the batch,
and scores must not depend on how the processes share the images.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from biformer.detection.annotations import read_annotations, run_lengths, shape_of
from biformer.detection.coco import coco_mask, coco_tools
from biformer.detection.data import CocoPictures
from biformer.detection.model import Detector, check_size, pasted
from biformer.detection.published import PUBLISHED
from biformer.detection.transforms import EvaluationPictures
from common.results import Row
from common.sampling import begin_worker

STATISTICS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
_MEANINGS = {
    "AP": "average precision, mean over classes and IoU thresholds 0.50, 0.55 ... 0.95",
    "AP50": "average precision at IoU 0.50, mean over classes",
    "AP75": "average precision at IoU 0.75, mean over classes",
    "AP small": "AP of objects below 32² pixels",
    "AP medium": "AP of objects of 32² to 96² pixels",
    "AP large": "AP of objects above 96² pixels",
}
Result = dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """Average precisions of one detector on one split, in percent.

    Attributes:
        box, mask: values by the names in `STATISTICS`, without those for which there are no objects; `mask` is
            empty for a detector that finds only boxes.
        pictures: number of scored images.
    """

    box: dict[str, float]
    mask: dict[str, float]
    pictures: int

    def named(self) -> dict[str, float]:
        """All values by the names "box AP", "mask AP50" and so on."""
        both = (("box", self.box), ("mask", self.mask))
        return {f"{kind} {name}": value for kind, found in both for name, value in found.items()}


def score(detector: Detector, pictures: CocoPictures, accelerator: Accelerator, *, workers: int = 0) -> Scores:
    """Detect the objects in every image and score them; the processes share the images.

    Args:
        detector: in evaluation mode, on the accelerator's device.
        pictures: images of the split.
        accelerator: connects the processes.
        workers: number of loading processes for each process.

    Returns:
        the same scores in every process.
    """
    found = detect(detector, pictures, accelerator, workers=workers)
    return shared(average_precision(found, pictures, detector) if accelerator.is_main_process else None, accelerator)


def shared(scores: Scores | None, accelerator: Accelerator) -> Scores:
    """Send the scores of the main process to every process."""
    if accelerator.num_processes > 1:
        (scores,) = broadcast_object_list([scores])
    assert scores is not None
    return scores


def detect(detector: Detector, pictures: CocoPictures, accelerator: Accelerator, *, workers: int = 0) -> list[Result]:
    """All detections of a split in COCO's results format, in the order of the images, the same in every process."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    device = next(detector.parameters()).device
    share = EvaluationPictures(pictures, rank=rank, processes=processes)
    # Without its own generator the loader would use the global one, and scoring would change the training.
    loader: DataLoader[Any] = DataLoader(
        share,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
        collate_fn=_unchanged,
    )
    results: list[tuple[int, list[Result]]] = []
    for image, index in tqdm(loader, unit="image", disable=rank > 0, leave=False):
        height, width = image.shape[-2:]
        check_size((width, height), detector, pictures.names[index])
        with torch.inference_mode(), accelerator.autocast():
            (found,) = detector([image.to(device)])
        results.append((index, results_of(found, detector, pictures.ids[index], height, width)))
    everything = gather_object(results) if processes > 1 else results
    return [result for _, found in sorted(everything, key=lambda pair: pair[0]) for result in found]


def results_of(found: dict[str, Tensor], detector: Detector, image_id: int, height: int, width: int) -> list[Result]:
    """The detections of one image in COCO's results format.

    Args:
        found: the output of the detector.
        detector: for the category numbers.
        image_id: number of the image in the data set.
        height, width: of the image, in pixels.
    """
    results = []
    boxes = found["boxes"].float().cpu()
    for i, (box, label, confidence) in enumerate(
        zip(boxes, found["labels"].tolist(), found["scores"].float().tolist(), strict=True)
    ):
        left, top, right, bottom = box.tolist()
        result: Result = {
            "image_id": image_id,
            "category_id": detector.category_ids[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": confidence,
        }
        if "masks" in found:
            mask = pasted(found["masks"][i], box, height, width)
            lengths = coco_mask().encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            result["segmentation"] = {"size": lengths["size"], "counts": lengths["counts"].decode("ascii")}
        results.append(result)
    return results


def average_precision(results: Sequence[Result], pictures: CocoPictures, detector: Detector) -> Scores:
    """Score detections with pycocotools.

    Args:
        results: detections of all images in COCO's results format.
        pictures: the images in which objects were detected.
        detector: for Mask R-CNN the masks are scored too.
    """
    truth = _truth(pictures)
    box = _evaluate(truth, [{**r, "segmentation": None} for r in results], pictures.ids, "bbox")
    mask: dict[str, float] = {}
    if detector.method == "mask_rcnn":
        # Without boxes, because with them pycocotools would use the area of the box as the size of a mask.
        masks = [{key: value for key, value in r.items() if key != "bbox"} for r in results]
        mask = _evaluate(truth, masks, pictures.ids, "segm")
    return Scores(box, mask, len(pictures))


def rows(
    scores: Scores,
    *,
    detector: Detector,
    preset: str,
    seeds: Sequence[int],
    dataset: str,
    split: str,
) -> list[Row]:
    """Result rows; a metric with two published values has two rows, one for each value.

    Args:
        scores: of the split.
        detector: for its method and variant.
        preset: name of the preset in the rows.
        seeds: seeds of the training.
        dataset: from `dataset_name`.
        split: name of the split in the rows.
    """
    found = []
    for metric, value in scores.named().items():
        comparable = dataset == COCO_2017 and split == "validation"
        targets = PUBLISHED.get((detector.method, detector.variant, metric), []) if comparable else []
        pairs: list[tuple[float | None, str | None]] = [*targets] or [(None, None)]
        for published, source in pairs:
            found.append(
                Row(
                    paper="biformer",
                    preset=preset,
                    dataset=dataset,
                    split=f"{split}, {scores.pictures:,} images",
                    metric=metric,
                    definition=definition(metric),
                    value=value,
                    seeds=list(seeds),
                    published=published,
                    source=source,
                )
            )
    return found


def definition(metric: str) -> str:
    """The definition of "box AP" and of the other metrics."""
    kind, _, name = metric.partition(" ")
    return f"COCO's {kind} {_MEANINGS[name]}, at most 100 detections per image, in percent (pycocotools)"


COCO_2017 = "COCO 2017"


def dataset_name(root: Path | None, pictures: CocoPictures) -> str:
    """Name of the data set in the rows: "COCO 2017" if it has COCO's 80 categories, otherwise the folder's name."""
    coco = len(pictures.classes) == 80 and pictures.classes[0] == "person" and pictures.category_ids[-1] == 90
    return COCO_2017 if coco else root.resolve().name if root else "demo objects"


def _truth(pictures: CocoPictures) -> Any:
    """The annotations as pycocotools needs them; missing optional values are filled in."""
    content = read_annotations(pictures.annotation_file)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for number, annotation in enumerate(content["annotations"], start=1):
        left, top, width, height = annotation["bbox"]
        annotation["id"] = number  # pycocotools treats the number 0 as no object
        annotation["iscrowd"] = int(bool(annotation.get("iscrowd")))
        if type(annotation.get("area")) not in (int, float) or not annotation["area"] >= 0:
            annotation["area"] = width * height
        size = sizes[annotation["image_id"]]
        box = [np.array([left, top, left + width, top, left + width, top + height, left, top + height], dtype=float)]
        shape = shape_of(annotation.get("segmentation"), f"{pictures.annotation_file}: annotation {number}", size)
        annotation["segmentation"] = run_lengths(shape or box, *size)
    truth = coco_tools()[0]()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _evaluate(truth: Any, results: list[Result], ids: Sequence[int], kind: str) -> dict[str, float]:
    coco, coco_eval = coco_tools()
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(results) if results else coco()
        evaluation = coco_eval(truth, found, kind)
        evaluation.params.imgIds = list(ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(STATISTICS, evaluation.stats[:6].tolist(), strict=True)
    return {name: 100 * value for name, value in values if value >= 0}  # -1 means that there is no object of this size


def _unchanged(sample: Any) -> Any:
    return sample
