"""Classify every pixel of a scene; overlapping windows share the tokenizer's convolutions.

Neighbouring windows contain the same pixels, but not the same tokens: the network pads each window with zeros, so a
token within two pixels of the window's border sees zeros where a token of a neighbouring window sees pixels. A token
therefore depends on its pixel and on whether it is in the first, second, last but one or last row of the window, or in
another row, and the same for columns: 25 kinds of token instead of 81 tokens per window. Each kind is a convolution
over the scene without the kernel elements that would be outside of the window. The results equal those of the network
on single windows, up to rounding; the tests compare them in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.weights import finite
from lsgavit.model import LSGAViT
from lsgavit.tokenizer import CHANNELS_3D
from lsgavit.windows import SceneWindows

# Kernel rows that lie inside the window for a 3-D convolution at its first, an inner, its last row.
_FIRST, _INNER, _LAST = 0, 1, 2
_TAPS = {_FIRST: (1, 2), _INNER: (0, 1, 2), _LAST: (0, 1)}
# The 2-D convolution, for a token in the first, second, an inner, last but one and last row: which
# kernel rows meet which rows of the 3-D convolution's output.
_KINDS: tuple[tuple[tuple[int, tuple[int, int]], ...], ...] = (
    ((_FIRST, (1, 2)), (_INNER, (2, 3))),
    ((_FIRST, (0, 1)), (_INNER, (1, 3))),
    ((_INNER, (0, 3)),),
    ((_INNER, (0, 2)), (_LAST, (2, 3))),
    ((_INNER, (0, 1)), (_LAST, (1, 2))),
)


@torch.inference_mode()
def predict_pixels(
    model: LSGAViT, windows: SceneWindows, pixels: np.ndarray | None = None, *, batch_size: int = 64, rows: int = 16
) -> Iterator[tuple[Tensor, Tensor]]:
    """Classify pixels of a scene in row order, strip by strip.

    Args:
        model: in evaluation mode; if the scene is on another device, it is moved strip by strip.
        pixels: flat indices, ascending; None: all pixels.
        batch_size: windows per forward pass; small ones stay in a CPU's cache.
        rows: height of a strip; its tokens need rows · W · 12 kB.

    Yields:
        flat pixel indices `(n,)` and their logits `(n, num_classes)`.

    Raises:
        UserError: the network returned values that are not finite.
    """
    assert not model.training, "the shared convolutions use the batch norms' running statistics"
    height, width = windows.shape
    wanted = torch.arange(len(windows)) if pixels is None else torch.as_tensor(pixels)
    device = model.head.weight.device
    shared = min(model.image_size) >= 5
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = torch.searchsorted(wanted, torch.tensor([top * width, bottom * width])).tolist()
        if first == last:
            continue
        strip = wanted[first:last].to(device)
        if shared:
            tokens, place, step = scene_tokens(model, windows, top, bottom)
        for batch in strip.split(batch_size):
            if shared:
                row, column = batch // width - top, batch % width
                inputs = tokens[place + row[:, None] * step + column[:, None]]
                logits = model.classify(inputs)
            else:
                logits = model(windows[batch].to(device))
            yield batch, finite(logits)


def scene_tokens(model: LSGAViT, windows: SceneWindows, top: int, bottom: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute all tokens of all windows around the pixels of rows `top` to `bottom`, each once.

    Returns:
        tokens `(M, C)`; and, for each of the N tokens of a window, `place` and `step` `(N,)`, so that
        the window around row top + r and column c has the tokens at place + r · step + c.
    """
    tokenizer = model.tokenizer
    (height, width), columns = windows.size, windows.shape[1]
    count = bottom - top
    strip = windows.padded[top : bottom + height - 1].to(model.head.weight.device).permute(2, 0, 1).contiguous()
    maps = _convolved_3d(model, strip)
    # For each kind: its first row (column) among a window's tokens, and its number of rows.
    spans = [[(0, 1), (1, 1), (2, side - 4), (side - 2, 1), (side - 1, 1)] for side in (height, width)]
    tables: list[Tensor] = []
    place = torch.empty(height, width, dtype=torch.long, device=strip.device)
    step = torch.empty_like(place)
    start = 0
    for vertical, (y, tall) in zip(_KINDS, spans[0], strict=True):
        for horizontal, (x, wide) in zip(_KINDS, spans[1], strict=True):
            shape = (count + tall - 1, columns + wide - 1)
            total = _convolved_2d(model, maps, vertical, horizontal, corner=(y, x), shape=shape)
            tables.append(tokenizer.norm(tokenizer.norm2d(total).relu_()[0].flatten(1).T))
            for i in range(tall):
                for j in range(wide):
                    place[y + i, x + j] = start + i * shape[1] + j
            step[y : y + tall, x : x + wide] = shape[1]
            start += len(tables[-1])
    return torch.cat(tables), place.flatten(), step.flatten()


def _convolved_3d(model: LSGAViT, strip: Tensor) -> dict[tuple[int, int], Tensor]:
    """`relu(BN(conv3d))` of the strip for every kind of row and column, each `(1, 4 · bands, h, w)`."""
    tokenizer = model.tokenizer
    kinds = [(u, v) for u in _TAPS for v in _TAPS]
    weight = tokenizer.conv3d.weight
    masked = weight.new_zeros(len(kinds), *weight.shape)
    for kernel, (u, v) in zip(masked, kinds, strict=True):
        for i in _TAPS[u]:
            for j in _TAPS[v]:
                kernel[..., i, j] = weight[..., i, j]
    bias = None if tokenizer.conv3d.bias is None else tokenizer.conv3d.bias.repeat(len(kinds))
    maps = F.conv3d(strip[None, None], masked.flatten(0, 1), bias, padding=1)
    maps = tokenizer.norm3d(maps.view(len(kinds), CHANNELS_3D, *maps.shape[2:])).relu_()
    return {kind: one[None].flatten(1, 2) for kind, one in zip(kinds, maps, strict=True)}


def _convolved_2d(
    model: LSGAViT,
    maps: dict[tuple[int, int], Tensor],
    vertical: Sequence[tuple[int, tuple[int, int]]],
    horizontal: Sequence[tuple[int, tuple[int, int]]],
    *,
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> Tensor:
    """The 2-D convolution for one kind of token, `(1, C, *shape)`, its first token at `corner` of the strip."""
    conv = model.tokenizer.conv2d
    total: Tensor | None = None
    for u, (i, i_end) in vertical:
        for v, (j, j_end) in horizontal:
            # Kernel row i meets the map one row above the token's for i = 0, and so on.
            y, x = corner[0] + i - 1, corner[1] + j - 1
            part = maps[u, v][:, :, y : y + shape[0] + i_end - i - 1, x : x + shape[1] + j_end - j - 1]
            weight = conv.weight[:, :, i:i_end, j:j_end]
            result = F.conv2d(part, weight, conv.bias if total is None else None)
            total = result if total is None else total.add_(result)
    assert total is not None
    return total
