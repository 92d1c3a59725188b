"""DFFN as one operator on a CPU, strip by strip (see `strips`), with its backward pass.

The results are those of `DFFN.channels_last` up to rounding. `torch.compile` keeps the operator whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fftformer.fast.strips import (
    NormGradient,
    Window,
    channel_parts,
    cut,
    cut_rows,
    depthwise,
    layer_norm,
    like_gradients,
    product,
    rows_of,
    stencil_gradient,
    to_coefficients,
    to_pixels,
)
from fftformer.frequency import PATCH, quarter_matrices


@torch.library.custom_op("fftformer::feed_forward", mutates_args=())
def feed_forward(  # noqa: PLR0917
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_in: Tensor,
    factors: Tensor,
    stencil: Tensor,
    w_out: Tensor,
) -> Tensor:
    """DFFN, or with a norm `x + DFFN(norm(x))`; `factors` `(64, 1, 2 · hidden)` are `frequency.filter_factors`."""
    out = torch.empty(x.shape, dtype=x.dtype)
    for image, result in zip(x, out, strict=True):
        strips = cut_rows(*image.shape[:2])
        parts = _parts(image, strips, w_in, factors, stencil)
        done = 0
        for top, bottom in strips:
            first, last = top == 0, bottom == len(image)
            rows, _, _ = layer_norm(image[top:bottom], norm_weight, norm_bias)
            spectrum = to_coefficients(quarter_matrices("analysis", rows), cut(rows)).flatten(0, 1)
            # The stencil completes one row less than has arrived, until the last strip.
            complete = slice(done, bottom - (not last))
            target = result[complete].view(-1, x.shape[-1])
            if norm_weight is not None:
                result[complete] = image[complete]
            for part in parts:
                part.push_pixels(part.inner(spectrum).mul_(part.factor), first=first, last=last)
                gate, value = part.gate_and_value()
                share = product(F.gelu(gate).mul_(value).view(len(target), -1), w_out[:, part.hidden])
                start = norm_weight is None and part.hidden.start == 0
                target.copy_(share) if start else target.add_(share)
            done = complete.stop
    return out


@torch.library.custom_op("fftformer::feed_forward_backward", mutates_args=())
def _feed_forward_backward(  # noqa: PLR0917
    gradient: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_in: Tensor,
    factors: Tensor,
    stencil: Tensor,
    w_out: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = (w_in, factors, stencil, w_out)
    g_x, g_norm = torch.empty(x.shape, dtype=x.dtype), NormGradient(x, norm_weight, norm_bias)
    g_in, g_factors, g_stencil, g_out = (torch.zeros(t.shape, dtype=x.dtype) for t in weights)
    for image, g_result, g_image in zip(x, gradient, g_x, strict=True):
        strips = cut_rows(*image.shape[:2])
        parts = _parts(image, strips, w_in, factors, stencil)
        waiting: list[tuple[slice, tuple[Tensor, Tensor], Tensor, list[Tensor]]] = []
        done = 0
        for top, bottom in strips:
            first, last = top == 0, bottom == len(image)
            rows, *moments = layer_norm(image[top:bottom], norm_weight, norm_bias)
            spectrum = to_coefficients(quarter_matrices("analysis", rows), cut(rows)).flatten(0, 1)
            complete = slice(done, bottom - (not last))
            inners = []
            for part in parts:
                inners.append(part.inner(spectrum))
                part.push_pixels(inners[-1] * part.factor, first=first, last=last)
                part.push_gradients(g_result[complete], w_out, first=first, last=last)
            done = complete.stop
            waiting.append((slice(top, bottom), (moments[0], moments[1]), spectrum, inners))
            # The gradients of the pixels stay two rows behind, so the strip before this one is complete.
            while len(waiting) > (not last):
                strip, statistics, spectrum, inners = waiting.pop(0)
                g_spectrum = torch.zeros_like(spectrum)
                for part, inner in zip(parts, inners, strict=True):
                    part.pull_gradients(strip.stop - strip.start, spectrum, inner, g_spectrum)
                to_pixels(quarter_matrices("analysis", image, transposed=True), g_spectrum, cut(g_image[strip]))
                g_norm.through(g_image[strip], image[strip], statistics, g_result[strip])
        for part in parts:
            part.add_to(g_in, g_factors, g_stencil, g_out)
    return g_x, g_norm.weight, g_norm.bias, g_in, g_factors, g_stencil, g_out


class _Part:
    """Some of the hidden channels, gates and values, and what they keep from strip to strip of an image."""

    def __init__(self, hidden: slice, image: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> None:
        w_in, factors, stencil = weights
        self.hidden = hidden
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

    def inner(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum of the hidden channels before the filter, `(64, N, C')`."""
        return product(spectrum, self.weight).view(PATCH * PATCH, -1, len(self.weight))

    def push_pixels(self, filtered: Tensor, *, first: bool, last: bool) -> None:
        """Compute the pixels of a filtered spectrum."""
        room = self.pixels.room(filtered.shape[1] * PATCH**2 // self.pixels.width, first=first, last=last)
        to_pixels(quarter_matrices("synthesis", filtered), filtered, cut(room))

    def gate_and_value(self) -> tuple[Tensor, Tensor]:
        """Return the hidden maps of all rows that are complete."""
        gate, value = depthwise(self.pixels.rows(), self.stencil).chunk(2, dim=-1)
        return gate.contiguous(), value  # on a whole block of memory gelu is four times as fast

    def push_gradients(self, g_result: Tensor, w_out: Tensor, *, first: bool, last: bool) -> None:
        """Compute the gradient of the pixels from that of the result, for the rows that the window completes."""
        gate, value = self.gate_and_value()
        activation = F.gelu(gate)
        self._g_out.addmm_(g_result.flatten(0, 1).t(), (activation * value).flatten(0, 1))
        g_activation = product(g_result, w_out[:, self.hidden].t())
        g_maps, half = self._g_maps.room(len(gate), first=first, last=last), gate.shape[-1]
        torch.mul(g_activation, activation, out=g_maps[..., half:])
        g_maps[..., :half] = torch.ops.aten.gelu_backward(g_activation.mul_(value), gate)
        self._g_stencil += stencil_gradient(g_maps, self.pixels.rows(), self.stencil)
        g_pixels = depthwise(self._g_maps.rows(), self.stencil.flip(2, 3))
        self._g_pixels = torch.cat([self._g_pixels, g_pixels])

    def pull_gradients(self, rows: int, spectrum: Tensor, inner: Tensor, g_spectrum: Tensor) -> None:
        """Add this part's share to the gradient of a strip's spectrum, from the gradient of its pixels."""
        g_pixels, self._g_pixels = self._g_pixels[:rows], self._g_pixels[rows:]
        g_inner = to_coefficients(quarter_matrices("synthesis", inner, transposed=True), cut(g_pixels))
        self._g_factor += (g_inner * inner).sum(dim=1, keepdim=True)
        g_inner = g_inner.mul_(self.factor).flatten(0, 1)
        self._g_weight.addmm_(g_inner.t(), spectrum)
        g_spectrum += product(g_inner, self.weight.t())

    def add_to(self, g_in: Tensor, g_factors: Tensor, g_stencil: Tensor, g_out: Tensor) -> None:
        """Add the gradients of this part's weights to those of all."""
        g_out[:, self.hidden] += self._g_out
        for total, share in ((g_in, self._g_weight), (g_factors, self._g_factor), (g_stencil, self._g_stencil)):
            axis = total.ndim - 1 if total is g_factors else 0
            for group, own in zip(total.chunk(2, axis), share.chunk(2, axis), strict=True):
                group.narrow(axis, self.hidden.start, len(self.weight) // 2).add_(own)


def _parts(image: Tensor, strips: list[tuple[int, int]], *weights: Tensor) -> list[_Part]:
    w_in, factors, stencil = weights
    slices = channel_parts(len(w_in) // 2, 2, (strips[0][1] - strips[0][0]) * image.shape[1])
    return [_Part(hidden, image, (w_in, factors, stencil)) for hidden in slices]


def _setup(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # this derivative is to be differentiated itself
        from fftformer.feed_forward import feed_forward as plain  # noqa: PLC0415 (that module imports this one)

        tensors = [tensor for tensor in ctx.saved_tensors if tensor is not None and tensor.requires_grad]
        output = plain(*ctx.saved_tensors)
        found = iter(torch.autograd.grad(output, tensors, gradient, create_graph=True))
        gradients = [next(found) if t is not None and t.requires_grad else None for t in ctx.saved_tensors]
        return tuple(gradients)
    g_x, *g_norm_and_weights = _feed_forward_backward(gradient.contiguous(), *ctx.saved_tensors)
    if ctx.saved_tensors[1] is None:
        g_norm_and_weights[:2] = [None, None]
    return g_x, *g_norm_and_weights


feed_forward.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
_feed_forward_backward.register_fake(lambda _, x, *inputs: like_gradients(x, *inputs))
feed_forward.register_autograd(_differentiate, setup_context=_setup)
