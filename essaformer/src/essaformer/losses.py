"""The `sspsr` objective: L1 with total variation in space and along the spectrum."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def total_variation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean square differences of neighbours.

    Args:
        x: `(B, bands, H, W)`.

    Returns:
        in space: the mean over neighbours in a column plus the mean over neighbours in a row; along the
        spectrum: the mean over neighbouring bands.
    """
    spatial = (x[:, :, 1:] - x[:, :, :-1]).square().mean() + (x[..., 1:] - x[..., :-1]).square().mean()
    spectral = (x[:, 1:] - x[:, :-1]).square().mean()
    return spatial, spectral


def sspsr_loss(output: Tensor, target: Tensor, spatial_weight: float, spectral_weight: float) -> Tensor:
    """`L1(output, target) + spatial_weight · TV_space(output) + spectral_weight · TV_spectrum(output)`."""
    loss = F.l1_loss(output, target)
    if spatial_weight or spectral_weight:
        spatial, spectral = total_variation(output)
        loss = loss + spatial_weight * spatial + spectral_weight * spectral
    return loss
