"""CAFM, the cross-attention fusion of two feature maps (AMGCFN, IEEE TGRS 2023, section III-D).

It works in any network on two maps of the same shape. `AMGCFN` applies the steps below to cheaper representations of
its two branches: one of them is constant on superpixels, and only a maximum and a product of the other are needed.

Only names differ from the release, which also flattens the outputs to `(H·W, C)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CAFM(nn.Module):
    """Cross-attention fusion: the channels of both maps determine the weight of each map at each pixel.

    With a global average and a global maximum over the pixels of each branch i,

        a_i = MLP_avg,i(mean f_i) + MLP_max,i(max f_i)                        (C)
        f'_1 = softmax_rows(a_1 a_2ᵀ) f_1,   f'_2 = softmax_rows(a_2 a_1ᵀ) f_2
        w_i = softmax_pixels(conv3×3(ReLU(conv3×3([mean_C f'_i, max_C f'_i]))))
        out_i = f_i · w_i + f_i

    The re-mixed maps f' only determine the weights: as released, f itself is weighted. The
    four MLPs (C → C/3 → C) are not shared; the two convolutions are shared by the branches.

    Args:
        channels: channels C of both maps.
        hidden: width of the MLPs; by default `channels // 3`, which is the published 64 of 192.

    Shape:
        two inputs `(B, C, H, W)`; two outputs of the same shape, in the same order.
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        hidden = max(1, channels // 3) if hidden is None else hidden
        self.channels = channels
        self.average1 = _mlp(channels, hidden)
        self.average2 = _mlp(channels, hidden)
        self.maximum1 = _mlp(channels, hidden)
        self.maximum2 = _mlp(channels, hidden)
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse two `(B, C, H, W)` maps."""
        for x in (first, second):
            if x.ndim != 4 or x.shape[1] != self.channels or x.shape != first.shape:
                raise ValueError(
                    f"expected two maps (batch, {self.channels}, height, width), "
                    f"got {tuple(first.shape)} and {tuple(second.shape)}"
                )
        maxima = [x.flatten(2).max(dim=2).values for x in (first, second)]
        mixing = self.channel_mixing(first.mean(dim=(2, 3)), maxima[0], second.mean(dim=(2, 3)), maxima[1])
        fused = []
        for x, mix in zip((first, second), mixing, strict=True):
            mixed = torch.einsum("bij,bjhw->bihw", mix, x)
            weight = self.spatial_weight(torch.stack([mixed.mean(dim=1), mixed.max(dim=1).values], dim=1))
            fused.append(x * weight + x)
        return fused[0], fused[1]

    def channel_mixing(
        self, average1: Tensor, maximum1: Tensor, average2: Tensor, maximum2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the two row-stochastic `(B, C, C)` matrices from `(B, C)` averages and maxima over pixels."""
        a1 = self.average1(average1) + self.maximum1(maximum1)
        a2 = self.average2(average2) + self.maximum2(maximum2)
        # Products of half-precision numbers can exceed their range.
        kind = a1.dtype
        wide = torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
        cross = a1.to(wide)[:, :, None] * a2.to(wide)[:, None, :]
        return cross.softmax(dim=2).to(kind), cross.transpose(1, 2).softmax(dim=2).to(kind)

    def spatial_weight(self, maps: Tensor) -> Tensor:
        """Return the `(B, 1, H, W)` weight, sum 1 over pixels, from the `(B, 2, H, W)` mean and maximum over C."""
        logits = self.spatial(maps)
        return F.softmax(logits.flatten(1), dim=1).view_as(logits)


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
