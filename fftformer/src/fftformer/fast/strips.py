"""Functions that the operators of FSAS and DFFN share; on a CPU both work on pieces that fit into the cache.

The inner maps of both have six times the channels of the image's features. At 256×256 one inner map needs 75 MB, and
an operation on it waits for memory, not for arithmetic. `fast.feed_forward` and `fast.attention` therefore compute all
steps for a strip (one or a few rows of patches) and a part (some of the inner channels) before they begin the next.
Inner channels do not depend on each other between the first and the last 1×1 convolution. Rows do, because of the 3×3
depth-wise convolution; a `Window` keeps the two rows of pixels that it needs. Backward passes store only the input and
compute the inner maps again, in the same strips.

Tensors are `(B, H, W, C)` in float32 or float64, weights are matrices `(out, in)` and stencils
`(C, 1, 3, 3)`. Patch maps are those of `frequency`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.networks.linear import linear
from fftformer.frequency import PATCH, QUARTER

_PIECE = 768 * 1024
"""Numbers in the inner map of one piece (3 MB in float32). Fewer make the products narrow; more exceed the caches."""
_FEWEST_PIXELS = 512
"""Smallest number of pixels in a strip; matrix products with fewer are slow."""

SMALL = {False: 8 * 2**20, True: 16 * 2**20}
"""Size in bytes up to which inner maps are not cut, without and with gradients: uncut ones are computed only once."""


def possible(x: Tensor) -> bool:
    """Return whether strips can be used for `x`: on a CPU, in float32 or float64, without autocast, export or trace."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
    )


def worthwhile(x: Tensor, channels: int) -> bool:
    """Return whether strips can be used and are faster for `x` `(B, H, W, C)` and inner maps of `channels` channels."""
    return possible(x) and x[..., 0].numel() * channels * x.element_size() > SMALL[torch.is_grad_enabled()]


