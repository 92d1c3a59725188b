"""PSNR, and SSIM in two definitions.

Papers call several formulas "SSIM", and their values differ by up to 0.02, so every result row states its definition.
All functions take one image `(C, H, W)` in [0, 1], compute in float64 and return a number.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PSNR = "PSNR over all channels and pixels, data range 1, no border left out"
SSIM_3D = "SSIM with an 11x11x11 Gaussian (sigma 1.5) over height, width and channels, replicated borders"
SSIM_2D = "SSIM with an 11x11 Gaussian (sigma 1.5) per channel, valid positions, mean over channels"

LEAST_SIDE = 11
"""Side of SSIM's window, in pixels."""
_C1, _C2 = 0.01**2, 0.03**2


def quantise(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8 bits, as in an output file; returns float64 in [0, 1]."""
    return (image.double().clamp(0, 1) * 255).round() / 255


def psnr(output: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, infinite for equal images.

    Args:
        output, target: `(C, H, W)` in [0, 1].
        mask: `(H, W)` of 0 and 1; only pixels with 1 count.

    Raises:
        ValueError: the shapes differ.
    """
    _check(output, target)
    error = (output.double() - target.double()).square()
    mse = error.mean() if mask is None else (error * mask).sum() / (mask.sum() * error.shape[0])
    return float("inf") if mse == 0 else float(-10 * torch.log10(mse))


def ssim_3d(output: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """SSIM as deblurring papers compute it: one 3-D Gaussian over H x W x C, after a MATLAB script.

    Borders are replicated, also in the direction of channels, and all positions count.

    Args:
        output, target: `(C, H, W)` in [0, 1].
        mask: `(H, W)` of 0 and 1; only positions with 1 count.

    Raises:
        ValueError: the shapes differ.
    """
    _check(output, target)
    window = _gaussian()
    x, y = output.double()[None, None], target.double()[None, None]

    def blur(volume: Tensor) -> Tensor:
        volume = F.pad(volume, (5,) * 6, mode="replicate")
        for shape in ((11, 1, 1), (1, 11, 1), (1, 1, 11)):
            volume = F.conv3d(volume, window.to(volume.device).view(1, 1, *shape))
        return volume

    similarity = _similarity(blur(x), blur(y), blur(x * x), blur(y * y), blur(x * y))[0, 0]
    if mask is None:
        return float(similarity.mean())
    return float((similarity * mask).sum() / (mask.sum() * similarity.shape[0]))


def ssim_2d(output: Tensor, target: Tensor) -> float:
    """SSIM of Wang et al. (2004) per channel, averaged over the channels.

    Args:
        output, target: `(C, H, W)` in [0, 1], of at least `LEAST_SIDE` pixels on each side.

    Raises:
        ValueError: the shapes differ.
    """
    _check(output, target)
    window = _gaussian()
    x, y = output.double()[:, None], target.double()[:, None]

    def blur(maps: Tensor) -> Tensor:
        maps = F.conv2d(maps, window.to(maps.device).view(1, 1, 11, 1))
        return F.conv2d(maps, window.to(maps.device).view(1, 1, 1, 11))

    return float(_similarity(blur(x), blur(y), blur(x * x), blur(y * y), blur(x * y)).mean())


def _similarity(x: Tensor, y: Tensor, xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    luminance = (2 * x * y + _C1) / (x * x + y * y + _C1)
    return luminance * (2 * (xy - x * y) + _C2) / ((xx - x * x) + (yy - y * y) + _C2)


def _gaussian() -> Tensor:
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * 1.5**2))
    return weights / weights.sum()


def _check(output: Tensor, target: Tensor) -> None:
    if output.ndim != 3 or output.shape != target.shape:
        raise ValueError(f"expected two (C, H, W) images, got {tuple(output.shape)} and {tuple(target.shape)}")
