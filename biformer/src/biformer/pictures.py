"""Figures of predicted classes, and of the regions to which a query attends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from biformer.attention import BiLevelRoutingAttention
from biformer.augmentation import Transform
from biformer.data import Pictures, UnreadablePicture
from biformer.model import BiFormer
from common.figures import save

_QUERY, _DIM = "#ff3b30", 0.35


def routes_of(model: BiFormer, image: Tensor) -> list[Tensor]:
    """The routing tables of all bi-level routing attentions, in the order of depth.

    Args:
        model: in evaluation mode.
        image: `(1, 3, H, W)`, normalised, on the model's device.

    Returns:
        for each attention `(S², top_k)` region numbers, best first, on the CPU.
    """
    found: list[Tensor] = []
    attentions = [module for module in model.modules() if isinstance(module, BiLevelRoutingAttention)]

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, BiLevelRoutingAttention)
        found.append(module.choices(inputs[0])[0].cpu())

    handles = [attention.register_forward_pre_hook(note) for attention in attentions]
    try:
        with torch.inference_mode():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def region_box(region: int, num_regions: int, stride: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a region in pixels, cut at the border of the image.

    Args:
        region: number of the region, row by row.
        num_regions: S, regions along each side.
        stride: stride of the stage's map in pixels.
        height, width: of the image, in pixels.
    """
    tokens = [math.ceil(math.ceil(length / stride) / num_regions) for length in (height, width)]
    row, column = divmod(region, num_regions)
    top, left = row * tokens[0] * stride, column * tokens[1] * stride
    bottom, right = min(top + tokens[0] * stride, height), min(left + tokens[1] * stride, width)
    return left, top, max(right - left, 0), max(bottom - top, 0)


def routing_figure(
    model: BiFormer, images: Tensor, queries: Sequence[tuple[float, float]], names: Sequence[str]
) -> Figure:
    """One row for each image: the query, then the regions to which it attends in the last blocks of stages 1, 2 and 3.

    Regions to which the query attends are bright; the query's own region has a red border. Stage 4 attends to the whole
    map and is left out.

    Args:
        model: in evaluation mode.
        images: `(N, 3, H, W)`, normalised, on the model's device.
        queries: position of the query in each image, as shares of height and width in [0, 1).
        names: titles of the rows.
    """
    height, width = images.shape[-2:]
    routed = [[a for a in stage.attentions() if isinstance(a, BiLevelRoutingAttention)] for stage in model.each_stage()]
    routed = [attentions for attentions in routed if attentions]
    last = np.cumsum([len(attentions) for attentions in routed]) - 1
    figure = Figure(figsize=(2.6 * (len(routed) + 1), 2.75 * len(images) + 0.3), dpi=100, layout="constrained")
    axes = figure.subplots(len(images), len(routed) + 1, squeeze=False)
    for row, (image, query) in enumerate(zip(images, queries, strict=True)):
        picture = to_picture(image)
        routes = routes_of(model, image[None])
        axes[row, 0].imshow(picture)
        axes[row, 0].plot(query[1] * width, query[0] * height, "+", color=_QUERY, markersize=12, markeredgewidth=2)
        axes[row, 0].set_ylabel(names[row])
        for i, (attentions, index) in enumerate(zip(routed, last, strict=True)):
            attention = attentions[-1]
            side, stride = attention.num_regions, model.feature_info[i]["reduction"]
            own = region_at(query, side, stride, height, width)
            shown = picture * _DIM
            for region in routes[index][own].tolist():
                left, top, across, down = region_box(region, side, stride, height, width)
                shown[top : top + down, left : left + across] = picture[top : top + down, left : left + across]
            axis = axes[row, i + 1]
            axis.imshow(shown)
            left, top, across, down = region_box(own, side, stride, height, width)
            axis.add_patch(Rectangle((left - 0.5, top - 0.5), across, down, fill=False, edgecolor=_QUERY, linewidth=2))
            if row == 0:
                axis.set_title(f"stage {i + 1}: {attention.top_k} of {side * side} regions")
        axes[0, 0].set_title("query")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def region_at(query: tuple[float, float], num_regions: int, stride: int, height: int, width: int) -> int:
    """Number of the region that contains a position (shares of height and width); see `region_box`."""
    _, _, across, down = region_box(0, num_regions, stride, height, width)
    row, column = int(query[0] * height) // down, int(query[1] * width) // across
    return row * num_regions + column


def routing_sheet(
    model: BiFormer, pictures: Pictures, transform: Transform, device: torch.device, path: Path, *, rows: int = 4
) -> Path:
    """Write `routing_figure` for images of different classes, with the query a little above the middle."""
    images, labels = _spread(pictures, transform, rows)
    names = [pictures.classes[label] for label in labels]
    return save(routing_figure(model, images.to(device), [(0.45, 0.5)] * len(images), names), path)


def prediction_sheet(
    model: BiFormer, pictures: Pictures, transform: Transform, device: torch.device, path: Path, *, count: int = 24
) -> Path:
    """Write a figure of images with their predicted classes; correct ones are green."""
    images, labels = _spread(pictures, transform, count)
    with torch.inference_mode():
        probabilities = model(images.to(device)).float().softmax(dim=1).cpu()
    columns = min(8, len(images))
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.95 * lines), dpi=100, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label, row in zip(axes.flat, images, labels, probabilities, strict=False):
        found = int(row.argmax())
        axis.imshow(to_picture(image))
        right = found == label
        text = f"{pictures.classes[found]} {100 * row[found]:.0f} %"
        if not right:
            text += f"\n(is {pictures.classes[label]})"
        axis.set_title(text, fontsize=8, color="#1b7f3b" if right else "#b3261e")
    return save(figure, path)


def to_picture(image: Tensor) -> np.ndarray:
    """Reverse the normalisation: `(3, H, W)` → `(H, W, 3)` in [0, 1]."""
    mean, std = np.array(IMAGENET_DEFAULT_MEAN), np.array(IMAGENET_DEFAULT_STD)
    return (image.permute(1, 2, 0).cpu().numpy() * std + mean).clip(0, 1)


def _spread(pictures: Pictures, transform: Transform, count: int) -> tuple[Tensor, list[int]]:
    """Images and labels of up to `count` readable images, evenly spread over the split."""
    images, labels = [], []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        try:
            picture, label = pictures.read(index)
        except UnreadablePicture:
            continue
        images.append(transform(picture))
        labels.append(label)
    return torch.stack(images), labels
