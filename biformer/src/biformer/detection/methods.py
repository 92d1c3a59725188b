"""RetinaNet and Mask R-CNN on BiFormer, built from torchvision's parts.

The authors used mmdetection 2. The settings here are those of its 1× configurations; comments explain where the
defaults of torchvision differ. These differences are inside torchvision and remain:

| | mmdetection 2 | torchvision, here |
|---|---|---|
| box loss of RPN and Mask R-CNN | L1 | smooth L1 with beta 1/9 |
| RetinaNet's losses | sum over the batch / its positive anchors | mean over images of sum / positive anchors |
| RPN: best anchor of an object, if its IoU is below 0.3 | ignored | positive |
| anchors' corners | fractions of pixels | rounded to pixels |
| P7 of RetinaNet | convolution of P6 | convolution of ReLU(P6) |
| mask targets | RoIAlign with half-pixel alignment | RoIAlign without it |
| resizing | 8-bit images, rounded | tensors, not rounded |

The same are: the encoding of boxes (standard deviations 1 for anchors, 0.1 and 0.2 for regions), sampling,
non-maximum suppression per class at IoU 0.5, the score threshold 0.05, and 100 detections per image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

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

from biformer.dense import DenseBiFormer

_RATIOS = (0.5, 1.0, 2.0)


def retinanet(body: DenseBiFormer, classes: int, channels: int, *_: int) -> RetinaNet:
    """RetinaNet as in mmdetection's 1× configuration: maps 2 to 4 of the backbone, P6 from C5, P7 from P6.

    Args:
        body: the backbone.
        classes: number of classes.
        channels: channels of the pyramid and the heads.
    """
    further = LastLevelP6P7(body.channels[-1], channels)
    further.use_P5 = False  # mmdetection's "on_input"; torchvision uses P5 if C5 has as many channels as the pyramid
    sizes = tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in (32, 64, 128, 256, 512))
    return RetinaNet(
        Pyramid(body, 1, channels, further),
        classes,
        anchor_generator=AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        detections_per_img=100,  # torchvision's default is 300
    )


def mask_rcnn(body: DenseBiFormer, classes: int, channels: int, proposals: int, regions_per_picture: int) -> MaskRCNN:
    """Mask R-CNN as in mmdetection's 1× configuration: all four maps, and a subsampled one for proposals.

    Args:
        body: the backbone.
        classes: number of classes.
        channels, proposals, regions_per_picture: see `Detector`.
    """
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


class Pyramid(nn.Module):
    """Backbone and feature pyramid; `(B, 3, H, W)` → maps of equal width by name, finest first.

    Args:
        body: the backbone.
        first: number of the first map that is used; 0 for strides from 4, 1 for strides from 8.
        channels: channels of every output map.
        further: computes the coarser maps.
    """

    def __init__(self, body: DenseBiFormer, first: int, channels: int, further: ExtraFPNBlock) -> None:
        super().__init__()
        self.body, self.first, self.out_channels = body, first, channels
        self.fpn = FeaturePyramidNetwork(list(body.channels[first:]), channels, extra_blocks=further)
        # A norm whose output is not used gets no gradient, and DistributedDataParallel would wait for it. The authors
        # set find_unused_parameters instead.
        for norm in body.norms[:first]:
            norm.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images `(B, 3, H, W)` → maps `(B, channels, h, w)` by name, finest first."""
        maps = self.body(x)[self.first :]
        return self.fpn(OrderedDict((str(self.first + i), each) for i, each in enumerate(maps)))


class Resizing(GeneralizedRCNNTransform):
    """Resize, normalise and pad images to multiples of 32, and convert boxes back to the pixels of the image.

    Two differences from torchvision: masks keep their size of 28 × 28, because a hundred masks in the size of a large
    image need gigabytes (`model.pasted` enlarges one); and a batch is at least as large as the region grid.

    Args:
        short_side, long_side: see `Detector`.
        least_size: smallest side of a batch in pixels.
    """

    def __init__(self, short_side: int, long_side: int, *, least_size: int) -> None:
        super().__init__(short_side, long_side, list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
        self.least = -(-least_size // 32) * 32

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Images of different sizes → `(B, 3, H, W)`, padded with zeros at the right and the bottom."""
        batch = super().batch_images(images, size_divisible)
        height, width = batch.shape[-2:]
        return F.pad(batch, (0, max(0, self.least - width), 0, max(0, self.least - height)))

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Convert boxes in the resized images to boxes in the original images."""
        if not self.training:
            for found, resized, original in zip(result, image_shapes, original_image_sizes, strict=True):
                found["boxes"] = resize_boxes(found["boxes"], list(resized), list(original))
        return result


class AlignedRoIAlign(nn.Module):
    """RoIAlign from the pyramid level that fits the size of a box, as in mmdetection's `SingleRoIExtractor`.

    torchvision's `MultiScaleRoIAlign` samples 2 × 2 points per cell, with an offset of half a pixel. This one samples
    as many points as the cell has pixels, without the offset.

    Args:
        size: height and width of the output.
        strides: of the pyramid's levels, finest first.
    """

    def __init__(self, size: int, strides: Sequence[int] = DenseBiFormer.strides) -> None:
        super().__init__()
        self.size, self.strides = size, tuple(strides)
        self.level_of = LevelMapper(2, 1 + len(strides))  # a box of 224 pixels goes to stride 16

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Maps by name and the boxes of each image → `(all boxes, C, size, size)`; `sizes` is not used."""
        rows = [F.pad(each, (1, 0), value=float(number)) for number, each in enumerate(boxes)]
        regions, levels = torch.cat(rows), self.level_of(boxes)
        # Maps in half precision are converted to the precision of the boxes: in half precision, coordinates above
        # 1,024 pixels are rounded to whole pixels.
        finest = maps["0"].to(regions.dtype)
        pooled = finest.new_zeros(len(regions), finest.shape[1], self.size, self.size)
        for level, stride in enumerate(self.strides):
            chosen = torch.where(levels == level)[0]
            each = maps[str(level)].to(regions.dtype)
            pooled[chosen] = roi_align(each, regions[chosen], self.size, 1 / stride, sampling_ratio=0, aligned=True)
        return pooled
