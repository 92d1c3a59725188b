"""Classify scenes whose feature maps do not fit in memory, in overlapping strips of rows.

The graph branch is computed on the whole scene's nodes, which are few. The convolution branch is computed twice on
strips of rows, with a halo of `HALO` rows on both sides, the size of its receptive field: three levels of 1 (average)
+ 3 (largest kernel), then 2 (pixel attention). The first pass computes CAFM's averages and maxima over all pixels, the
second the products that it needs. The softmax over pixels is that of the whole scene. The result equals that of one
forward pass, up to rounding, and needs twice the time of the convolution branch.

This is possible in evaluation mode only. Training in strips would change the statistics of the BatchNorms, so training
processes the whole scene at once; it needs about 7 kB of memory per pixel in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from amgcfn.convolution import KERNELS, ConvolutionLevel
from amgcfn.fast.head import channel_mixing, classify, thin_matrix
from amgcfn.graph import SuperpixelGraph
from amgcfn.model import AMGCFN, LEVELS

HALO = LEVELS * (1 + max(KERNELS) // 2) + 2


@torch.inference_mode()
def classify_scene(
    model: AMGCFN,
    cube: np.ndarray,
    graph: SuperpixelGraph,
    *,
    rows: int | None = None,
    extent: tuple[slice, slice] | None = None,
) -> tuple[Tensor, ...]:
    """Classify a scene of any size.

    Args:
        model: in evaluation mode.
        cube: `(H, W, bands)`, raw values of any type; converted strip by strip, so it may be a memory map.
        rows: rows of a strip, without its halo; None: the whole scene at once, as always for networks of ablations.
        extent: rows and columns of the rectangle with data; only this is classified.

    Returns:
        logits `(H·W, K)` on the CPU: fused, convolution, graph; NaN outside of the extent.

    Raises:
        ValueError: the model is in training mode, or a strip has no row.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    if extent is not None:
        inner = classify_scene(model, cube[extent], replace(graph, segments=graph.segments[extent]), rows=rows)
        shape = (*cube.shape[:2], inner[0].shape[1])
        whole = [torch.full(shape, torch.nan) for _ in inner]
        for part, logits in zip(whole, inner, strict=True):
            part[extent] = logits.view(part[extent].shape)
        return tuple(part.flatten(0, 1) for part in whole)
    device = next(model.parameters()).device
    features, segments, hops = graph.tensors(device)
    if rows is None or rows >= len(cube) or not model.whole:
        return tuple(part.cpu() for part in model(_tensor(cube, device), features, segments, hops))
    if rows < 1:
        raise ValueError(f"a strip needs at least 1 row, got {rows}")
    nodes = model.graph_branch(features, hops)
    total, maximum = torch.zeros_like(nodes[0]), torch.full_like(nodes[0], -torch.inf)
    for _, part in _attended_strips(model, cube, rows, device):
        total += part.sum(dim=0)
        maximum = torch.maximum(maximum, part.amax(dim=0))
    conv_mixing, node_mixing = channel_mixing(model, total / segments.numel(), maximum, nodes, segments)
    thin = thin_matrix(model, conv_mixing)
    products, peak = nodes.new_empty(segments.numel(), thin.shape[1]), nodes.new_empty(segments.numel())
    for pixels, part in _attended_strips(model, cube, rows, device):
        products[pixels] = part @ thin
        peak[pixels] = (part @ conv_mixing.T).amax(dim=1)
    fused, conv, graph_logits = classify(
        model, products, peak, mixed_nodes=nodes @ node_mixing.T, nodes=nodes, segments=segments
    )
    return fused.cpu(), conv.cpu(), graph_logits.cpu()


def rows_for_memory(model: AMGCFN, width: int, budget: float) -> int:
    """Return the rows of a strip whose maps need about `budget` bytes, at least 1."""
    values = model.bands + 10 * model.conv_classifier.in_features  # cube, and the maps of the last level
    return max(1, int(budget / (4 * values * width)) - 2 * HALO)


def _attended_strips(
    model: AMGCFN, cube: np.ndarray, rows: int, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Yield flat pixel ranges with their attended convolution map, `(pixels, 192)`."""
    height, width, _ = cube.shape
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(top - HALO, 0), min(bottom + HALO, height)
        x = _tensor(cube[above:below], device)
        for level in model.levels:
            x = cast(ConvolutionLevel, level)(x)
        x = model.pixel_attention(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        yield slice(top * width, bottom * width), x[top - above : bottom - above].reshape((bottom - top) * width, -1)


def _tensor(cube: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(cube, dtype=np.float32)).to(device)
