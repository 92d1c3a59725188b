"""ESSAformer's equations as the authors wrote them, for tests and the benchmark.

Every function gets one of our modules for its weights. `kernel_attention` forms the N × N matrix that motivates the
paper, `attention` is the released linear form, and `essaformer` is the whole released network: channels first,
concatenation, one operation after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # fast/ imports the constant below, and these modules import fast/
    from essaformer.attention import ESSAttention
    from essaformer.model import Encoder, ESSAformer, Resample

EPS = 1e-7
"""Added to a spectrum's energy, as released, so that a constant spectrum stays finite."""


def projections(module: ESSAttention, x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Return (q̂, k̂) of each order, and v, all `(B, N, C)`."""
    q, k, v = module.qkv(x).chunk(3, dim=-1)
    q = q - q.mean(dim=-1, keepdim=True)
    k = k - k.mean(dim=-1, keepdim=True)
    q2, k2 = q.pow(2), k.pow(2)
    q2 = q2 / (q2.sum(dim=-1, keepdim=True) + EPS)
    k2 = k2 / (k2.sum(dim=-1, keepdim=True) + EPS)
    orders = [(q2.pow(n) if n > 1 else q2, k2.pow(n) if n > 1 else k2) for n in range(1, module.order + 1)]
    return [(F.normalize(q, dim=-1), F.normalize(k, dim=-2)) for q, k in orders], v


def kernel_attention(module: ESSAttention, x: Tensor) -> Tensor:
    """out = W_o (v + Σ_n K_n v / n), K_n = q̂_n k̂_nᵀ / √N of size N × N."""
    orders, v = projections(module, x)
    out = v
    for n, (q, k) in enumerate(orders, start=1):
        out = out + (q @ k.transpose(1, 2) / x.shape[1] ** 0.5) @ v / n
    return module.out(out)


def attention(module: ESSAttention, x: Tensor) -> Tensor:
    """The released order of products: out = W_o (v + q̂ (k̂ᵀ v) / √N)."""
    orders, v = projections(module, x)
    out = v
    for n, (q, k) in enumerate(orders, start=1):
        out = out + q @ (k.transpose(1, 2) @ v) / x.shape[1] ** 0.5 / n
    return module.out(out)


def encoder(module: Encoder, x: Tensor) -> Tensor:
    """x + conv(lrelu(conv(lrelu(conv([attention(norm(x)), x]))))) with a dropout after every part except the last."""
    height, width = x.shape[-2:]

    def drop(x: Tensor) -> Tensor:
        return F.dropout2d(x, module.dropout, module.training)

    tokens = attention(module.attn, module.norm(x.flatten(2).transpose(1, 2)))
    y = torch.cat([drop(tokens.transpose(1, 2).unflatten(2, (height, width))), x], dim=1)
    y = drop(F.leaky_relu(module.conv1(y), 0.2))
    y = drop(F.leaky_relu(module.conv2(y), 0.2))
    return module.conv3(y) + x


def resample(module: Resample, x: Tensor) -> Tensor:
    """3×3 convolution and pixel shuffle (or unshuffle), per factor."""
    shuffle = F.pixel_shuffle if module.up else F.pixel_unshuffle
    for conv, factor in zip(module.convs, module.factors, strict=True):
        x = shuffle(conv(x), factor)
    return x


def essaformer(model: ESSAformer, image: Tensor) -> Tensor:
    """The whole released network on `(B, bands, h, w)`, without global residual."""
    x = model.conv_first(image)
    u1 = encoder(model.encode_up, resample(model.upsample, x))
    d1 = encoder(model.encode_down, resample(model.downsample, u1) + x)
    u2 = encoder(model.encode_up, resample(model.upsample, d1) + u1)
    d2 = encoder(model.encode_down, resample(model.downsample, u2) + d1)
    u3 = encoder(model.encode_up, resample(model.upsample, d2) + u2)
    return model.conv_last(u3)
