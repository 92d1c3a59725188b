"""FSAS as one operator on a CPU, strip by strip (`strips` explains how), with its backward pass.

The numbers are those of `FSAS.channels_last` up to rounding. `torch.compile` keeps the operator whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fftformer.frequency import LONELY, PAIRS, PATCH, halves, to_patches
from fftformer.strips import (
    Band,
    Window,
    channel_parts,
    cut,
    depthwise,
    in_bands,
    rows_of,
    stencil_gradient,
    to_coefficients,
    to_pixels,
    write,
)

_FEWEST = {False: 2, True: 4}
"""Rows of patches in a band, at least, without and with gradients: at a border each band computes one
row of pixels more, in the backward pass one row of patches."""


@torch.library.custom_op("fftformer::attention", mutates_args=())
def attention(  # noqa: PLR0917
    x: Tensor, w_in: Tensor, stencil: Tensor, norm_weight: Tensor, norm_bias: Tensor, w_out: Tensor, conjugate: bool
) -> Tensor:
    """FSAS."""
    out = torch.empty(x.shape, dtype=x.dtype)

    def work(band: Band) -> None:
        image, result = x[band.image], out[band.image]
        strips = band.strips(x.shape[2])
        parts = _parts(image, strips, w_in, stencil)
        for top, bottom in strips:
            attended, v, _ = _attend(parts, image, top, bottom, conjugate)
            product = F.layer_norm(attended, (w_out.shape[1],), norm_weight, norm_bias).mul_(v)
            write(product @ w_out.t(), result[top:bottom])

    in_bands(work, x, _FEWEST[False])
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
    g_x = torch.empty(x.shape, dtype=x.dtype)
    width = w_out.shape[1]

    def work(band: Band) -> tuple[list[_Part], list[Tensor]]:
        """Write the band's rows of the input's gradient; return the gradients of the weights."""
        image, g_image = x[band.image], g_x[band.image]
        g_norm_weight, g_norm_bias, g_out = (torch.zeros_like(t) for t in (norm_weight, norm_bias, w_out))
        own = band.strips(x.shape[2])
        # The convolution needs a row of the neighbouring bands' gradients, and that a row of their patches.
        above, below = (band.top - PATCH, band.top), (band.bottom, band.bottom + PATCH)
        parts = _parts(image, own, w_in, stencil)
        done = band.top
        for top, bottom in [above] * band.above + own + [below] * band.below:
            attended, v, spectra = _attend(parts, image, top, bottom, conjugate)
            normed, mean, scale = torch.native_layer_norm(attended, (width,), norm_weight, norm_bias, 1e-5)
            g_result = to_patches(gradient[band.image, None, top:bottom]).flatten(0, 1)
            g_product = (g_result @ w_out).view(attended.shape)
            mine = band.top <= top < band.bottom
            if mine:
                g_out.addmm_(g_result.t(), (normed * v).flatten(0, 1))
            g_v = normed.mul_(g_product)
            g_attended, g_weight, g_bias = torch.ops.aten.native_layer_norm_backward(
                g_product.mul_(v), attended, (width,), mean, scale, norm_weight, norm_bias, [True, mine, mine]
            )
            if mine:
                g_norm_weight += g_weight
                g_norm_bias += g_bias
            for part, (q, k) in zip(parts, spectra, strict=True):
                g_maps = part.differentiate(q, k, g_attended, g_v, conjugate)
                if not mine:
                    g_maps = g_maps[-1:] if top < band.top else g_maps[:1]
                part.push_gradients(g_maps, mine=mine, zeros=(top == 0 and mine, bottom == band.height and mine))
            complete = parts[0].complete()
            for part in parts:
                part.pull_gradients(image[done : done + complete], g_image[done : done + complete])
            done += complete
        return parts, [g_norm_weight, g_norm_bias, g_out]

    gradients = [torch.zeros(t.shape, dtype=x.dtype) for t in (w_in, stencil, norm_weight, norm_bias, w_out)]
    for parts, others in in_bands(work, x, _FEWEST[True]):
        for part in parts:
            part.add_to(*gradients[:2])
        torch._foreach_add_(gradients[2:], others)
    return g_x, *gradients


def _attend(
    parts: list[_Part], image: Tensor, top: int, bottom: int, conjugate: bool
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """F⁻¹(F(q) · F(k)) and v of a strip's patches, all channels; and per part the spectra of q and k."""
    channels = parts[-1].channels.stop
    attended = image.new_empty(PATCH * PATCH, (bottom - top) * image.shape[1] // PATCH**2, channels)
    v = torch.empty_like(attended)
    spectra = []
    for part in parts:
        part.push(image, top, bottom)
        spectra.append(part.attend(attended, v, conjugate))
    return attended, v, spectra


class _Part:
    """Some of the inner channels, those of q, k and v, on their way through a band."""

    def __init__(self, channels: slice, image: Tensor, w_in: Tensor, stencil: Tensor) -> None:
        self.channels = channels
        self.weight = rows_of(w_in, 3, channels)
        self.stencil = rows_of(stencil, 3, channels)
        self.third = len(self.weight) // 3
        self._hidden = Window(image.shape[1], len(self.weight), image)
        self._arrived: int | None = None
        self._g_maps = Window(image.shape[1], len(self.weight), image)
        self._g_weight = torch.zeros_like(self.weight)
        self._g_stencil = torch.zeros_like(self.stencil)

    def push(self, image: Tensor, top: int, bottom: int) -> None:
        """Let the hidden rows arrive up to one below the strip; outside the picture they are zero."""
        start, stop = top - 1 if self._arrived is None else self._arrived, bottom + 1
        first, last = max(start, 0), min(stop, len(image))
        room = self._hidden.room(stop - start)
        room[: first - start].zero_()
        room[last - start :].zero_()
        inside = room[first - start : last - start].view(-1, len(self.weight))
        torch.mm(image[first:last].flatten(0, 1), self.weight.t(), out=inside)
        self._arrived = stop

    def attend(self, attended: Tensor, v: Tensor, conjugate: bool) -> tuple[Tensor, Tensor]:
        """Write this part's channels of F⁻¹(F(q) · F(k)) and of v; return both spectra."""
        patches = cut(depthwise(self._hidden.rows(), self.stencil))
        q, k = to_coefficients(halves("analysis", patches), patches[..., : 2 * self.third]).chunk(2, dim=-1)
        to_pixels(halves("synthesis", q), _product(q, k, conjugate), attended[..., self.channels])
        v[..., self.channels] = patches[..., 2 * self.third :].reshape(PATCH * PATCH, -1, self.third)
        return q, k

    def differentiate(self, q: Tensor, k: Tensor, g_attended: Tensor, g_v: Tensor, conjugate: bool) -> Tensor:
        """From the gradients of the attention and of v to that of the strip's maps q, k and v, `(R, W, C')`."""
        g = to_coefficients(halves("synthesis", q, transposed=True), g_attended[..., self.channels])
        # For real pictures the transpose of "multiply by a spectrum" multiplies by its conjugate.
        g_q = _product(g, k, not conjugate)
        g_k = _product(q, g, True) if conjugate else _product(g, q, True)
        hidden = self._hidden.rows()
        g_maps = hidden.new_empty(len(hidden) - 2, *hidden.shape[1:])
        for i, coefficients in enumerate((g_q, g_k)):
            patches = cut(g_maps[..., i * self.third : (i + 1) * self.third])
            to_pixels(halves("analysis", g, transposed=True), coefficients, patches)
        write(g_v[..., self.channels], g_maps[..., 2 * self.third :])
        return g_maps

    def push_gradients(self, g_maps: Tensor, *, mine: bool, zeros: tuple[bool, bool]) -> None:
        """Let rows of the maps' gradient arrive, with zeros where the picture begins and ends.

        Those that are the band's own (`mine`) count for the stencil's gradient.
        """
        if mine:
            self._g_stencil += stencil_gradient(g_maps, self._hidden.rows(), self.stencil)
        before, after = zeros
        room = self._g_maps.room(before + len(g_maps) + after)
        room[:before].zero_()
        room[len(room) - after :].zero_()
        room[before : len(room) - after] = g_maps

    def complete(self) -> int:
        """Rows of the maps' gradient that have both neighbours now."""
        return max(len(self._g_maps.rows()) - 2, 0)

    def pull_gradients(self, tokens: Tensor, g_tokens: Tensor) -> None:
        """From the completed rows to the gradient of the tokens `(R, W, C)`, which all parts add up in `g_tokens`."""
        if not len(tokens):
            return
        g_hidden = depthwise(self._g_maps.rows(), self.stencil.flip(2, 3)).flatten(0, 1)
        self._g_weight.addmm_(g_hidden.t(), tokens.flatten(0, 1))
        g_tokens.view(len(g_hidden), -1).addmm_(g_hidden, self.weight, beta=int(self.channels.start > 0))

    def add_to(self, g_in: Tensor, g_stencil: Tensor) -> None:
        """Add the gradients of this part's weights to those of all."""
        for total, share in ((g_in, self._g_weight), (g_stencil, self._g_stencil)):
            for group, own in zip(total.chunk(3), share.chunk(3), strict=True):
                group[self.channels] += own


def _parts(image: Tensor, strips: list[tuple[int, int]], w_in: Tensor, stencil: Tensor) -> list[_Part]:
    top, bottom = strips[0]
    slices = channel_parts(len(w_in) // 3, 3, (bottom - top) * image.shape[1])
    return [_Part(channels, image, w_in, stencil) for channels in slices]


def _product(a: Tensor, b: Tensor, conjugate: bool) -> Tensor:
    """`frequency.multiply` without temporaries."""
    sign = -1.0 if conjugate else 1.0
    out = a.new_empty(a.shape)
    torch.mul(a[LONELY], b[LONELY], out=out[LONELY])
    for cosines, sines in PAIRS:
        torch.mul(a[cosines], b[cosines], out=out[cosines]).addcmul_(a[sines], b[sines], value=-sign)
        torch.mul(a[sines], b[cosines], out=out[sines]).addcmul_(a[cosines], b[sines], value=sign)
    return out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.conjugate = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attention_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.conjugate), None)


attention.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
_attention_backward.register_fake(lambda _, *inputs: tuple(torch.empty_like(t) for t in inputs[:-1]))
attention.register_autograd(_differentiate, setup_context=_setup)
