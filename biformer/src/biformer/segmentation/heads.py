"""The two published heads: Semantic FPN and UPerNet, as mmsegmentation 0.x defines them.

The authors trained with mmsegmentation 0.30: its `FPN` neck with `FPNHead`, or its `UPerHead` with the auxiliary
`FCNHead`, with the authors' widths. Maintained libraries are used where they compute the same:

- UPerNet's decoder is from segmentation-models-pytorch. It equals `UPerHead` except for a LayerNorm before every map.
  BiFormer's backbone already applies such norms, so those of the decoder are removed. Dropout, classifier and
  auxiliary head are not part of the decoder and are written here.
- Semantic FPN's neck is torchvision's `FeaturePyramidNetwork`, which equals `FPN`. The head is written here, because
  segmentation-models-pytorch's `FPNDecoder` differs: GroupNorm instead of BatchNorm, no 3×3 convolutions after the
  lateral ones, interpolation with aligned corners, and only even sides.

Initial values are those of mmsegmentation. The release synchronises the BatchNorms of heads and backbone over the GPUs;
`segmentation/train.py` does the same if there are several GPUs.
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

    The four maps become a pyramid of 2·`width` channels. Each level is convolved and enlarged by 2 until it has the
    size of the finest level; the sum of all levels is classified.

    Args:
        channels: channels of the four maps, finest first.
        num_classes: number of classes.
        width: channels after the pyramid; 128 as published, with 256 in the pyramid.
        dropout: probability of dropping a whole channel before the classifier.

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
            # With odd sides, the enlarged level can have other sides than the finest map.
            x = x + F.interpolate(level, x.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(x)


class UPerNetHead(nn.Module):
    """UPerNet (Xiao et al., *Unified Perceptual Parsing for Scene Understanding*, 2018).

    Pyramid pooling of the coarsest map, a feature pyramid up to the finest map, and fusion of all levels.

    Args:
        channels: channels of the four maps, finest first.
        num_classes: number of classes.
        width: channels of every layer; 512 as published.
        dropout: probability of dropping a whole channel before the classifier.

    Shape:
        four maps at strides 4, 8, 16, 32 → logits `(B, num_classes, ⌈H / 4⌉, ⌈W / 4⌉)`. In training mode the batch
        must have at least two images, because the pooled 1×1 maps are normalised over the batch.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, width: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        with extra("fullpaper-biformer[segmentation]"):  # no other network needs it
            from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder  # noqa: PLC0415
        # The library also expects maps at strides 1 and 2, but does not use them.
        self.decoder = UPerNetDecoder([0, 0, *channels], encoder_depth=len(channels) + 1, decoder_channels=width)
        self.decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)
        self.classifier = _classifier(width, num_classes, dropout)
        _init_head(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits at a quarter of the image's sides."""
        nothing = maps[0].new_empty(0)
        return self.classifier(self.decoder([nothing, nothing, *maps]))


class AuxiliaryHead(nn.Module):
    """mmsegmentation's `FCNHead` with one convolution, on stage 3; its loss has weight 0.4 beside UPerNet's.

    Args:
        channels: channels of the map.
        num_classes: number of classes.
        width: channels of the convolution; 256 as published.
        dropout: probability of dropping a whole channel before the classifier.

    Shape:
        `(B, channels, h, w)` → logits `(B, num_classes, h, w)`.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = _conv_bn_relu(channels, width)
        self.classifier = _classifier(width, num_classes, dropout)
        _init_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the size of the map."""
        return self.classifier(self.conv(x))


def _conv_bn_relu(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _classifier(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))


def _init_head(head: nn.Module) -> None:
    """mmsegmentation's initial values: He's for convolutions, standard deviation 0.01 for the classifier, biases 0."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    classifier = head.get_submodule("classifier.1").weight
    assert isinstance(classifier, torch.Tensor)
    nn.init.normal_(classifier, std=0.01)
