"""The two published heads: Semantic FPN and UPerNet, as mmsegmentation 0.x defines them.

The authors trained with mmsegmentation 0.30. What stands here are its `FPN` neck with `FPNHead`, and its
`UPerHead` with the auxiliary `FCNHead`, with the authors' widths. Maintained libraries give what matches:

- UPerNet's decoder is segmentation-models-pytorch's. It is mmseg's `UPerHead` but for a LayerNorm that
  it puts before every map; these are BiFormer's own extra norms, which the backbone brings, so they are
  taken out. Dropout, classifier and the auxiliary head are not in it and stand here.
- Semantic FPN's neck is torchvision's `FeaturePyramidNetwork`, which is mmseg's `FPN`. The head is written
  out: segmentation-models-pytorch's `FPNDecoder` normalises groups instead of batches, has no 3×3
  convolutions after the laterals, aligns corners when it enlarges, and needs sides that halve evenly.

Initial values are mmseg's, not torch's. In the release the BatchNorms of heads (and backbone) are
synchronised over the GPUs; `segmentation/train.py` does so too where there are several.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from common.errors import extra


class SemanticFPNHead(nn.Module):
    """Semantic FPN (Kirillov et al., *Panoptic Feature Pyramid Networks*, 2019).

    The four maps become a pyramid of 2·`width` channels; each level is convolved and enlarged by 2 until
    it has the size of the finest; their sum is classified.

    Args:
        channels: of the four maps, finest first.
        num_classes: of the logits.
        width: channels after the pyramid; 128 as published, with 256 in the pyramid.
        dropout: of whole channels before the classifier.

    Shape:
        four maps at strides 4, 8, 16, 32 → logits `(B, num_classes, ⌈H / 4⌉, ⌈W / 4⌉)`.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork(list(channels), 2 * width)
        self.levels = nn.ModuleList()
        for level in range(len(channels)):
            layers: list[nn.Module] = []
            for i in range(max(1, level)):
                layers.append(_conv_bn_relu(2 * width if i == 0 else width, width))
                if level:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.levels.append(nn.Sequential(*layers))
        self.classifier = _classifier(width, num_classes, dropout)
        _init_head(self)
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits at a quarter of the image's sides."""
        pyramid = self.neck(OrderedDict((str(i), each) for i, each in enumerate(maps)))
        x = self.levels[0](pyramid["0"])
        for i in range(1, len(maps)):
            level = self.levels[i](pyramid[str(i)])
            # Odd sides: twice as many rows need not be the finest map's.
            x = x + F.interpolate(level, x.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(x)


class UPerNetHead(nn.Module):
    """UPerNet (Xiao et al., *Unified Perceptual Parsing for Scene Understanding*, 2018).

    Pyramid pooling of the coarsest map, a feature pyramid down to the finest, all levels fused.

    Args:
        channels: of the four maps, finest first.
        num_classes: of the logits.
        width: channels of every layer; 512 as published.
        dropout: of whole channels before the classifier.

    Shape:
        four maps at strides 4, 8, 16, 32 → logits `(B, num_classes, ⌈H / 4⌉, ⌈W / 4⌉)`. In training mode the
        pooled 1×1 maps are normalised over the batch, which must hold two images or more.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, width: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        with extra("fullpaper-biformer[segmentation]"):  # no other network needs it
            from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder  # noqa: PLC0415
        # The library counts maps at strides 1 and 2 too, and does not look at them.
        self.decoder = UPerNetDecoder([0, 0, *channels], encoder_depth=len(channels) + 1, decoder_channels=width)
        self.decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)
        self.classifier = _classifier(width, num_classes, dropout)
        _init_head(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits at a quarter of the image's sides."""
        nothing = maps[0].new_empty(0)
        return self.classifier(self.decoder([nothing, nothing, *maps]))


class AuxiliaryHead(nn.Module):
    """mmseg's `FCNHead` with one convolution, on stage 3; its loss is added to UPerNet's with weight 0.4.

    Args:
        channels: of the map.
        num_classes: of the logits.
        width: 256 as published.
        dropout: of whole channels before the classifier.

    Shape:
        `(B, channels, h, w)` → logits `(B, num_classes, h, w)`.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = _conv_bn_relu(channels, width)
        self.classifier = _classifier(width, num_classes, dropout)
        _init_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the map's size."""
        return self.classifier(self.conv(x))


def _conv_bn_relu(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _classifier(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))


def _init_head(head: nn.Module) -> None:
    """mmseg's initial values: He's for convolutions, standard deviation 0.01 for the classifier, biases 0."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    classifier = head.get_submodule("classifier.1").weight
    assert isinstance(classifier, torch.Tensor)
    nn.init.normal_(classifier, std=0.01)
