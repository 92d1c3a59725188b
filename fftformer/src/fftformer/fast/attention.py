"""FSAS as one operator on a CPU, strip by strip (see `strips`), with its backward pass.

The results are those of `FSAS.channels_last` up to rounding. `torch.compile` keeps the operator whole.
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
    write,
)
from fftformer.frequency import COSINE_SINE_ROWS, PATCH, REAL_ONLY, quarter_matrices, to_patches


@torch.library.custom_op("fftformer::attention", mutates_args=())
def attention(  # noqa: PLR0917
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_in: Tensor,
    stencil: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    w_out: Tensor,
    conjugate: bool,
) -> Tensor:
    """FSAS, or with a norm `x + FSAS(norm(x))`; the `inner` norm is FSAS's own."""
    out = torch.empty(x.shape, dtype=x.dtype)
    for image, result in zip(x, out, strict=True):
        strips = cut_rows(*image.shape[:2])
        parts = _parts(image, strips, w_in, stencil)
        for top, bottom in strips:
            tokens = _arriving(image, top, bottom, norm_weight, norm_bias)
            attended, v, _ = _attend(parts, tokens, (top, bottom, len(image)), conjugate)
            attended = F.layer_norm(attended, (w_out.shape[1],), inner_weight, inner_bias).mul_(v)
            write(product(attended, w_out), result[top:bottom])
            if norm_weight is not None:
                result[top:bottom] += image[top:bottom]
    return out


