"""The two attentions of BiFormer (Zhu et al., CVPR 2023, arXiv 2303.08810).

In `BiLevelRoutingAttention` every region of a map selects a few regions to which its tokens attend (section 3.2,
equations 3 to 6). `FullAttention` of stage 4 attends to the whole map. The results equal those of the release. The
computation differs in one point: keys and values of the selected regions are read through the routing table and not
copied first (`fast.routing`).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biformer.fast.depthwise import depthwise
from biformer.fast.routing import routed_attention
from biformer.literal import gather_regions, literal_routed_attention
from common.networks.blocks import cropped
from common.networks.linear import Linear

Pooling = Literal["none", "adaptive_avg", "adaptive_max", "avg", "max"]


class BiLevelRoutingAttention(nn.Module):
    """Attention to the tokens of the `top_k` regions that the region of the query selects.

    The map is cut into S × S regions. With the means q̄, k̄ of the queries and keys of each region,

        I = top_k((q̄ · C^-½) k̄ᵀ)                     the regions that a region attends to, without gradient
        O = softmax(q kᵀ_I · C^-½) v_I + LePE(v)      for each head, over all tokens of these regions

    and a last projection. LePE is a depth-wise convolution of v over the whole map. As in the release, both products
    are scaled by the full width C and not by the width of a head; released weights depend on it.

    Args:
        dim: channels C.
        num_heads: number of heads; divides `dim`.
        num_regions: S, regions along each side.
        top_k: number of regions that each region attends to, at most S²; with 0 a region attends only to itself, which
            is window attention.
        lepe_kernel: side of the LePE kernel, odd; 0 for no LePE.
        pooling: pooling of the keys and values of each region before attention: `none`, `adaptive_*` to `pooled_size` ×
            `pooled_size` tokens, or `avg` and `max` with kernel and stride `pooled_ratio`.
        pooled_size: tokens along the side of a region after adaptive pooling.
        pooled_ratio: kernel and stride of `avg` and `max` pooling.
        soft_routing: multiply the keys and values of each selected region by the softmax of the affinities of all
            selected regions.
        differentiable_routing: let gradients flow into the affinities; needs `soft_routing`.
        learned_routing: project the means of the regions before they are compared; needs `differentiable_routing`,
            because otherwise the projection would never learn.
        auto_pad: pad maps with zeros at the right and the bottom to multiples of S, and crop the output. As in the
            release, maps are padded before the projection, and padded keys are not masked.

    Shape:
        `(B, H, W, C)` → the same; without `auto_pad`, H and W must be multiples of S. A map `(B, C, H, W)` with W = C
        is accepted too, but the result is wrong: use `biformer.blocks.BRABlock` for such maps.

    Raises:
        ValueError: options that contradict each other, or a map of a wrong shape.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        num_regions: int = 7,
        top_k: int = 4,
        *,
        lepe_kernel: int = 5,
        pooling: Pooling = "none",
        pooled_size: int = 4,
        pooled_ratio: int = 2,
        soft_routing: bool = False,
        differentiable_routing: bool = False,
        learned_routing: bool = False,
        auto_pad: bool = True,
    ) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got {dim} and {num_heads}")
        if num_regions < 1 or not 0 <= top_k <= num_regions**2:
            raise ValueError(
                f"top_k must be between 0 and the number of regions, got {top_k} of {num_regions}x{num_regions}"
            )
        if lepe_kernel < 0 or (lepe_kernel and lepe_kernel % 2 == 0):
            raise ValueError(f"lepe_kernel must be odd, or 0 for none, got {lepe_kernel}")
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r} does not exist; choose one of {', '.join(get_args(Pooling))}")
        if pooled_size < 1 or pooled_ratio < 1:
            raise ValueError(f"pooled_size and pooled_ratio must be at least 1, got {pooled_size} and {pooled_ratio}")
        if differentiable_routing and not soft_routing:
            raise ValueError("differentiable_routing needs soft_routing: a hard selection has no gradient")
        if learned_routing and not differentiable_routing:
            raise ValueError("learned_routing needs differentiable_routing, or its projection would never learn")
        self.dim, self.num_heads, self.num_regions, self.top_k = dim, num_heads, num_regions, top_k
        self.scale = dim**-0.5
        self.pooling, self.pooled_size, self.pooled_ratio = pooling, pooled_size, pooled_ratio
        self.soft_routing, self.differentiable_routing, self.auto_pad = soft_routing, differentiable_routing, auto_pad
        self.qkv = Linear(dim, 3 * dim)
        self.routing = nn.Linear(dim, dim) if learned_routing else None
        self.lepe = nn.Conv2d(dim, dim, lepe_kernel, padding=lepe_kernel // 2, groups=dim) if lepe_kernel else None
        self.out = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same; for `(B, C, H, W)` use `BRABlock`."""
        height, width = x.shape[1:3]
        x = self._padded(x)
        qkv = self.qkv(x)
        q, k, v = self._to_regions(qkv).chunk(3, dim=-1)
        routes, affinity = self.routes(q, k)
        if self.pooling != "none":
            k, v = self._pooled(k, x.shape), self._pooled(v, x.shape)
        if self.soft_routing:
            attended = self._softly(q, k, v, routes, affinity.softmax(dim=-1))
        else:
            attended = routed_attention(q, k, v, routes, self.num_heads, self.scale)
        y = self._to_map(attended, x.shape)
        if self.lepe is not None:
            y = y + depthwise(self.lepe, qkv[..., 2 * self.dim :].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return cropped(self.out(y), height, width)

    def routes(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Select the regions that each region attends to (equations 3 and 4).

        Args:
            q, k: queries and keys by region, `(B, S², T, C)`.

        Returns:
            region numbers `(B, S², top_k)`, best first; and their affinities. Regions are numbered row by row.
        """
        if not self.top_k:
            own = torch.arange(q.shape[1], device=q.device)[None, :, None].expand(len(q), -1, 1)
            return own, q.new_zeros(own.shape)
        if not self.differentiable_routing:
            q, k = q.detach(), k.detach()
        q, k = q.mean(dim=2), k.mean(dim=2)
        if self.routing is not None:
            q, k = self.routing(q), self.routing(k)
        affinity, routes = ((q * self.scale) @ k.transpose(1, 2)).topk(self.top_k, dim=-1)
        return routes, affinity

    @torch.no_grad()
    def choices(self, x: Tensor) -> Tensor:
        """The selected regions of a map, for figures: `(B, H, W, C)` → `(B, S², top_k)` region numbers."""
        q, k, _ = self._to_regions(self.qkv(self._padded(x))).chunk(3, dim=-1)
        return self.routes(q, k)[0]

    def _padded(self, x: Tensor) -> Tensor:
        side = self.num_regions
        if x.ndim != 4 or x.shape[-1] != self.dim:
            raise ValueError(f"expected (batch, height, width, {self.dim}), got {tuple(x.shape)}")
        bottom, right = -x.shape[1] % side, -x.shape[2] % side
        if not self.auto_pad and (bottom or right):
            raise ValueError(
                f"a map of {x.shape[1]}x{x.shape[2]} cannot be cut into {side}x{side} equal regions; use auto_pad=True"
            )
        # An exported program must work for all sizes, so it always pads.
        exporting = self.auto_pad and torch.compiler.is_exporting()
        return F.pad(x, (0, 0, 0, right, 0, bottom)) if exporting or bottom or right else x

    def _to_regions(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → `(B, S², tokens, C)`; regions, and the tokens of a region, are ordered row by row."""
        side = self.num_regions
        x = x.unflatten(1, (side, -1)).unflatten(3, (side, -1))
        return x.transpose(2, 3).flatten(1, 2).flatten(2, 3)

    def _to_map(self, x: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `_to_regions` for a map of this shape."""
        batch, height, width, _ = shape
        side = self.num_regions
        x = x.reshape(batch, side, side, height // side, width // side, -1)
        return x.transpose(2, 3).reshape(batch, height, width, -1)

    def _pooled(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Pool the tokens of each region: `(B, S², T, C)` → `(B, S², pooled, C)`."""
        batch, regions, _, channels = x.shape
        height, width = shape[1] // self.num_regions, shape[2] // self.num_regions
        x = x.reshape(batch * regions, height, width, channels).permute(0, 3, 1, 2)
        if self.pooling == "adaptive_avg":
            x = F.adaptive_avg_pool2d(x, self.pooled_size)
        elif self.pooling == "adaptive_max":
            x = F.adaptive_max_pool2d(x, self.pooled_size)
        else:
            if min(height, width) < self.pooled_ratio:
                raise ValueError(f"regions of {height}x{width} tokens cannot be pooled by {self.pooled_ratio}")
            pool = F.avg_pool2d if self.pooling == "avg" else F.max_pool2d
            x = pool(x, self.pooled_ratio)
        return x.flatten(2).transpose(1, 2).reshape(batch, regions, -1, channels)

    def _softly(self, q: Tensor, k: Tensor, v: Tensor, routes: Tensor, weights: Tensor) -> Tensor:
        """Attention to keys and values that are multiplied by the `weights` `(B, S², top_k)` of their regions.

        The weight of a region is different for every region that selects it, so keys and values must be copied.
        """
        batch, regions = k.shape[:2]
        k, v = ((gather_regions(x, routes) * weights[..., None, None]).flatten(2, 3) for x in (k, v))
        own = torch.arange(regions, device=q.device)[None, :, None].expand(batch, -1, 1)
        return literal_routed_attention(q, k, v, own, self.num_heads, self.scale)


class FullAttention(nn.Module):
    """Attention of stage 4: all tokens attend to all tokens; the local term is computed from the input.

        y = W_o (softmax(q kᵀ · d^-½) v + DWConv5×5(x))

    As in the release, there are 8 heads for every width, d is the width of a head here, and q, k and v have no bias.

    Args:
        dim: channels C, a multiple of `num_heads`.
        num_heads: number of heads.
        lepe_kernel: side of the depth-wise kernel, odd; 0 for no local term.

    Shape:
        `(B, H, W, C)` → the same.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`, or the kernel is even.
    """

    def __init__(self, dim: int, num_heads: int = 8, *, lepe_kernel: int = 5) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got {dim} and {num_heads}")
        if lepe_kernel < 0 or (lepe_kernel and lepe_kernel % 2 == 0):
            raise ValueError(f"lepe_kernel must be odd, or 0 for none, got {lepe_kernel}")
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.lepe = nn.Conv2d(dim, dim, lepe_kernel, padding=lepe_kernel // 2, groups=dim) if lepe_kernel else None
        self.out = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` → the same."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        if self.lepe is not None:
            attended = attended + depthwise(self.lepe, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.out(attended)
