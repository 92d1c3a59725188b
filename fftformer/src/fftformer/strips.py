"""FSAS and DFFN on a CPU in pieces that stay in the cache, and backward passes that recompute.

Their inner maps have six times the channels of the picture's features: at 256×256 one is 75 MB,
and an operation on it waits for memory, not for arithmetic. Here one or a few rows of patches,
and some of the inner channels, go through all steps at a time. Inner channels are independent
from the first 1×1 convolution to the last; rows are coupled by the 3×3 depth-wise convolution,
for which a sliding window carries two rows of pixels along. The backward pass stores nothing but
the input and computes the inner maps again, some channels of one picture at a time.

The numbers are those of `FSAS.channels_last` and `DFFN.channels_last` up to rounding. Both are
registered operators, which `torch.compile` keeps whole. Tensors are `(B, H, W, C)` in float32 or
float64, weights are matrices `(out, in)` and stencils `(C, 1, 3, 3)`. Patch maps are those of
`frequency`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fftformer.frequency import COSINES, LONELY, PATCH, analyse, from_patches, synthesise, to_patches

_PIECE = 192 * 1024
"""Numbers in an inner map of one piece (0.75 MB in float32): a few such maps fit the second-level caches."""
_FEWEST_PIXELS = 512
"""Pixels in a strip, at least: matrix products on fewer are slow."""


SMALL = {False: 8 * 2**20, True: 32 * 2**20}
"""Bytes of an inner map up to which the plain way is as fast, without and with gradients. With
gradients the plain way saves computing twice, but above 32 MiB the C library hands memory back to
the system after every operation, and fetching it again costs more than the arithmetic."""


def possible(x: Tensor) -> bool:
    """Whether this way exists for `x`: on a CPU, in single or double precision, no autocast, no export."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


def worthwhile(x: Tensor, channels: int) -> bool:
    """Whether this way is possible and faster for `x` `(B, H, W, C)` and maps of `channels` inside."""
    return possible(x) and x[..., 0].numel() * channels * x.element_size() > SMALL[torch.is_grad_enabled()]


