"""Scores of whole images by the published protocol of each data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from common.errors import UserError
from common.files import atomic_path
from common.photographs.images import printable
from common.results import Row
from fftformer import alignment
from fftformer.metrics import LEAST_SIDE, PSNR, SSIM_2D, SSIM_3D, psnr, quantise, ssim_2d, ssim_3d
from fftformer.published import PUBLISHED

Scores = dict[str, float]

DATASETS = {
    "gopro": "GoPro",
    "hide": "HIDE",
    "realblur_j": "RealBlur-J",
    "realblur_r": "RealBlur-R",
    "levin": "Levin et al. 2009",
    "demo": "demo photographs",
}
DEFINITIONS = {"PSNR (dB)": PSNR, "SSIM (3-D)": SSIM_3D, "SSIM (2-D)": SSIM_2D}
REALBLUR_DEFINITIONS = {"PSNR (dB)": alignment.REALBLUR_PSNR, "SSIM": alignment.REALBLUR_SSIM}


@dataclass(frozen=True)
class PictureScore:
    """Scores of one image.

    Attributes:
        name: of the image.
        restored: metric → value of the restored image.
        blurred: metric → value of the blurred image.
    """

    name: str
    restored: Scores
    blurred: Scores


def score_pair(output: Tensor, target: Tensor, layout: str) -> Scores:
    """Score one image against its target, both clipped and rounded to 8 bits.

    Args:
        output, target: `(3, H, W)` in [0, 1].
        layout: of the data set. RealBlur's images are aligned first; Levin's are shifted and their borders cut.

    Returns:
        metric → value.
    """
    output, target = quantise(output), quantise(target)
    if layout.startswith("realblur"):
        return dict(zip(REALBLUR_DEFINITIONS, alignment.realblur_scores(_hwc(output), _hwc(target)), strict=True))
    if layout == "levin":
        shifted = alignment.best_shift(_hwc(output), _hwc(target))
        output, target = (torch.from_numpy(image).permute(2, 0, 1) for image in shifted)
    return {
        "PSNR (dB)": psnr(output, target),
        "SSIM (3-D)": ssim_3d(output, target),
        "SSIM (2-D)": ssim_2d(output, target),
    }


def score_pictures(
    items: Any,
    restore: Callable[[Tensor], Tensor],
    layout: str,
    *,
    rank: int = 0,
    processes: int = 1,
    show: Callable[[dict[str, Any], Tensor, PictureScore], None] | None = None,
) -> list[PictureScore]:
    """Restore and score images; the processes share the work, and each image counts once.

    Args:
        items: a sequence of `{"name", "blurred", "sharp"}` with images `(3, H, W)` in [0, 1].
        restore: blurred `(3, H, W)` → restored `(3, H, W)`, in the CPU's memory.
        layout: of the data set, for `score_pair`.
        rank: number of this process.
        processes: how many processes there are.
        show: called with every item of this process, the restored image and the scores.

    Returns:
        the scores of all images in the order of `items`, the same in every process.

    Raises:
        UserError: an image is too small for SSIM.
    """
    mine = []
    for index in tqdm(range(rank, len(items), processes), unit="image", disable=rank > 0, leave=False):
        item = items[index]
        if min(item["sharp"].shape[1:]) < LEAST_SIDE:
            raise UserError(f"{item['name']}: has a side below {LEAST_SIDE} pixels, which SSIM needs; remove the pair")
        restored = restore(item["blurred"])
        restored_scores = score_pair(restored, item["sharp"], layout)
        score = PictureScore(item["name"], restored_scores, score_pair(item["blurred"], item["sharp"], layout))
        if show:
            show(item, restored, score)
        mine.append((index, score))
    gathered = gather_object(mine) if processes > 1 else mine
    return [score for _, score in sorted(gathered, key=lambda pair: pair[0])]


def mean(scores: Sequence[PictureScore], metric: str, of: str = "restored") -> float:
    """Mean of one metric over the restored or the blurred images."""
    return sum(getattr(score, of)[metric] for score in scores) / len(scores)


def rows(  # noqa: PLR0917
    scores: Sequence[PictureScore],
    layout: str,
    dataset: str,
    split: str,
    preset: str,
    seeds: Sequence[int] = (),
    *,
    of: Literal["restored", "blurred"] = "restored",
    tile: tuple[int, int] | None = None,
) -> list[Row]:
    """Result rows with the mean of every metric; rows of restored images also have the published values, if any.

    Args:
        scores: of all images.
        layout: of the data set; it selects the metrics.
        dataset: name of the data set in the rows.
        split: name of the split in the rows.
        preset: name of the preset in the rows.
        seeds: seeds of the training.
        of: whether the restored or the blurred images are described.
        tile: height and width of the smallest tile, if images were restored in tiles. The published scores are
            of whole images.

    Raises:
        UserError: there are no scores.
    """
    if not scores:
        raise UserError(f"{dataset}: no images were scored")
    definitions = REALBLUR_DEFINITIONS if layout.startswith("realblur") else DEFINITIONS
    scored = f"{split}, {len(scores)} {'image' if len(scores) == 1 else 'images'}"
    if tile:
        scored += f", in tiles of {tile[0]} × {tile[1]}"
    found = []
    for metric in scores[0].restored:
        published, source = PUBLISHED.get((dataset, metric), (None, None)) if of == "restored" else (None, None)
        definition = definitions[metric] + (f"; {alignment.LEVIN}" if layout == "levin" else "")
        found.append(
            Row(
                paper="fftformer",
                preset=preset,
                dataset=dataset,
                split=scored,
                metric=metric,
                definition=f"{definition}; mean over images",
                value=mean(scores, metric, of),
                seeds=list(seeds),
                published=published,
                source=source,
            )
        )
    return found


def write_csv(path: str | Path, scores: Sequence[PictureScore]) -> None:
    """Write the scores of every blurred and restored image as CSV."""
    metrics = list(scores[0].restored)
    lines = [",".join(["name", *(f"{metric} {of}" for metric in metrics for of in ("blurred", "restored"))])]
    for score in scores:
        values = [f"{getattr(score, of)[metric]:.5f}" for metric in metrics for of in ("blurred", "restored")]
        lines.append(",".join([printable(score.name), *values]))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _hwc(image: Tensor) -> Any:
    return image.permute(1, 2, 0).float().numpy()