@torch.library.custom_op("fftformer::attention_backward", mutates_args=())
def _attention_backward(  # noqa: PLR0917
    gradient: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_in: Tensor,
    stencil: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    w_out: Tensor,
    conjugate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = (w_in, stencil, inner_weight, inner_bias, w_out)
    g_x, g_norm = torch.empty(x.shape, dtype=x.dtype), NormGradient(x, norm_weight, norm_bias)
    g_in, g_stencil, g_inner_weight, g_inner_bias, g_out = (torch.zeros(t.shape, dtype=x.dtype) for t in weights)
    width = w_out.shape[1]
    for image, g_result, g_image in zip(x, gradient, g_x, strict=True):
        strips = cut_rows(*image.shape[:2])
        parts = _parts(image, strips, w_in, stencil)
        done = 0
        for top, bottom in strips:
            tokens = _arriving(image, top, bottom, norm_weight, norm_bias)
            attended, v, spectra = _attend(parts, tokens, (top, bottom, len(image)), conjugate)
            normed, mean, scale = torch.native_layer_norm(attended, (width,), inner_weight, inner_bias, 1e-5)
            g_patches = to_patches(g_result[None, top:bottom]).flatten(0, 1)
            g_product = product(g_patches, w_out.t()).view(attended.shape)
            g_out.addmm_(g_patches.t(), (normed * v).flatten(0, 1))
            g_v = normed.mul_(g_product)
            g_attended, g_weight, g_bias = torch.ops.aten.native_layer_norm_backward(
                g_product.mul_(v), attended, (width,), mean, scale, inner_weight, inner_bias, [True, True, True]
            )
            g_inner_weight += g_weight
            g_inner_bias += g_bias
            # The stencil completes one row less than has arrived, until the last strip.
            complete = slice(done, bottom - (bottom < len(image)))
            completed, *moments = layer_norm(image[complete], norm_weight, norm_bias)
            for part, (q, k) in zip(parts, spectra, strict=True):
                g_maps = part.g_maps.room(bottom - top, first=top == 0, last=bottom == len(image))
                part.differentiate(q, k, g_attended, g_v, conjugate, g_maps)
                part.pull_gradients(completed, g_image[complete])
            g_norm.through(g_image[complete], image[complete], (moments[0], moments[1]), g_result[complete])
            done = complete.stop
        for part in parts:
            part.add_to(g_in, g_stencil)
    return g_x, g_norm.weight, g_norm.bias, g_in, g_stencil, g_inner_weight, g_inner_bias, g_out


def _arriving(image: Tensor, top: int, bottom: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return the normalised tokens that a strip adds: up to one row below it."""
    first, last = top == 0, bottom == len(image)
    return layer_norm(image[top + (not first) : bottom + (not last)], weight, bias)[0]


def _attend(
    parts: list[_Part], tokens: Tensor, strip: tuple[int, int, int], conjugate: bool
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return F⁻¹(F(q) · F(k)) and v of a strip's patches, of all channels; and the spectra of q and k of each part."""
    top, bottom, height = strip
    channels = parts[-1].channels.stop
    attended = tokens.new_empty(PATCH * PATCH, (bottom - top) * tokens.shape[1] // PATCH**2, channels)
    v = torch.empty_like(attended)
    spectra = []
    for part in parts:
        part.push(tokens, first=top == 0, last=bottom == height)
        spectra.append(part.attend(attended, v, conjugate))
    return attended, v, spectra


class _Part:
    """Some of the inner channels, those of q, k and v, and what they keep from strip to strip of an image."""

    def __init__(self, channels: slice, image: Tensor, w_in: Tensor, stencil: Tensor) -> None:
        self.channels = channels
        self.weight = rows_of(w_in, 3, channels)
        self.stencil = rows_of(stencil, 3, channels)
        self.third = len(self.weight) // 3
        self.g_maps = Window(image.shape[1], len(self.weight), image)
        self._hidden = Window(image.shape[1], len(self.weight), image)
        self._g_weight = torch.zeros_like(self.weight)
        self._g_stencil = torch.zeros_like(self.stencil)

    def push(self, tokens: Tensor, *, first: bool, last: bool) -> None:
        """Compute the hidden rows of tokens `(R, W, C)`."""
        room = self._hidden.room(len(tokens), first=first, last=last)
        room.copy_(product(tokens, self.weight))

    def attend(self, attended: Tensor, v: Tensor, conjugate: bool) -> tuple[Tensor, Tensor]:
        """Write this part's channels of F⁻¹(F(q) · F(k)) and of v; return both spectra."""
        patches = cut(depthwise(self._hidden.rows(), self.stencil))
        q, k = to_coefficients(quarter_matrices("analysis", patches), patches[..., : 2 * self.third]).chunk(2, dim=-1)
        to_pixels(quarter_matrices("synthesis", q), _product(q, k, conjugate), attended[..., self.channels])
        v[..., self.channels] = patches[..., 2 * self.third :].reshape(PATCH * PATCH, -1, self.third)
        return q, k

    def differentiate(  # noqa: PLR0917
        self, q: Tensor, k: Tensor, g_attended: Tensor, g_v: Tensor, conjugate: bool, g_maps: Tensor
    ) -> None:
        """Compute gradients of the strip's maps q, k and v, `g_maps` `(R, W, C')`, from those of attention and v."""
        g = to_coefficients(quarter_matrices("synthesis", q, transposed=True), g_attended[..., self.channels])
        # For real images the transpose of "multiply by a spectrum" multiplies by its conjugate.
        g_q = _product(g, k, not conjugate)
        g_k = _product(q, g, True) if conjugate else _product(g, q, True)
        for i, coefficients in enumerate((g_q, g_k)):
            patches = cut(g_maps[..., i * self.third : (i + 1) * self.third])
            to_pixels(quarter_matrices("analysis", g, transposed=True), coefficients, patches)
        write(g_v[..., self.channels], g_maps[..., 2 * self.third :])
        self._g_stencil += stencil_gradient(g_maps, self._hidden.rows(), self.stencil)

    def pull_gradients(self, tokens: Tensor, g_tokens: Tensor) -> None:
        """Add this part's share to the gradient of the tokens of the completed rows, `g_tokens` `(R, W, C)`."""
        g_hidden = depthwise(self.g_maps.rows(), self.stencil.flip(2, 3)).flatten(0, 1)
        self._g_weight.addmm_(g_hidden.t(), tokens.flatten(0, 1))
        share = product(g_hidden, self.weight.t()).view(g_tokens.shape)
        g_tokens.copy_(share) if self.channels.start == 0 else g_tokens.add_(share)

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
    torch.mul(a[REAL_ONLY], b[REAL_ONLY], out=out[REAL_ONLY])
    for cosines, sines in COSINE_SINE_ROWS:
        torch.mul(a[cosines], b[cosines], out=out[cosines]).addcmul_(a[sines], b[sines], value=-sign)
        torch.mul(a[sines], b[cosines], out=out[sines]).addcmul_(a[cosines], b[sines], value=sign)
    return out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.conjugate = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # this derivative is to be differentiated itself
        from fftformer.attention import attention as plain  # noqa: PLC0415 (that module imports this one)

        tensors = [tensor for tensor in ctx.saved_tensors if tensor is not None and tensor.requires_grad]
        output = plain(*ctx.saved_tensors, ctx.conjugate)  # type: ignore[call-arg]
        found = iter(torch.autograd.grad(output, tensors, gradient, create_graph=True))
        gradients = [next(found) if t is not None and t.requires_grad else None for t in ctx.saved_tensors]
        return (*gradients, None)
    g_x, *gradients = _attention_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.conjugate)
    if ctx.saved_tensors[1] is None:
        gradients[:2] = [None, None]
    return g_x, *gradients, None


attention.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
_attention_backward.register_fake(lambda _, x, *inputs: like_gradients(x, *inputs))
attention.register_autograd(_differentiate, setup_context=_setup)
