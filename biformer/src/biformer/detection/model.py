"""RetinaNet and Mask R-CNN on BiFormer, from torchvision's detection parts.

The authors used mmdetection 2. What its 1× configurations set is set here; where torchvision's parts
themselves differ, it stands at the line. Not the same either, and without a line of ours to stand at:

| | mmdetection 2 | torchvision, here |
|---|---|---|
| box loss of RPN and Mask R-CNN | L1 | smooth L1 with beta 1/9 |
| RetinaNet's losses | sum over the batch / its positive anchors | mean over images of each one's own quotient |
| RPN: best anchor of an object below IoU 0.3 | ignored | a positive |
| anchors' corners | fractions of pixels | rounded to pixels |
| P7 of RetinaNet | convolution of P6 | convolution of ReLU(P6) |
| mask targets | RoIAlign with half-pixel alignment | RoIAlign without it |
| resizing | images of 8 bits, rounded | tensors, not rounded |

Box encodings (deviations 1 for anchors, 0.1 and 0.2 for regions), sampling, suppression per class at 0.5, the
score threshold 0.05 and 100 detections per image are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import LevelMapper

from biformer.data import UnreadablePicture
from biformer.dense import DenseBiFormer
from common.errors import UserError
from common.networks.weights import Pretrained, locate

Method = Literal["mask_rcnn", "retinanet"]
_RATIOS = (0.5, 1.0, 2.0)


class Detector(Pretrained, nn.Module):
    """A detector of named classes.

    Args:
        class_names: of the classes, in the order of their numbers.
        category_ids: the data set's number of each class, for results in its terms.
        method: "mask_rcnn" (boxes and masks) or "retinanet" (boxes).
        backbone: a variant of `biformer.list_models`.
        num_regions: regions along each side of a map; the authors' detectors have 16.
        depths: blocks of the four stages, instead of the variant's.
        drop_path_rate: stochastic depth of the last block.
        freeze_batch_norm: keep the running statistics of every BatchNorm in training.
        channels: of the pyramid and the heads; the hidden layers of the box head have four times as many.
        proposals: regions per image that Mask R-CNN's first stage hands to the second, best first. Suppression
            gets as many of each level, in training twice as many.
        regions_per_picture: proposals that Mask R-CNN learns from, a quarter of them objects.
        short_side, long_side: images are resized to this shorter side, or to less if the longer one
            would exceed the other number.

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
        """In training the losses by name, otherwise the detections.

        Args:
            images: `(3, H, W)` in [0, 1] each, of any sizes.
            targets: in training, `boxes` `(N, 4)` (left, top, right, bottom in pixels), `labels` `(N,)` from
                0 and, for Mask R-CNN, `masks` `(N, H, W)`.

        Returns:
            in evaluation per image `boxes`, `labels`, `scores` `(N,)` in [0, 1], best first, and for
            Mask R-CNN `masks` `(N, 28, 28)`: probabilities inside the box, for `pasted`.
        """
        background = int(self.method == "mask_rcnn")  # torchvision's class 0; the last one in mmdetection
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


class Pyramid(nn.Module):
    """Backbone and feature pyramid; `(B, 3, H, W)` → maps of equal width by name, finest first.

    Args:
        body: the backbone.
        first: its first map that is used; 0 for strides from 4, 1 for strides from 8.
        channels: of every map that comes out.
        further: makes coarser maps.
    """

    def __init__(self, body: DenseBiFormer, first: int, channels: int, further: ExtraFPNBlock) -> None:
        super().__init__()
        self.body, self.first, self.out_channels = body, first, channels
        self.fpn = FeaturePyramidNetwork(list(body.channels[first:]), channels, extra_blocks=further)
        # A norm that nothing follows gets no gradient, which DistributedDataParallel would wait for; the
        # authors set find_unused_parameters instead.
        for norm in body.norms[:first]:
            norm.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps."""
        maps = self.body(x)[self.first :]
        return self.fpn(OrderedDict((str(self.first + i), each) for i, each in enumerate(maps)))


class Resizing(GeneralizedRCNNTransform):
    """Resize, normalise and pad images to multiples of 32; boxes back to the image's own pixels.

    Differs from torchvision's: masks stay small, because pasting a hundred of them into a large
    image takes gigabytes (`pasted` does one); a batch is at least as large as the region grid.
    """

    def __init__(self, short_side: int, long_side: int, *, least_size: int) -> None:
        super().__init__(short_side, long_side, list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
        self.least = -(-least_size // 32) * 32

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Images of different sizes → `(B, 3, H, W)`, padded with zeros right and bottom."""
        batch = super().batch_images(images, size_divisible)
        height, width = batch.shape[-2:]
        return F.pad(batch, (0, max(0, self.least - width), 0, max(0, self.least - height)))

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Boxes of resized images → boxes of the images as they came."""
        if not self.training:
            for found, resized, original in zip(result, image_shapes, original_image_sizes, strict=True):
                found["boxes"] = resize_boxes(found["boxes"], list(resized), list(original))
        return result


class AlignedRoIAlign(nn.Module):
    """RoIAlign from the pyramid level that fits a box's size, as mmdetection's `SingleRoIExtractor`.

    torchvision's `MultiScaleRoIAlign` samples 2 × 2 points per cell and is half a pixel off; this takes
    as many points as a cell has pixels, and aligns.
    """

    def __init__(self, size: int, strides: Sequence[int] = DenseBiFormer.strides) -> None:
        super().__init__()
        self.size, self.strides = size, tuple(strides)
        self.level_of = LevelMapper(2, 1 + len(strides))  # a box of 224 pixels goes to stride 16

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Boxes per image → `(all boxes, C, size, size)`; image sizes are not needed."""
        rows = [F.pad(each, (1, 0), value=float(picture)) for picture, each in enumerate(boxes)]
        regions, levels = torch.cat(rows), self.level_of(boxes)
        # Half-precision maps are raised to the boxes' precision: half a coordinate of 1,333 pixels is off by one.
        finest = maps["0"].to(regions.dtype)
        pooled = finest.new_zeros(len(regions), finest.shape[1], self.size, self.size)
        for level, stride in enumerate(self.strides):
            chosen = torch.where(levels == level)[0]
            each = maps[str(level)].to(regions.dtype)
            pooled[chosen] = roi_align(each, regions[chosen], self.size, 1 / stride, sampling_ratio=0, aligned=True)
        return pooled


