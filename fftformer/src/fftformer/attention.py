"""FSAS, the frequency domain self-attention solver (FFTformer, CVPR 2023, section 3.1).

Differs from the authors' release in speed only: tensors are channels-last, and the transforms of the 8×8 patches
are products with constant matrices (`frequency`). `literal.fsas` is the equation as released. The paper describes
the product of spectra as correlation, which conjugates one factor; the release multiplies without a conjugate,
which is convolution. The released form is the default.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.networks.blocks import heads_for
from common.networks.linear import linear
from fftformer import frequency
from fftformer.fast import attention as fast
from fftformer.fast import strips


class FSAS(nn.Module):
    """Attention as a product of spectra, linear in the number of pixels.

        q, k, v = depthwise(W x);   A = F⁻¹(F(q) · F(k)) per 8×8 patch and channel
        out = W_o (v · LayerNorm(A))

    Args:
        dim: channels C of the input; q, k and v have 2 C channels each.
        conjugate: False multiplies the spectra as the released code does (circular convolution of q and k);
            True conjugates F(k) (correlation, as the paper's text describes it).

    Shape:
        input `(B, C, H, W)` with H and W multiples of 8, any memory format; output the same shape,
        channels-last. In half precision and under autocast the spectra, their product and the norm are float32.

    Raises:
        ValueError: `dim` is below 1, or the input has another shape.
    """

    def __init__(self, dim: int, *, conjugate: bool = False) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = dim
        self.conjugate = conjugate
        self.to_hidden = nn.Conv2d(dim, 6 * dim, 1, bias=False)
        self.to_hidden_dw = nn.Conv2d(6 * dim, 6 * dim, 3, padding=1, groups=6 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)
        self.project_out = nn.Conv2d(2 * dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` → the same."""
        check_map(x, self.dim)
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """FSAS of `(B, H, W, C)`, without the check of the shape; with a norm, x + FSAS(norm(x))."""
        outer = (None, None) if norm is None else (norm.weight, norm.bias)
        inner = (self.to_hidden.weight.flatten(1), self.to_hidden_dw.weight, self.norm.weight, self.norm.bias)
        compute: Callable[..., Tensor] = fast.attention if strips.worthwhile(x, 6 * self.dim) else attention
        return compute(x, *outer, *inner, self.project_out.weight.flatten(1), self.conjugate)


class WindowAttention(nn.Module):
    """Softmax attention inside 8×8 windows; the ablation compares FSAS with it.

        q, k, v = W x;   out = W_o softmax(q kᵀ / √d) v     per window and head of width d

    Args:
        dim: channels C of the input.

    Shape:
        see `channels_last`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = heads_for(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def channels_last(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """`(B, H, W, C)`, H and W multiples of 8 → x + attention(norm(x))."""
        windows = frequency.to_patches(norm(x)).transpose(0, 1)  # (N, 64, C)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + frequency.from_patches(self.project_out(attended).transpose(0, 1), *x.shape[:3])


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
    """FSAS of `(B, H, W, C)`, or with a norm `x + FSAS(norm(x))`; the `inner` norm is the one inside FSAS."""
    b, h, w, c = x.shape
    hidden = linear(x if norm_weight is None else F.layer_norm(x, (c,), norm_weight, norm_bias), w_in)
    hidden = F.conv2d(hidden.permute(0, 3, 1, 2), stencil, padding=1, groups=len(stencil)).permute(0, 2, 3, 1)
    # From here to the output every step works per patch or per pixel, so the pixels stay in the order of patches.
    q, k, v = frequency.to_patches(hidden).chunk(3, dim=-1)
    with torch.autocast(x.device.type, enabled=False):
        # At least single precision, as in the release: the values of a spectrum can overflow in half precision.
        q, k = (frequency.analyse(part if part.dtype == torch.float64 else part.float()) for part in (q, k))
        attended = frequency.synthesise(frequency.multiply(q, k, conjugate=conjugate))
        weight, bias = inner_weight.to(attended.dtype), inner_bias.to(attended.dtype)
        attended = F.layer_norm(attended, (len(weight),), weight, bias)
    out = frequency.from_patches(linear((v * attended).to(v.dtype), w_out), b, h, w)
    return out if norm_weight is None else x + out


def check_map(x: Tensor, dim: int) -> None:
    """Refuse a feature map that cannot be cut into 8×8 patches of `dim` channels.

    Raises:
        ValueError: names the shape found and the shape expected.
    """
    patch = frequency.PATCH
    if x.ndim != 4 or x.shape[1] != dim or x.shape[2] % patch or x.shape[3] % patch:
        raise ValueError(f"expected (batch, {dim}, height, width) in multiples of {patch}, got {tuple(x.shape)}")
