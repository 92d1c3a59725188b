"""Prediction of the class of every pixel of an image of any size, as in mmsegmentation's whole-image test.

The image is resized. The logits are enlarged bilinearly, first to the size of the resized image and then to that of the
original image. With several views (scales, mirrored images) the mean of the class probabilities is taken. Here the
logits are enlarged in strips of rows, so that a large photograph with 150 classes needs little memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from biformer.segmentation.model import Segmenter

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the published multi-scale test, each also mirrored."""
LONG_SIDE = 4
"""Largest longer side of a resized image, as a multiple of the target of the shorter side; 2048 for 512."""
_STRIP_VALUES = 2**24  # logits of a strip


@dataclass(frozen=True)
class Protocol:
    """How images are resized for the network, and which views are averaged.

    Attributes:
        image_size: shorter side in pixels.
        size_divisor: the resized sides are stretched to multiples of this; 32 for the published Semantic FPN, 1 for
            UPerNet.
        scales: factors of `image_size`; there is one view for each factor.
        flip: add a mirrored view for each factor.
    """

    image_size: int = 512
    size_divisor: int = 1
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def describe(self) -> str:
        """Describe the protocol for the definition in result rows."""
        stretched = f", stretched to multiples of {self.size_divisor}" if self.size_divisor > 1 else ""
        views = "one view"
        if len(self.scales) > 1 or self.flip:
            views = f"mean class probability over scales {', '.join(f'{s:g}' for s in self.scales)}"
            views += ", mirrored too" if self.flip else ""
        return (
            f"whole image, shorter side {self.image_size} and longer at most {LONG_SIDE * self.image_size} pixels"
            f"{stretched}; {views}"
        )


def fitted(height: int, width: int, image_size: int, scale: float = 1.0) -> tuple[int, int]:
    """Size of the resized image; it keeps the aspect ratio, as mmcv's `imrescale`.

    Args:
        height, width: of the image, in pixels.
        image_size: target of the shorter side in pixels.
        scale: factor of the target.

    Returns:
        height and width: the shorter side at most `image_size`·scale, the longer at most 4 times that, each at least 1.
    """
    short, long = int(image_size * scale), int(LONG_SIDE * image_size * scale)
    factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def normalised(image: Tensor) -> Tensor:
    """Normalise `(..., 3, H, W)`, uint8 or floats in [0, 1], with ImageNet's mean and standard deviation."""
    if not image.is_floating_point():
        image = image.float() / 255
    return TF.normalize(image, list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize `(3, H, W)` uint8 bilinearly without antialiasing, as OpenCV in the release, to `(3, height, width)`."""
    return TF.resize(image, [height, width], InterpolationMode.BILINEAR, antialias=False)


@torch.inference_mode()
def predict_labels(model: Segmenter, image: Tensor, protocol: Protocol) -> Tensor:
    """Predict the most probable class of every pixel.

    Args:
        model: in evaluation mode.
        image: `(3, H, W)` uint8, on the model's device, of any size. A resized side below `model.least_size` is
            stretched to this size.
        protocol: sizes and views.

    Returns:
        `(H, W)` int64.
    """
    height, width = image.shape[-2:]
    views: list[tuple[Tensor, tuple[int, int]]] = []
    for scale in protocol.scales:
        size = fitted(height, width, protocol.image_size, scale)
        view = resized(image, *size)
        aligned = [-(-max(side, model.least_size) // protocol.size_divisor) * protocol.size_divisor for side in size]
        if tuple(aligned) != size:
            view = resized(view, *aligned)  # a second time, as the release's AlignResize
        x = normalised(view)[None]
        views.append((model(x)[0].float(), (aligned[0], aligned[1])))
        if protocol.flip:
            views.append((model(x.flip(-1))[0].float().flip(-1), (aligned[0], aligned[1])))
    labels = torch.empty(height, width, dtype=torch.int64, device=image.device)
    rows = max(1, _STRIP_VALUES // (model.num_classes * width))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        if len(views) == 1:
            scores = enlarged_rows(*views[0], (height, width), first, last)
        else:
            scores = summed_probabilities(views, (height, width), first, last)
        labels[first:last] = scores.argmax(dim=0)
    return labels


def summed_probabilities(
    views: list[tuple[Tensor, tuple[int, int]]], size: tuple[int, int], first: int, last: int
) -> Tensor:
    """Sum of the class probabilities over all views, for the rows [first, last): `(classes, last - first, W)`."""
    total = enlarged_rows(*views[0], size, first, last).softmax(dim=0)
    for logits, between in views[1:]:
        total += enlarged_rows(logits, between, size, first, last).softmax(dim=0)
    return total


def enlarged_rows(logits: Tensor, between: tuple[int, int], size: tuple[int, int], first: int, last: int) -> Tensor:
    """Rows [first, last) of logits that are enlarged bilinearly to `between` and then to `size`.

    Args:
        logits: `(classes, h, w)`.
        between: height and width of the resized image.
        size: height and width of the original image.
        first, last: the rows of the original image.

    Returns:
        `(classes, last - first, size[1])`, the same as two calls of `F.interpolate` up to rounding.
    """
    upper, lower, share = _sources(between[0], size[0], first, last, logits.device)
    start, end = int(upper[0]), int(lower[-1]) + 1
    x = _mixed(logits, *_sources(logits.shape[1], between[0], start, end, logits.device), between[1])
    return _mixed(x, upper - start, lower - start, share, size[1])


def _sources(rows: int, enlarged: int, first: int, last: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two input rows between which each output row lies, and its distance from the upper one."""
    centre = ((torch.arange(first, last, device=device) + 0.5) * (rows / enlarged) - 0.5).clamp(0, rows - 1)
    upper = centre.long()
    return upper, (upper + 1).clamp(max=rows - 1), (centre - upper)[:, None]


def _mixed(x: Tensor, upper: Tensor, lower: Tensor, share: Tensor, width: int) -> Tensor:
    """Interpolate between rows, then inside rows."""
    rows = torch.lerp(x[:, upper], x[:, lower], share.expand(-1, x.shape[-1]))
    return F.interpolate(rows[None], (len(upper), width), mode="bilinear", align_corners=False)[0]
