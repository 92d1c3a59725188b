"""A detector: RetinaNet or Mask R-CNN on BiFormer, with class names, loading, and masks in full size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biformer.data import UnreadablePicture
from biformer.dense import DenseBiFormer
from biformer.detection.methods import Resizing, mask_rcnn, retinanet
from common.errors import UserError
from common.networks.weights import Pretrained, locate

Method = Literal["mask_rcnn", "retinanet"]


class Detector(Pretrained, nn.Module):
    """A detector of named classes.

    Args:
        class_names: names of the classes, in the order of their numbers.
        category_ids: number of each class in the data set, for results.
        method: "mask_rcnn" (boxes and masks) or "retinanet" (boxes).
        backbone: a name from `biformer.list_models`.
        num_regions: regions along each side of a map; the authors' detectors have 16.
        depths: numbers of blocks of the four stages, instead of the variant's.
        drop_path_rate: stochastic depth of the last block.
        freeze_batch_norm: keep the running statistics of every BatchNorm in training.
        channels: channels of the pyramid and the heads; the hidden layers of the box head have four times as many.
        proposals: number of regions per image that Mask R-CNN's first stage passes to the second, best first.
            Non-maximum suppression gets this number from each level, in training twice this number.
        regions_per_picture: number of proposals per image with which Mask R-CNN is trained; a quarter are objects.
        short_side, long_side: images are resized to this shorter side in pixels, or less if the longer side would
            exceed `long_side`.

    Raises:
        ValueError: unknown method, variant or keyword, or names that do not match the numbers.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        method: Method = "mask_rcnn",
        backbone: str = "biformer_small",
        num_regions: int = 16,
        depths: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        freeze_batch_norm: bool = True,
        channels: int = 256,
        proposals: int = 1000,
        regions_per_picture: int = 512,
        short_side: int = 800,
        long_side: int = 1333,
    ) -> None:
        super().__init__()
        if len(class_names) != len(category_ids) or not class_names:
            raise ValueError(f"got {len(class_names)} class_names for {len(category_ids)} category_ids")
        if method not in ("mask_rcnn", "retinanet"):
            raise ValueError(f"no method {method!r}; there are mask_rcnn and retinanet")
        self.method, self.variant = method, backbone
        self.class_names, self.category_ids = list(class_names), list(category_ids)
        body = DenseBiFormer(
            backbone,
            num_regions=num_regions,
            drop_path_rate=drop_path_rate,
            freeze_batch_norm=freeze_batch_norm,
            **({} if depths is None else {"depths": tuple(depths)}),
        )
        build = mask_rcnn if method == "mask_rcnn" else retinanet
        self.network = build(body, len(class_names), channels, proposals, regions_per_picture)
        self.network.transform = Resizing(short_side, long_side, least_size=body.least_size)

    @property
    def body(self) -> DenseBiFormer:
        """The backbone."""
        found = self.network.backbone.body
        assert isinstance(found, DenseBiFormer)
        return found

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute the losses in training mode, the detections in evaluation mode.

        Args:
            images: `(3, H, W)` in [0, 1] each, of any sizes.
            targets: in training for each image `boxes` `(N, 4)` (left, top, right, bottom in pixels), `labels`
                `(N,)` from 0 and, for Mask R-CNN, `masks` `(N, H, W)`.

        Returns:
            in training the losses by name; in evaluation for each image `boxes`, `labels`, `scores` `(N,)` in [0, 1],
            best first, and for Mask R-CNN `masks` `(N, 28, 28)`, probabilities inside the box, for `pasted`.
        """
        background = int(self.method == "mask_rcnn")  # class 0 in torchvision, the last class in mmdetection
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + background} for target in targets]
        found = self.network(images, targets)
        if self.training:
            return found
        for each in found:
            each["labels"] = each["labels"] - background
            if "masks" in each:
                each["masks"] = each["masks"][:, 0]
        return found

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass instead of storing their intermediate results."""
        self.body.set_grad_checkpointing(enable)


def pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """Enlarge the mask of a box to the size of its image, sampled at pixel centres as in mmdetection.

    Args:
        mask: `(28, 28)`, probabilities.
        box: `(4,)`, left, top, right, bottom in pixels.
        height, width: of the image, in pixels.

    Returns:
        `(H, W)` of booleans.
    """
    inside = torch.zeros(height, width, dtype=torch.bool)
    left, top, right, bottom = box.tolist()
    columns = torch.arange(max(0, int(left)), min(width, int(right) + 1))
    rows = torch.arange(max(0, int(top)), min(height, int(bottom) + 1))
    if len(columns) and len(rows) and right > left and bottom > top:
        x = (columns + 0.5 - left) / (right - left) * 2 - 1
        y = (rows + 0.5 - top) / (bottom - top) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        values = F.grid_sample(mask[None, None].float().cpu(), grid[None], align_corners=False)[0, 0]
        inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = values >= 0.5
    return inside


def load_detector(path: Path) -> Detector:
    """Load a detector from the exported model folder of a run, in evaluation mode, on the CPU.

    Raises:
        UserError: the folder does not exist, is damaged, or has another network. The authors released no detectors.
    """
    found = locate(path)
    if found.is_file():
        raise UserError(
            f"{path}: is a file, expected a model folder that detection/train.py exported; the authors released no "
            "detectors, and ImageNet weights are for detection/train.py --weights"
        )
    return Detector.from_pretrained(found)


def check_size(size: tuple[int, int], detector: Detector, name: Any) -> None:
    """Refuse an image that is so narrow that it would have no pixels after resizing.

    Args:
        size: width and height in pixels.
        detector: the detector that resizes the image.
        name: name of the image, for the error.

    Raises:
        UnreadablePicture: the image is too narrow.
    """
    transform: Any = detector.network.transform
    shrink = min(transform.min_size[-1] / min(size), transform.max_size / max(size))
    if min(size) * shrink < 1:
        raise UnreadablePicture(f"{name}: has {size[0]}x{size[1]} pixels, too narrow to be resized; cut it into pieces")
