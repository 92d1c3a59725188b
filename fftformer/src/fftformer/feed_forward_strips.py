"""DFFN as one operator on a CPU, strip by strip (`strips` explains how), with its backward pass.

The numbers are those of `DFFN.channels_last` up to rounding. `torch.compile` keeps the operator whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fftformer.frequency import PATCH, constant, halves
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
)

_FEWEST = 8
"""Rows of patches in a band, at least: at a border each band computes one row of patches more."""


@torch.library.custom_op("fftformer::feed_forward", mutates_args=())
def feed_forward(x: Tensor, w_in: Tensor, factors: Tensor, stencil: Tensor, w_out: Tensor) -> Tensor:
    """DFFN; `factors` `(64, 1, 2 · hidden)` are `frequency.filter_factors` of the learned matrix."""
    out = torch.empty(x.shape, dtype=x.dtype)

    def work(band: Band) -> None:
        image, result = x[band.image], out[band.image]
        parts = _parts(band, image, (w_in, factors, stencil))
        done = band.top
        for top, bottom in band.strips(x.shape[2]):
            strip = _Strip.of(image, band, top, bottom)
            for part in parts:
                part.push_pixels(strip, border=1)
                gate, value = depthwise(part.pixels.rows(), part.stencil).chunk(2, dim=-1)
                # The stencil completes one row less than has arrived, until the last strip.
                target = result[done : done + len(gate)].view(-1, x.shape[-1])
                activation = F.gelu(gate).mul_(value).view(len(target), -1)
                target.addmm_(activation, w_out[:, part.hidden].t(), beta=int(part.hidden.start > 0))
            done += len(gate)

    in_bands(work, x, _FEWEST)
    return out


@torch.library.custom_op("fftformer::feed_forward_backward", mutates_args=())
def _feed_forward_backward(  # noqa: PLR0917
    gradient: Tensor, x: Tensor, w_in: Tensor, factors: Tensor, stencil: Tensor, w_out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g_x = torch.empty(x.shape, dtype=x.dtype)

    def work(band: Band) -> list[_Part]:
        """Write the band's rows of the input's gradient; return its parts with the other gradients."""
        image, g_result = x[band.image], gradient[band.image]
        parts = _parts(band, image, (w_in, factors, stencil))
        waiting: list[tuple[_Strip, list[Tensor]]] = []
        done = band.top - band.above
        for top, bottom in band.strips(x.shape[2]):
            strip = _Strip.of(image, band, top, bottom)
            inners = [part.push_pixels(strip, border=2) for part in parts]
            complete = len(parts[0].pixels.rows()) - 2
            for part in parts:
                part.push_gradients(g_result[done : done + complete], strip, w_out, own=band.within(done, complete))
            done += complete
            waiting.append((strip, inners))
            # The gradients of the pixels stay two rows behind, so the strip before this one is complete.
            while len(waiting) > (not strip.last):
                _finish(*waiting.pop(0), parts, g_x[band.image])
        return parts

    gradients = [torch.zeros(t.shape, dtype=x.dtype) for t in (w_in, factors, stencil, w_out)]
    for parts in in_bands(work, x, _FEWEST):
        for part in parts:
            part.add_to(*gradients)
    return g_x, *gradients


def _finish(strip: _Strip, inners: list[Tensor], parts: list[_Part], g_image: Tensor) -> None:
    """From the gradients of a strip's pixels to those of the input."""
    g_spectrum = torch.zeros_like(strip.spectrum)
    for part, inner in zip(parts, inners, strict=True):
        part.pull_gradients(strip, inner, g_spectrum)
    to_pixels(halves("analysis", g_spectrum, transposed=True), g_spectrum, cut(g_image[strip.top : strip.bottom]))


@dataclass(frozen=True)
class _Strip:
    """Rows of a band with their spectrum `(64 · N, C)`, and those of the patches beyond the band's borders."""

    top: int
    bottom: int
    first: bool
    last: bool
    spectrum: Tensor
    above: Tensor | None
    below: Tensor | None

    @classmethod
    def of(cls, image: Tensor, band: Band, top: int, bottom: int) -> _Strip:
        def spectrum(start: int, stop: int) -> Tensor:
            return to_coefficients(halves("analysis", image), cut(image[start:stop])).flatten(0, 1)

        first, last = top == band.top, bottom == band.bottom
        above = spectrum(top - PATCH, top) if first and band.above else None
        below = spectrum(bottom, bottom + PATCH) if last and band.below else None
        return cls(top, bottom, first, last, spectrum(top, bottom), above, below)


