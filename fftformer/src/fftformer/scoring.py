"""Scores of whole images, under each data set's published protocol."""

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
from fftformer.metrics import PSNR, SSIM_2D, SSIM_3D, psnr, quantise, ssim_2d, ssim_3d
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
    """Scores of one image: metric → value, for the restored and for the blurred one."""

    name: str
    restored: Scores
    blurred: Scores


def score_pair(output: Tensor, target: Tensor, layout: str) -> Scores:
    """Score one image against its target, both clipped and rounded to 8 bits.

    Args:
        output, target: `(3, H, W)` in [0, 1].
        layout: of the data set; RealBlur is aligned first, Levin's is shifted and its border cut.
    """
    output, target = quantise(output), quantise(target)
    if layout.startswith("realblur"):
        return dict(zip(REALBLUR_DEFINITIONS, alignment.realblur_scores(_hwc(output), _hwc(target)), strict=True))
    if layout == "levin":
        shifted = alignment.best_shift(_hwc(output), _hwc(target))
        output, target = (torch.from_numpy(picture).permute(2, 0, 1) for picture in shifted)
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
    """Restore and score images, divided over the processes, each counted exactly once.

    Args:
        items: a sequence of `{"name", "blurred", "sharp"}` with images `(3, H, W)` in [0, 1].
        restore: blurred `(3, H, W)` → restored `(3, H, W)` on the host.
        show: called with every item of this process, its restoration and its scores.

    Returns:
        the scores of all images in the order of `items`, in every process.
    """
    mine = []
    for index in tqdm(range(rank, len(items), processes), unit="image", disable=rank > 0, leave=False):
        item = items[index]
        restored = restore(item["blurred"])
        restored_scores = score_pair(restored, item["sharp"], layout)
        score = PictureScore(item["name"], restored_scores, score_pair(item["blurred"], item["sharp"], layout))
        if show:
            show(item, restored, score)
        mine.append((index, score))
    gathered = gather_object(mine) if processes > 1 else mine
    return [score for _, score in sorted(gathered, key=lambda pair: pair[0])]


def mean(scores: Sequence[PictureScore], metric: str, of: str = "restored") -> float:
    """Mean of one metric over images, of the restored or the blurred ones."""
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
    """Result rows: the mean of every metric, of restored images beside the published one where there is one.

    Args:
        tile: the smallest one, where images were restored in tiles. The published scores are of whole images.

    Raises:
        UserError: there are no scores.
    """
    if not scores:
        raise UserError(f"{dataset}: no images were scored")
    definitions = REALBLUR_DEFINITIONS if layout.startswith("realblur") else DEFINITIONS
    pictures = f"{split}, {len(scores)} {'image' if len(scores) == 1 else 'images'}"
    if tile:
        pictures += f", in tiles of {tile[0]} × {tile[1]}"
    found = []
    for metric in scores[0].restored:
        published, source = PUBLISHED.get((dataset, metric), (None, None)) if of == "restored" else (None, None)
        definition = alignment.LEVIN_PSNR if layout == "levin" and metric == "PSNR (dB)" else definitions[metric]
        found.append(
            Row(
                paper="fftformer",
                preset=preset,
                dataset=dataset,
                split=pictures,
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
    """Write every image's scores, blurred and restored, as CSV."""
    metrics = list(scores[0].restored)
    lines = [",".join(["name", *(f"{metric} {of}" for metric in metrics for of in ("blurred", "restored"))])]
    for score in scores:
        values = [f"{getattr(score, of)[metric]:.5f}" for metric in metrics for of in ("blurred", "restored")]
        lines.append(",".join([printable(score.name), *values]))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _hwc(picture: Tensor) -> Any:
    return picture.permute(1, 2, 0).float().numpy()