def cut_rows(h: int, w: int) -> list[tuple[int, int]]:
    """Return the strips of an image of `h` × `w` pixels: the first row of each and the row after its last."""
    step = PATCH * max(1, _FEWEST_PIXELS // (PATCH * w))
    return [(top, min(top + step, h)) for top in range(0, h, step)]


def channel_parts(count: int, groups: int, pixels: int) -> list[slice]:
    """Cut `count` channels into equal parts, so that `groups` such parts with `pixels` pixels make one piece."""
    number = min(count, -(-count * groups * pixels // _PIECE))
    bounds = [count * i // number for i in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def rows_of(weight: Tensor, groups: int, part: slice) -> Tensor:
    """Return the rows of one part of the channels from each of `groups` equal groups (q, k, v or gate, value)."""
    return torch.cat([group[part] for group in weight.chunk(groups)])


class Window:
    """The latest rows `(W, C)` of a map that is computed from top to bottom, with the neighbours for a 3×3 stencil."""

    def __init__(self, w: int, channels: int, like: Tensor) -> None:
        self.width = w
        self._rows = like.new_empty(0, w, channels)

    def room(self, rows: int, *, first: bool, last: bool) -> Tensor:
        """Return memory `(rows, W, C)` into which the caller writes the next rows.

        A row of zeros is added before the first and after the last row of the image.
        """
        carried = self._rows[-2:]
        start = len(carried) + first
        self._rows = carried.new_empty(start + rows + last, *carried.shape[1:])
        self._rows[: len(carried)] = carried
        self._rows[len(carried) : start] = 0
        self._rows[start + rows :] = 0
        return self._rows[start : start + rows]

    def rows(self) -> Tensor:
        """Return the newest rows and two before them: all but the first and the last row now have both neighbours."""
        return self._rows


def cut(rows: Tensor) -> Tensor:
    """View rows `(R, W, C)` of whole patches as `(8, 8, R/8, W/8, C)`: first the position inside the patch."""
    h, w, c = rows.shape
    return rows.view(h // PATCH, PATCH, w // PATCH, PATCH, c).permute(1, 3, 0, 2, 4)


def write(patches: Tensor, rows: Tensor) -> None:
    """Write a patch map `(64, N, C)` into rows `(R, W, C)`."""
    places = cut(rows)
    places.copy_(patches.view(places.shape))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.T` on the last axis, without a gradient: the operators have backward passes of their own."""
    with torch.no_grad():
        return linear(x, weight)


def to_coefficients(matrices: Tensor, patches: Tensor) -> Tensor:
    """Transform patches with the quarters of a matrix (`frequency.quarter_matrices`), in a quarter of the operations.

    Args:
        matrices: `(4, 16, 16)`.
        patches: a patch map `(64, N, C)`, or rows that were `cut`.

    Returns:
        coefficients `(64, N, C)`.
    """
    upper, lower = _places(patches).chunk(2)
    rows = upper.new_empty(2, *upper.shape)
    torch.add(upper, lower, out=rows[0])
    torch.sub(upper, lower, out=rows[1])
    left, right = rows.chunk(2, dim=2)
    quarters = left.new_empty(2, 2, *left.shape[1:])  # even and odd u, even and odd v
    torch.add(left, right, out=quarters[:, 0])
    torch.sub(left, right, out=quarters[:, 1])
    return torch.bmm(matrices, quarters.view(4, QUARTER, -1)).view(PATCH * PATCH, -1, patches.shape[-1])


def to_pixels(matrices: Tensor, coefficients: Tensor, patches: Tensor) -> None:
    """Write the pixels of coefficients `(64, N, C)` to `patches`: `(64, N, C)`, or rows that were `cut`."""
    upper, lower = _places(patches).chunk(2)
    quarters = torch.bmm(matrices, coefficients.reshape(4, QUARTER, -1))
    quarters = quarters.view(2, 2, PATCH // 2, PATCH // 2, *upper.shape[2:])
    rows = quarters.new_empty(2, *upper.shape)
    left, right = rows.chunk(2, dim=2)
    torch.add(quarters[:, 0], quarters[:, 1], out=left)
    torch.sub(quarters[:, 0], quarters[:, 1], out=right)
    torch.add(rows[0], rows[1], out=upper)
    torch.sub(rows[0], rows[1], out=lower)


def _places(patches: Tensor) -> Tensor:
    return patches.unflatten(0, (PATCH, PATCH)) if patches.ndim == 3 else patches


def layer_norm(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the LayerNorm of rows over channels, its means and inverse deviations; without weights, only the rows."""
    if weight is None:
        return rows, rows, rows
    return torch.native_layer_norm(rows, (len(weight),), weight, bias, 1e-5)


class NormGradient:
    """Gradients of `x + f(layer_norm(x))` with respect to the weights of the norm and to x."""

    def __init__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        self._weights = weight, bias
        self.weight, self.bias = x.new_zeros(x.shape[-1]), x.new_zeros(x.shape[-1])

    def through(self, g_rows: Tensor, rows: Tensor, moments: tuple[Tensor, Tensor], g_result: Tensor) -> None:
        """Turn the gradient `g_rows` of the normalised rows into that of the rows themselves, in place."""
        weight, bias = self._weights
        if weight is None:
            return
        gradients = torch.ops.aten.native_layer_norm_backward(
            g_rows, rows, (len(weight),), *moments, weight, bias, [True, True, True]
        )
        torch.add(gradients[0], g_result, out=g_rows)
        self.weight += gradients[1]
        self.bias += gradients[2]


def like_gradients(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, *weights: Any
) -> tuple[Tensor, ...]:
    """Return tensors with the shapes of a backward pass's results."""
    of_norm = [x.new_empty(x.shape[-1]) if t is None else torch.empty_like(t) for t in (norm_weight, norm_bias)]
    return torch.empty_like(x), *of_norm, *(torch.empty_like(t) for t in weights if isinstance(t, Tensor))


def depthwise(rows: Tensor, stencil: Tensor) -> Tensor:
    """Return the 3×3 depth-wise convolution `(R + 2, W, C)` → `(R, W, C)`, padded only on the left and right."""
    # The batch axis comes first: otherwise its stride hides from torch that this is channels-last.
    maps = rows.unsqueeze(0).permute(0, 3, 1, 2)
    return F.conv2d(maps, stencil, padding=(0, 1), groups=len(stencil)).permute(0, 2, 3, 1).squeeze(0)


def stencil_gradient(gradient: Tensor, rows: Tensor, stencil: Tensor) -> Tensor:
    """Return the stencil's gradient from that of `depthwise(rows, stencil)` `(R, W, C)`.

    The gradient of the rows is `depthwise` of the gradient with the stencil rotated by 180 degrees.
    """
    _, g_stencil, _ = torch.ops.aten.convolution_backward(
        gradient.unsqueeze(0).permute(0, 3, 1, 2),
        rows.unsqueeze(0).permute(0, 3, 1, 2),
        stencil,
        None,
        [1, 1],
        [0, 1],
        [1, 1],
        False,
        [0, 0],
        len(stencil),
        [False, True, False],
    )
    return g_stencil
