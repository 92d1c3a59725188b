"""The segmentation network: BiFormer's backbone, one of the two heads, and the published loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from biformer.dense import DenseBiFormer
from biformer.segmentation.heads import AuxiliaryHead, SemanticFPNHead, UPerNetHead
from common.errors import UserError
from common.networks.weights import Pretrained, locate

IGNORED = 255
"""Label of pixels that are ignored in the loss and in the scores."""
AUXILIARY_WEIGHT = 0.4
Head = Literal["semantic_fpn", "upernet"]


class Segmenter(Pretrained, nn.Module):
    """BiFormer with a segmentation head.

    Args:
        variant: a name from `biformer.list_models`.
        head: "semantic_fpn", or "upernet" with an auxiliary head on stage 3.
        num_classes: number of classes, at most 254.
        num_regions: S, regions along each side of a map; 8 as published.
        head_width: channels of the head; by default the published 128 or 512.
        dropout: probability of dropping a whole channel before a classifier.
        drop_path_rate: stochastic depth of the last block.
        freeze_batch_norm: keep the running statistics of the backbone's BatchNorms in training. The authors do this in
            detection, but not in segmentation.
        class_names: names of the classes; stored in the model folder.
        image_size: shorter side of resized images in pixels; stored in the model folder.
        size_divisor: resized sides are stretched to multiples of this; stored in the model folder.
        backbone: further keywords of `BiFormer`.

    Shape:
        `(B, 3, H, W)`, normalised with ImageNet's mean and standard deviation →
        logits `(B, num_classes, ⌈H / 4⌉, ⌈W / 4⌉)`; with labels `(B, H, W)`, class numbers or 255 → the loss, a scalar.

    Raises:
        ValueError: options that do not fit together, or an image smaller than the region grid.
    """

    def __init__(
        self,
        variant: str = "biformer_small",
        head: Head = "semantic_fpn",
        *,
        num_classes: int = 150,
        num_regions: int = 8,
        head_width: int | None = None,
        dropout: float = 0.1,
        drop_path_rate: float = 0.0,
        freeze_batch_norm: bool = False,
        class_names: Sequence[str] | None = None,
        image_size: int = 512,
        size_divisor: int = 1,
        backbone: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if head not in get_args(Head):
            raise ValueError(f"no head {head!r}; there are {', '.join(get_args(Head))}")
        if not 1 <= num_classes < IGNORED:
            raise ValueError(f"expected 1 to {IGNORED - 1} classes, got {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"got {len(class_names)} class_names for {num_classes} classes")
        self.variant, self.head_name, self.num_classes = variant, head, num_classes
        self.class_names = list(class_names or (f"class {i}" for i in range(1, num_classes + 1)))
        self.image_size, self.size_divisor = image_size, size_divisor
        self.backbone = DenseBiFormer(
            variant,
            num_regions=num_regions,
            drop_path_rate=drop_path_rate,
            freeze_batch_norm=freeze_batch_norm,
            **dict(backbone or {}),
        )
        channels = self.backbone.channels
        self.head: nn.Module
        self.auxiliary: AuxiliaryHead | None = None
        if head == "semantic_fpn":
            self.head = SemanticFPNHead(channels, num_classes, width=head_width or 128, dropout=dropout)
        else:
            width = head_width or 512
            self.head = UPerNetHead(channels, num_classes, width=width, dropout=dropout)
            self.auxiliary = AuxiliaryHead(channels[2], num_classes, width=width // 2, dropout=dropout)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits; with labels the loss."""
        maps = self.backbone(x)
        logits = self.head(maps)
        if labels is None:
            return logits
        loss = pixel_loss(logits, labels)
        if self.auxiliary is not None:
            loss = loss + AUXILIARY_WEIGHT * pixel_loss(self.auxiliary(maps[2]), labels)
        return loss

    @property
    def least_size(self) -> int:
        """Smallest side of an image, in pixels."""
        return self.backbone.least_size

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass instead of storing their intermediate results."""
        self.backbone.set_grad_checkpointing(enable)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every pixel of the labels.

    As in the release (mmsegmentation's default), the sum is divided by the number of all pixels, also the ignored ones,
    so an image that is mostly padding has less weight.

    Args:
        logits: `(B, classes, h, w)` of any size; they are enlarged bilinearly.
        labels: `(B, H, W)` integers, class numbers or 255.

    Returns:
        a scalar.
    """
    logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORED, reduction="sum") / labels.numel()


def load_segmenter(folder: str | Path) -> Segmenter:
    """Load the network from a folder that `segmentation/train.py` exported, in evaluation mode.

    Raises:
        UserError: the folder does not exist, is damaged, or has another network.
    """
    found = locate(folder)
    if found.is_file():
        raise UserError(
            f"{folder}: is a file, expected the model folder of a segmentation run; the authors released no "
            "segmentation weights, and ImageNet weights are for segmentation/train.py --weights"
        )
    return Segmenter.from_pretrained(found)