@torch.library.custom_op("fftformer::feed_forward", mutates_args=())
def feed_forward(x: Tensor, w_in: Tensor, factors: Tensor, stencil: Tensor, w_out: Tensor) -> Tensor:
    """DFFN; `factors` `(64, 1, 2 · hidden)` are `frequency.filter_factors` of the learned matrix."""
    _, h, w, c = x.shape
    out = torch.empty(x.shape, dtype=x.dtype)
    strips = _strips(h, w)
    parts = [
        (_rows(w_in, 2, part), _rows(factors.squeeze(1).t(), 2, part).t().unsqueeze(1), _rows(stencil, 2, part), part)
        for part in _channel_parts(len(w_in) // 2, 2, strips[0][1] * w)
    ]
    for image, result in zip(x, out, strict=True):
        windows = [_Window(h, w, len(weight), x) for weight, *_ in parts]
        for top, bottom in strips:
            spectrum = analyse(to_patches(image[None, top:bottom])).flatten(0, 1)
            # The stencil completes one row less than has arrived, until the last strip.
            target = result[max(top - 1, 0) : bottom - (bottom < h)].view(-1, c)
            for (weight, factor, taps, part), window in zip(parts, windows, strict=True):
                inner = (spectrum @ weight.t()).view(PATCH * PATCH, -1, len(weight)).mul_(factor)
                _write(synthesise(inner), window.room(bottom - top))
                gate, value = _depthwise(window.rows(), taps).chunk(2, dim=-1)
                activation = F.gelu(gate).mul_(value).view(len(target), -1)
                target.addmm_(activation, w_out[:, part].t(), beta=int(part.start > 0))
    return out


@torch.library.custom_op("fftformer::feed_forward_backward", mutates_args=())
def _feed_forward_backward(  # noqa: PLR0917
    gradient: Tensor, x: Tensor, w_in: Tensor, factors: Tensor, stencil: Tensor, w_out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, h, w, c = x.shape
    gradients = [torch.zeros(t.shape, dtype=x.dtype) for t in (w_in, factors, stencil, w_out)]
    g_x, (g_in, g_factors, g_stencil, g_out) = torch.empty(x.shape, dtype=x.dtype), gradients
    hidden = len(w_in) // 2
    for i in range(b):
        spectrum = analyse(to_patches(x[i : i + 1])).flatten(0, 1)
        g_spectrum = torch.zeros_like(spectrum)
        g_result = gradient[i].reshape(-1, c)
        for part in _channel_parts(hidden, 2, h * w, _PIECE * 8):
            both = [part, slice(hidden + part.start, hidden + part.stop)]
            weight, taps = _rows(w_in, 2, part), _rows(stencil, 2, part)
            factor = _rows(factors.squeeze(1).t(), 2, part).t().unsqueeze(1)
            inner = (spectrum @ weight.t()).view(PATCH * PATCH, -1, len(weight))
            pixels = from_patches(synthesise(inner * factor), 1, h, w)
            rows = _padded(pixels)
            gate, value = _depthwise(rows, taps).view(h * w, -1).chunk(2, dim=-1)
            activation = F.gelu(gate)
            g_out[:, part] += g_result.t() @ (activation * value)
            g_activation = g_result @ w_out[:, part]
            g_maps = torch.cat(
                [torch.ops.aten.gelu_backward(g_activation * value, gate), g_activation.mul_(activation)], dim=-1
            ).view(h, w, -1)
            g_pixels, g_taps = _depthwise_backward(g_maps, rows, taps)
            g_inner = synthesise(to_patches(g_pixels[None]), transposed=True)
            g_factor = torch.einsum("pnc,pnc->pc", g_inner, inner)
            g_inner = g_inner.mul_(factor).flatten(0, 1)
            g_weight = g_inner.t() @ spectrum
            g_spectrum.addmm_(g_inner, weight)
            for half, place in enumerate(both):
                own = slice(half * len(weight) // 2, (half + 1) * len(weight) // 2)
                g_in[place] += g_weight[own]
                g_stencil[place] += g_taps[own]
                g_factors[:, 0, place] += g_factor[:, own]
        g_x[i : i + 1] = from_patches(analyse(g_spectrum.view(PATCH * PATCH, -1, c), transposed=True), 1, h, w)
    return g_x, g_in, g_factors, g_stencil, g_out


@torch.library.custom_op("fftformer::attention", mutates_args=())
def attention(  # noqa: PLR0917
    x: Tensor, w_in: Tensor, stencil: Tensor, norm_weight: Tensor, norm_bias: Tensor, w_out: Tensor, conjugate: bool
) -> Tensor:
    """FSAS."""
    _, h, w, c = x.shape
    width = 2 * c
    out = torch.empty(x.shape, dtype=x.dtype)
    strips = _strips(h, w)
    parts = [
        (_rows(w_in, 3, part), _rows(stencil, 3, part), part) for part in _channel_parts(width, 3, strips[0][1] * w)
    ]
    for image, result in zip(x, out, strict=True):
        windows = [_Window(h, w, len(weight), x) for weight, *_ in parts]
        arrived = 0
        for top, bottom in strips:
            until = min(bottom + 1, h)
            tokens = image[arrived:until].reshape(-1, c)
            attended = x.new_empty(PATCH * PATCH, (bottom - top) * w // PATCH**2, width)
            v = torch.empty_like(attended)
            for (weight, taps, part), window in zip(parts, windows, strict=True):
                torch.mm(tokens, weight.t(), out=window.room(until - arrived).view(len(tokens), -1))
                rows = _depthwise(window.rows(), taps)
                third = len(weight) // 3
                q, k = analyse(to_patches(rows[None, ..., : 2 * third])).chunk(2, dim=-1)
                attended[..., part] = synthesise(_product(q, k, conjugate))
                v[..., part] = to_patches(rows[None, ..., 2 * third :])
            arrived = until
            product = F.layer_norm(attended, (width,), norm_weight, norm_bias).mul_(v)
            _write(product @ w_out.t(), result[top:bottom])
    return out


@torch.library.custom_op("fftformer::attention_backward", mutates_args=())
def _attention_backward(  # noqa: PLR0917
    gradient: Tensor,
    x: Tensor,
    w_in: Tensor,
    stencil: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w_out: Tensor,
    conjugate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, h, w, c = x.shape
    width = 2 * c
    weights = (w_in, stencil, norm_weight, norm_bias, w_out)
    gradients = [torch.zeros(t.shape, dtype=x.dtype) for t in weights]
    g_x, (g_in, g_stencil, g_norm_weight, g_norm_bias, g_out) = torch.empty(x.shape, dtype=x.dtype), gradients
    parts = _channel_parts(width, 3, h * w, _PIECE * 8)
    for i in range(b):
        tokens = x[i].reshape(-1, c)
        attended = x.new_empty(PATCH * PATCH, h * w // PATCH**2, width)
        v = torch.empty_like(attended)
        kept = []
        for part in parts:
            weight = _rows(w_in, 3, part)
            hidden = _padded((tokens @ weight.t()).view(1, h, w, -1))
            rows = _depthwise(hidden, _rows(stencil, 3, part))
            third = len(weight) // 3
            q, k = analyse(to_patches(rows[None, ..., : 2 * third])).chunk(2, dim=-1)
            attended[..., part] = synthesise(_product(q, k, conjugate))
            v[..., part] = to_patches(rows[None, ..., 2 * third :])
            kept.append((hidden, q, k))
        normed, mean, scale = torch.native_layer_norm(attended, (width,), norm_weight, norm_bias, 1e-5)
        g_result = to_patches(gradient[i : i + 1]).flatten(0, 1)
        g_out += g_result.t() @ (normed * v).flatten(0, 1)
        g_product = (g_result @ w_out).view(attended.shape)
        g_v = normed.mul_(g_product)
        g_attended, g_weight, g_bias = torch.ops.aten.native_layer_norm_backward(
            g_product.mul_(v), attended, (width,), mean, scale, norm_weight, norm_bias, [True, True, True]
        )
        g_norm_weight += g_weight
        g_norm_bias += g_bias
        g_tokens = torch.zeros_like(tokens)
        for part, (hidden, q, k) in zip(parts, kept, strict=True):
            weight = _rows(w_in, 3, part)
            g = synthesise(g_attended[..., part].contiguous(), transposed=True)
            # For real pictures the transpose of "multiply by a spectrum" multiplies by its conjugate.
            g_q = _product(g, k, not conjugate)
            g_k = _product(q, g, True) if conjugate else _product(g, q, True)
            g_qkv = (analyse(g_q, transposed=True), analyse(g_k, transposed=True), g_v[..., part])
            g_maps = torch.cat([from_patches(t, 1, h, w) for t in g_qkv], dim=-1)
            g_hidden, g_taps = _depthwise_backward(g_maps[0], hidden, _rows(stencil, 3, part))
            g_hidden = g_hidden.reshape(h * w, -1)
            g_weight = g_hidden.t() @ tokens
            g_tokens.addmm_(g_hidden, weight)
            third = len(weight) // 3
            for j in range(3):
                place = slice(j * width + part.start, j * width + part.stop)
                g_in[place] += g_weight[j * third : (j + 1) * third]
                g_stencil[place] += g_taps[j * third : (j + 1) * third]
        g_x[i] = g_tokens.view(h, w, c)
    return g_x, g_in, g_stencil, g_norm_weight, g_norm_bias, g_out


def _setup_feed_forward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_feed_forward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
    return _feed_forward_backward(gradient.contiguous(), *ctx.saved_tensors)


def _setup_attention(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.conjugate = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_attention(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attention_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.conjugate), None)


feed_forward.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
attention.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
_feed_forward_backward.register_fake(lambda _, *inputs: tuple(torch.empty_like(t) for t in inputs))
_attention_backward.register_fake(lambda _, *inputs: tuple(torch.empty_like(t) for t in inputs[:-1]))
feed_forward.register_autograd(_differentiate_feed_forward, setup_context=_setup_feed_forward)
attention.register_autograd(_differentiate_attention, setup_context=_setup_attention)


def _strips(h: int, w: int) -> list[tuple[int, int]]:
    step = PATCH * max(1, _FEWEST_PIXELS // (PATCH * w))
    return [(top, min(top + step, h)) for top in range(0, h, step)]


def _channel_parts(count: int, groups: int, pixels: int, piece: int = _PIECE) -> list[slice]:
    """Cut `count` channels evenly, so that `groups` such parts of `pixels` pixels make one piece."""
    number = min(count, -(-count * groups * pixels // piece))
    bounds = [count * i // number for i in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _rows(weight: Tensor, groups: int, part: slice) -> Tensor:
    """The rows of one part of the channels from each of `groups` equal groups (q, k, v or gate, value)."""
    return torch.cat([group[part] for group in weight.chunk(groups)])


class _Window:
    """Rows of one map that arrive in order, handed on with the neighbours a 3×3 stencil needs."""

    def __init__(self, h: int, w: int, channels: int, like: Tensor) -> None:
        self._h, self._w, self._channels, self._like = h, w, channels, like
        self._arrived = self._start = self._stop = 0

    def room(self, rows: int) -> Tensor:
        """Memory `(rows, W, C)` for the caller to fill with the next rows."""
        if self._arrived == 0:
            self._buffer = self._like.new_empty(rows + 3, self._w, self._channels)
            self._buffer[1].zero_()
            self._start = 1
        else:
            self._buffer[:2] = self._buffer[self._stop - 2 : self._stop]
            self._start = 0
        self._arrived += rows
        self._stop = 2 + rows
        return self._buffer[2 : self._stop]

    def rows(self) -> Tensor:
        """All rows whose stencil is complete, with one more above and below; zeros outside the map."""
        if self._arrived == self._h:
            self._buffer[self._stop].zero_()
            return self._buffer[self._start : self._stop + 1]
        return self._buffer[self._start : self._stop]


def _write(patches: Tensor, rows: Tensor) -> None:
    """Put a patch map `(64, N, C)` into rows `(R, W, C)`."""
    h, w, c = rows.shape
    cut = rows.view(h // PATCH, PATCH, w // PATCH, PATCH, c).permute(1, 3, 0, 2, 4)
    cut.copy_(patches.view(cut.shape))


def _padded(pixels: Tensor) -> Tensor:
    """`(1, H, W, C)` → `(H + 2, W, C)` with a row of zeros above and below."""
    return F.pad(pixels[0], (0, 0, 0, 0, 1, 1))


def _depthwise(rows: Tensor, stencil: Tensor) -> Tensor:
    """3×3 depth-wise convolution `(R + 2, W, C)` → `(R, W, C)`, padded at the left and right only."""
    # The batch axis comes first: otherwise its stride hides from torch that this is channels-last.
    maps = rows.unsqueeze(0).permute(0, 3, 1, 2)
    return F.conv2d(maps, stencil, padding=(0, 1), groups=len(stencil)).permute(0, 2, 3, 1).squeeze(0)


def _depthwise_backward(gradient: Tensor, rows: Tensor, stencil: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_depthwise` for the rows inside the map `(R, W, C)` and for the stencil."""
    g_rows, g_stencil, _ = torch.ops.aten.convolution_backward(
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
        [True, True, False],
    )
    return g_rows.permute(0, 2, 3, 1)[0, 1:-1], g_stencil


def _product(a: Tensor, b: Tensor, conjugate: bool) -> Tensor:
    """`frequency.multiply` without temporaries."""
    sign = -1.0 if conjugate else 1.0
    out = a.new_empty(a.shape)
    torch.mul(a[:COSINES], b[:COSINES], out=out[:COSINES])
    out[LONELY:COSINES].addcmul_(a[COSINES:], b[COSINES:], value=-sign)
    torch.mul(a[COSINES:], b[LONELY:COSINES], out=out[COSINES:])
    out[COSINES:].addcmul_(a[LONELY:COSINES], b[COSINES:], value=sign)
    return out