def retinanet(body: DenseBiFormer, classes: int, channels: int, *_: int) -> RetinaNet:
    """RetinaNet as in mmdetection's 1× configuration: maps 2 to 4 of the backbone, P6 from C5, P7 from P6."""
    further = LastLevelP6P7(body.channels[-1], channels)
    further.use_P5 = False  # "on_input"; torchvision would take P5 where C5 is as wide as the pyramid
    sizes = tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in (32, 64, 128, 256, 512))
    return RetinaNet(
        Pyramid(body, 1, channels, further),
        classes,
        anchor_generator=AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        detections_per_img=100,  # torchvision's default is 300
    )


def mask_rcnn(body: DenseBiFormer, classes: int, channels: int, proposals: int, regions_per_picture: int) -> MaskRCNN:
    """Mask R-CNN as in mmdetection's 1× configuration: all four maps, and a subsampled one for proposals."""
    network = MaskRCNN(
        Pyramid(body, 0, channels, LastLevelMaxPool()),
        rpn_anchor_generator=AnchorGenerator(tuple((8 * s,) for s in (4, 8, 16, 32, 64)), (_RATIOS,) * 5),
        rpn_pre_nms_top_n_train=2 * proposals,
        rpn_pre_nms_top_n_test=proposals,
        rpn_post_nms_top_n_train=proposals,  # torchvision's default is 2000
        rpn_post_nms_top_n_test=proposals,
        box_batch_size_per_image=regions_per_picture,
        box_head=TwoMLPHead(channels * 7 * 7, 4 * channels),
        box_predictor=FastRCNNPredictor(4 * channels, classes + 1),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, dilation=1),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
    )
    network.roi_heads.box_roi_pool = AlignedRoIAlign(7)
    network.roi_heads.mask_roi_pool = AlignedRoIAlign(14)
    return network


def pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """A box's mask in its image, `(H, W)` of booleans, as mmdetection pastes it: sampled at pixel centres.

    Args:
        mask: `(28, 28)`, probabilities.
        box: `(4,)`, left, top, right, bottom in pixels.
        height, width: of the image.
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
    """A detector from a run's exported model folder, in evaluation mode, on CPU.

    Raises:
        UserError: no such folder, damaged, or another model's. The authors released no detectors.
    """
    found = locate(path)
    if found.is_file():
        raise UserError(
            f"{path}: is a file, expected a model folder that detection/train.py exported; the authors released no "
            "detectors, and ImageNet weights go to detection/train.py --weights"
        )
    return Detector.from_pretrained(found)


def check_size(size: tuple[int, int], detector: Detector, name: Any) -> None:
    """Refuse an image so narrow that nothing of it is left after resizing.

    Args:
        size: width and height in pixels.
        detector: that resizes it.
        name: of the image.

    Raises:
        UnreadablePicture: with its size.
    """
    transform: Any = detector.network.transform
    shrink = min(transform.min_size[-1] / min(size), transform.max_size / max(size))
    if min(size) * shrink < 1:
        raise UnreadablePicture(f"{name}: has {size[0]}x{size[1]} pixels, too narrow to be resized; cut it into pieces")