class _Part:
    """Some of the hidden channels, gates and values, on their way through a band."""

    def __init__(self, hidden: slice, band: Band, image: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> None:
        w_in, factors, stencil = weights
        self.hidden = hidden
        self.band = band
        self.weight = rows_of(w_in, 2, hidden)
        self.factor = rows_of(factors.squeeze(1).t(), 2, hidden).t().unsqueeze(1)
        self.stencil = rows_of(stencil, 2, hidden)
        self.pixels = Window(image.shape[1], len(self.weight), image)
        self._g_maps = Window(image.shape[1], len(self.weight), image)
        self._g_pixels = image.new_empty(0, image.shape[1], len(self.weight))
        self._g_weight = torch.zeros_like(self.weight)
        self._g_factor = torch.zeros_like(self.factor)
        self._g_stencil = torch.zeros_like(self.stencil)
        self._g_out = image.new_zeros(image.shape[-1], len(self.weight) // 2)

    def push_pixels(self, strip: _Strip, border: int) -> Tensor:
        """Fill the window with the strip's filtered pixels; return their spectrum before the filter `(64, N, C')`.

        At the band's ends come `border` rows of the neighbouring band or, outside the picture, a row of zeros.
        """
        before = (border if self.band.above else 1) * strip.first
        after = (border if self.band.below else 1) * strip.last
        room = self.pixels.room(before + strip.bottom - strip.top + after)
        if strip.first:
            self._fill_border(room[:before], strip.above, slice(-PATCH * border, None))
        if strip.last:
            self._fill_border(room[len(room) - after :], strip.below, slice(PATCH * border))
        inner = self._inner(strip.spectrum)
        to_pixels(halves("synthesis", inner), inner * self.factor, cut(room[before : len(room) - after]))
        return inner

    def _fill_border(self, room: Tensor, spectrum: Tensor | None, places: slice) -> None:
        if spectrum is None:
            room.zero_()
            return
        inner = self._inner(spectrum).mul_(self.factor)
        pixels = constant("synthesis", inner)[places] @ inner.flatten(1)
        room.view(len(room), -1, PATCH, len(self.weight)).copy_(
            pixels.view(len(room), PATCH, -1, len(self.weight)).transpose(1, 2)
        )

    def _inner(self, spectrum: Tensor) -> Tensor:
        return (spectrum @ self.weight.t()).view(PATCH * PATCH, -1, len(self.weight))

    def push_gradients(self, g_result: Tensor, strip: _Strip, w_out: Tensor, own: slice) -> None:
        """From the result's gradient, at the rows that the window completes, to that of the pixels.

        `own` are those of these rows that belong to the band; it alone adds them to the weights' gradients.
        """
        rows = self.pixels.rows()
        gate, value = depthwise(rows, self.stencil).chunk(2, dim=-1)
        activation = F.gelu(gate)
        self._g_out.addmm_(g_result[own].flatten(0, 1).t(), (activation * value)[own].flatten(0, 1))
        g_activation = g_result @ w_out[:, self.hidden]
        # Outside the picture the gradient is zero; the neighbouring band's rows are among these.
        before, after = int(strip.first and not self.band.above), int(strip.last and not self.band.below)
        room = self._g_maps.room(before + len(gate) + after)
        room[:before].zero_()
        room[len(room) - after :].zero_()
        g_maps, half = room[before : len(room) - after], gate.shape[-1]
        torch.mul(g_activation, activation, out=g_maps[..., half:])
        g_maps[..., :half] = torch.ops.aten.gelu_backward(g_activation.mul_(value), gate)
        self._g_stencil += stencil_gradient(g_maps[own], rows[own.start : own.stop + 2], self.stencil)
        g_pixels = depthwise(self._g_maps.rows(), self.stencil.flip(2, 3))
        self._g_pixels = torch.cat([self._g_pixels, g_pixels])

    def pull_gradients(self, strip: _Strip, inner: Tensor, g_spectrum: Tensor) -> None:
        """From the gradient of the strip's pixels to that of its spectrum, which it adds to `g_spectrum`."""
        size = strip.bottom - strip.top
        g_pixels, self._g_pixels = self._g_pixels[:size], self._g_pixels[size:]
        g_inner = to_coefficients(halves("synthesis", g_pixels, transposed=True), cut(g_pixels))
        self._g_factor += (g_inner * inner).sum(dim=1, keepdim=True)
        g_inner = g_inner.mul_(self.factor).flatten(0, 1)
        self._g_weight.addmm_(g_inner.t(), strip.spectrum)
        g_spectrum.addmm_(g_inner, self.weight)

    def add_to(self, g_in: Tensor, g_factors: Tensor, g_stencil: Tensor, g_out: Tensor) -> None:
        """Add the gradients of this part's weights to those of all."""
        g_out[:, self.hidden] += self._g_out
        for total, share in ((g_in, self._g_weight), (g_factors, self._g_factor), (g_stencil, self._g_stencil)):
            axis = total.ndim - 1 if total is g_factors else 0
            for group, own in zip(total.chunk(2, axis), share.chunk(2, axis), strict=True):
                group.narrow(axis, self.hidden.start, len(self.weight) // 2).add_(own)


def _parts(band: Band, image: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> list[_Part]:
    top, bottom = band.strips(image.shape[1])[0]
    slices = channel_parts(len(weights[0]) // 2, 2, (bottom - top) * image.shape[1])
    return [_Part(hidden, band, image, weights) for hidden in slices]


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
    return _feed_forward_backward(gradient.contiguous(), *ctx.saved_tensors)


feed_forward.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
_feed_forward_backward.register_fake(lambda _, *inputs: tuple(torch.empty_like(t) for t in inputs))
feed_forward.register_autograd(_differentiate, setup_context=_setup)
