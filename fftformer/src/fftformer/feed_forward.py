"""DFFN, the discriminative frequency domain feed-forward network (FFTformer, CVPR 2023, section 3.2).

Differs from the authors' release in speed only. The 1×1 convolution in front mixes channels and
the patch transform mixes pixels, so they commute: the C input channels are transformed instead
of the 2 · hidden (six times more) inner ones, and only the way back runs on those.
`literal.dffn` is the equation as released.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    Shape:
        input `(B, C, H, W)` with H and W multiples of 8, any memory format; output the same,
        channels-last. In half precision and under autocast the spectra are float32.
    """

    def __init__(self, dim: int, expansion: float = 3.0) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        if dim < 1 or hidden < 1:
            raise ValueError(f"dim and int(dim * expansion) must be at least 1, got dim {dim}, expansion {expansion}")
        self.dim = dim
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.fft = nn.Parameter(torch.ones(2 * hidden, 1, 1, frequency.PATCH, frequency.PATCH // 2 + 1))
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def _apply(self, fn: Any, recurse: bool = True) -> DFFN:
        # `.to(memory_format=torch.channels_last)` refuses what has five axes; `fft` goes by as a matrix.
        return super()._apply(lambda t: fn(t.flatten(1)).view(t.shape) if t.ndim == 5 else fn(t), recurse)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → the same."""
        check_map(x, self.dim)
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """The same on `(B, H, W, C)`, without the check; with a norm, x + DFFN(norm(x))."""
        if strips.worthwhile(x, len(self.fft)):
            outer = (None, None) if norm is None else (norm.weight, norm.bias)
            matrices = (self.project_in.weight.flatten(1), frequency.filter_factors(self.fft), self.dwconv.weight)
            return fast.feed_forward(x, *outer, *matrices, self.project_out.weight.flatten(1))
        b, h, w, _ = x.shape
        with torch.autocast(x.device.type, enabled=False):
            # As in the release, transforms and the learned matrix stay in single precision or better.
            inside = x if norm is None else norm(x)
            inside = inside if x.dtype == torch.float64 else inside.float()
            spectrum = frequency.analyse(frequency.to_patches(inside))
        # Under autocast this one product is in half precision; a network that is half itself widens its weights.
        spectrum = F.linear(spectrum, self.project_in.weight.flatten(1).to(spectrum.dtype))
        with torch.autocast(x.device.type, enabled=False):
            spectrum = spectrum.to(inside.dtype) * frequency.filter_factors(self.fft.to(inside.dtype))
            hidden = frequency.from_patches(frequency.synthesise(spectrum), b, h, w).to(self.dwconv.weight.dtype)
        gate, value = self.dwconv(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, dim=-1)
        out = F.linear(F.gelu(gate) * value, self.project_out.weight.flatten(1))
        return out if norm is None else x + out
