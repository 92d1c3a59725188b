"""DFFN, the discriminative frequency domain feed-forward network (FFTformer, CVPR 2023, section 3.2).

Differs from the authors' release in speed only. The first 1×1 convolution mixes channels and the patch transform
mixes pixels, so their order can be exchanged: the transform works on the C input channels instead of the 2 · hidden
(six times more) inner channels, and only the inverse transform works on the inner ones. `literal.dffn` is the
equation as released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.linear import linear
from fftformer import frequency
from fftformer.attention import check_map
from fftformer.fast import feed_forward as fast
from fftformer.fast import strips


class DFFN(nn.Module):
    """Gated feed-forward network that weights the frequencies of every 8×8 patch.

        h = depthwise(F⁻¹(fft · F(W_in x)));   out = W_out (gelu(h₁) · h₂)

    Args:
        dim: channels C of the input.
        expansion: hidden channels are `int(dim * expansion)`.
        spectral: False leaves out the spectra, h = depthwise(W_in x), for the ablation.

    Shape:
        input `(B, C, H, W)` with H and W multiples of 8, any memory format; output the same shape,
        channels-last. In half precision and under autocast the spectra are float32.

    Raises:
        ValueError: `dim` or `int(dim * expansion)` is below 1, or the input has another shape.
    """

    def __init__(self, dim: int, expansion: float = 3.0, *, spectral: bool = True) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        if dim < 1 or hidden < 1:
            raise ValueError(f"dim and int(dim * expansion) must be at least 1, got dim {dim}, expansion {expansion}")
        self.dim, self.spectral = dim, spectral
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        if spectral:
            self.fft = nn.Parameter(torch.ones(2 * hidden, 1, 1, frequency.PATCH, frequency.PATCH // 2 + 1))
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def _apply(self, fn: Any, recurse: bool = True) -> DFFN:
        # `.to(memory_format=torch.channels_last)` refuses tensors of five axes, so `fft` is converted as a matrix.
        return super()._apply(lambda t: fn(t.flatten(1)).view(t.shape) if t.ndim == 5 else fn(t), recurse)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → the same."""
        check_map(x, self.dim)
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """DFFN of `(B, H, W, C)`, without the check of the shape; with a norm, x + DFFN(norm(x))."""
        outer = (None, None) if norm is None else (norm.weight, norm.bias)
        w_in, w_out = self.project_in.weight.flatten(1), self.project_out.weight.flatten(1)
        if not self.spectral:
            hidden = linear(x if norm is None else norm(x), w_in)
            out = gated(hidden, self.dwconv.weight, w_out)
            return out if norm is None else x + out
        with torch.autocast(x.device.type, enabled=False):
            # The learned matrix stays in single precision or better, as in the release.
            factors = frequency.filter_factors(self.fft if self.fft.dtype == torch.float64 else self.fft.float())
        inner = (w_in, factors, self.dwconv.weight)
        compute: Callable[..., Tensor] = fast.feed_forward if strips.worthwhile(x, len(self.fft)) else feed_forward
        return compute(x, *outer, *inner, w_out)


def feed_forward(  # noqa: PLR0917
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    w_in: Tensor,
    factors: Tensor,
    stencil: Tensor,
    w_out: Tensor,
) -> Tensor:
    """DFFN of `(B, H, W, C)`, or with a norm `x + DFFN(norm(x))`; `factors` come from `frequency.filter_factors`."""
    b, h, w, c = x.shape
    with torch.autocast(x.device.type, enabled=False):
        # The transforms stay in single precision or better, as in the release.
        inside = x if norm_weight is None else F.layer_norm(x, (c,), norm_weight, norm_bias)
        inside = inside if x.dtype == torch.float64 else inside.float()
        spectrum = frequency.analyse(frequency.to_patches(inside))
    # Under autocast this product is in half precision. The weights of a half-precision network are converted up.
    spectrum = linear(spectrum, w_in.to(spectrum.dtype))
    with torch.autocast(x.device.type, enabled=False):
        hidden = frequency.from_patches(frequency.synthesise(spectrum.to(inside.dtype) * factors), b, h, w)
    out = gated(hidden.to(stencil.dtype), stencil, w_out)
    return out if norm_weight is None else x + out


def gated(hidden: Tensor, stencil: Tensor, w_out: Tensor) -> Tensor:
    """W_out (gelu(h₁) · h₂) with h = depthwise(hidden): `(B, H, W, 2 · hidden)` → `(B, H, W, C)`."""
    hidden = F.conv2d(hidden.permute(0, 3, 1, 2), stencil, padding=1, groups=len(stencil)).permute(0, 2, 3, 1)
    gate, value = hidden.chunk(2, dim=-1)
    return linear(F.gelu(gate) * value, w_out)
