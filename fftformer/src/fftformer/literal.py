"""FFTformer's equations as the authors wrote them, for tests and the benchmark.

Tensors are channels-first, einops cuts the patches for `rfft2` and `irfft2`, and the norms are written out. Every
function takes the weights from one of our modules. There is one difference from the release: inputs in double
precision are transformed in double precision, whereas the release transforms them in single precision.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fftformer.attention import FSAS
from fftformer.feed_forward import DFFN
from fftformer.model import FFTformer, Fusion, TransformerBlock, pad_to_multiple

_CUT = "b c (h patch1) (w patch2) -> b c h w patch1 patch2"
_JOIN = "b c h w patch1 patch2 -> b c (h patch1) (w patch2)"


def layer_norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the channels of each pixel of `(B, C, H, W)`."""
    height, width = x.shape[-2:]
    x = rearrange(x, "b c h w -> b (h w) c")
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, unbiased=False)
    x = (x - mean) / torch.sqrt(variance + 1e-5) * module.weight + module.bias
    return rearrange(x, "b (h w) c -> b c h w", h=height, w=width)


def _spectrum(x: Tensor) -> Tensor:
    patches = rearrange(x, _CUT, patch1=8, patch2=8)
    return torch.fft.rfft2(patches if patches.dtype == torch.float64 else patches.float())


def _pixels(spectrum: Tensor) -> Tensor:
    return rearrange(torch.fft.irfft2(spectrum, s=(8, 8)), _JOIN)


def fsas(module: FSAS, x: Tensor) -> Tensor:
    """out = W_o (v · LayerNorm(F⁻¹(F(q) · F(k)))), `(B, C, H, W)`; F(k) is conjugated if `module.conjugate`."""
    q, k, v = module.to_hidden_dw(module.to_hidden(x)).chunk(3, dim=1)
    spectrum_k = _spectrum(k)
    out = _pixels(_spectrum(q) * (spectrum_k.conj() if module.conjugate else spectrum_k))
    return module.project_out(v * layer_norm(module.norm, out))


def dffn(module: DFFN, x: Tensor) -> Tensor:
    """out = W_out (gelu(h₁) · h₂), h = depthwise(F⁻¹(fft · F(W_in x))), `(B, C, H, W)`."""
    x = _pixels(_spectrum(module.project_in(x)) * module.fft)
    gate, value = module.dwconv(x).chunk(2, dim=1)
    return module.project_out(F.gelu(gate) * value)


def block(module: TransformerBlock, x: Tensor) -> Tensor:
    """x + FSAS(norm1(x)) in the decoder, then x + DFFN(norm2(x)), `(B, C, H, W)`."""
    if isinstance(module.attn, FSAS) and module.norm1 is not None:
        x = x + fsas(module.attn, layer_norm(module.norm1, x))
    return x + dffn(module.ffn, layer_norm(module.norm2, x))


def fuse(module: Fusion, decoded: Tensor, encoded: Tensor) -> Tensor:
    """1×1 convolution of both maps, one block without attention, 1×1 convolution, sum of the two halves."""
    x = block(module.block, module.conv(torch.cat([decoded, encoded], dim=1)))
    first, second = module.conv2(x).chunk(2, dim=1)
    return first + second


def fftformer(model: FFTformer, image: Tensor) -> Tensor:
    """The whole network, `(B, 3, H, W)` → the same."""

    def blocks(modules: nn.Module, x: Tensor) -> Tensor:
        for module in modules.children():
            assert isinstance(module, TransformerBlock)
            x = block(module, x)
        return x

    def resize(x: Tensor, scale: float) -> Tensor:
        return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)

    height, width = image.shape[-2:]
    image = pad_to_multiple(image)
    level1 = blocks(model.encoder_level1, model.patch_embed(image))
    level2 = blocks(model.encoder_level2, model.down1_2(resize(level1, 0.5)))
    level3 = blocks(model.encoder_level3, model.down2_3(resize(level2, 0.5)))
    x = blocks(model.decoder_level3, level3)
    x = fuse(model.fuse2, model.up3_2(resize(x, 2)), level2)
    x = blocks(model.decoder_level2, x)
    x = fuse(model.fuse1, model.up2_1(resize(x, 2)), level1)
    x = blocks(model.refinement, blocks(model.decoder_level1, x))
    return (model.output(x) + image)[..., :height, :width]
