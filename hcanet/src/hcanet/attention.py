"""CAFM: channel attention over the whole image beside a local convolution of the same queries, keys and values.

From *Hybrid Convolutional and Attention Network for Hyperspectral Image Denoising* (GRSL 2024, arXiv 2403.10067).
In the release most convolutions are 3-D over a depth of one, so that only the middle slice of their weights has an
effect. Here they are 2-D convolutions with that slice. `literal.py` has the published 3-D form.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hcanet import fast

LocalMix = Literal["released", "pixel", "none"]
MIXTURES = 9
"""Number of mixtures of the 3h slots that the local branch computes for every pixel."""


class CAFM(nn.Module):
    """Convolution and attention fusion module.

    A 1×1 and a depth-wise 3×3 convolution make a feature map Q of 3n channels, the input of two branches:

        global: q, k, v = Q in h heads;  W_o (softmax(τ q̂ k̂ᵀ) v),  q̂ and k̂ of length 1 over the pixels
        local:  9 linear mixtures of the 3h slots of n/h channels; a grouped 3×3 convolution of them gives n channels

    The result is the sum of both. Attention is over channels, so its cost is linear in the number of pixels.

    Args:
        dim: channels n.
        num_heads: h; must divide `dim`.
        bias: whether `qkv`, `qkv_dwconv` and `project_out` have a bias. `fc` and `dep_conv` always have one.
        local_mix: `"pixel"` mixes the slots of each pixel, as the paper describes it. `"released"` is what the
            authors' code does: it reads the channel-first memory of Q as if it were channels last, so that "pixel" t,
            slot s, channel d is the value number `t·3n + s·n/h + d` of that memory. The branch is then not
            local and depends on height and width. Released weights need it. `"none"` leaves the local branch out.
        attention: False leaves the global branch out.

    Shape:
        `(B, n, H, W)`, any H and W → the same.

    Raises:
        ValueError: `dim`, `num_heads` or `local_mix` is out of range, or no branch is left; in `forward`, the input
            has another number of channels.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        *,
        bias: bool = False,
        local_mix: LocalMix = "released",
        attention: bool = True,
    ) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim must be a positive multiple of num_heads, got dim {dim} and num_heads {num_heads}")
        if local_mix not in get_args(LocalMix):
            raise ValueError(f"local_mix must be one of {', '.join(get_args(LocalMix))}, got {local_mix!r}")
        if local_mix == "none" and not attention:
            raise ValueError("without attention and with local_mix none, no branch is left")
        self.dim, self.num_heads, self.local_mix, self.attention = dim, num_heads, local_mix, attention
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        if attention:
            self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
            self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)
        if local_mix != "none":
            self.fc = nn.Conv2d(3 * num_heads, MIXTURES, 1)
            groups = dim // num_heads
            self.dep_conv = nn.Conv2d(MIXTURES * groups, dim, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both branches and add them."""
        if x.ndim != 4 or x.shape[1] != self.dim:
            raise ValueError(f"expected (batch, {self.dim}, height, width), got {tuple(x.shape)}")
        both = self.attention and self.local_mix != "none"
        if both and fast.usable(x):
            return fast.cafm(self, x)
        qkv = self.qkv_dwconv(self.qkv(x))
        if both:
            return self._global(qkv) + self._local(qkv)
        return self._global(qkv) if self.attention else self._local(qkv)

    def _global(self, qkv: Tensor) -> Tensor:
        """Attention over channels."""
        height, width = qkv.shape[2:]
        q, k, v = qkv.unflatten(1, (3, self.num_heads, -1)).flatten(-2).unbind(1)  # (B, h, n/h, N)
        # Squares are summed over all pixels in float32, because half precision would overflow.
        similarity = unit(q) @ unit(k).transpose(-2, -1) * self.temperature
        out = similarity.softmax(dim=-1).to(v.dtype) @ v
        return self.project_out(out.flatten(1, 2).unflatten(-1, (height, width)))

    def _local(self, qkv: Tensor) -> Tensor:
        """Mixtures of the slots, then the grouped convolution."""
        height, width = qkv.shape[2:]
        if self.local_mix == "released":
            # Channel-first memory, read as (pixel, slot, channel).
            slots = qkv.flatten(1).unflatten(1, (height * width, 3 * self.num_heads, -1)).permute(0, 2, 1, 3)
        else:
            slots = qkv.unflatten(1, (3 * self.num_heads, -1)).flatten(-2).transpose(-2, -1)  # (B, 3h, N, n/h)
        mixed = self.fc(slots)  # (B, 9, N, n/h)
        mixed = mixed.permute(0, 3, 1, 2).flatten(1, 2).unflatten(-1, (height, width))
        # Contiguous: for this view torch 2.15 computes a wrong gradient of the kernel in float64 on a CPU.
        return self.dep_conv(mixed.contiguous())


def unit(x: Tensor) -> Tensor:
    """Return `x` divided by its L2 norm along the last axis; half precision is computed in float32."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)
