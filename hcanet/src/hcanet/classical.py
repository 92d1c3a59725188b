"""Denoising methods without training, to compare with the network.

- `total_variation`: Chambolle's method for each band, weight 0.4.
- `subspace`: five eigen-images (see `eigen.py`), each denoised by non-local means.
- `subspace_after_outliers`: the same, after values far from the rank-5 estimate were replaced by it; for stripes, dead
  lines and impulses.
"""

from __future__ import annotations

import numpy as np
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from hcanet.eigen import EigenSpace, without_outliers
from hcanet.noise import estimated_sigmas

RANK = 5


def total_variation(noisy: np.ndarray, weight: float = 0.4) -> np.ndarray:
    """Denoise each band of `(bands, H, W)` by total variation."""
    return np.stack([denoise_tv_chambolle(band, weight=weight) for band in noisy])


def subspace(noisy: np.ndarray, sigmas: np.ndarray | None = None) -> np.ndarray:
    """Denoise `(bands, H, W)` by an SVD of rank 5 and non-local means of the eigen-images.

    Args:
        sigmas: noise level of every band on the scale of 0 to 255; estimated if None.
    """
    space = EigenSpace.of(noisy, estimated_sigmas(noisy) if sigmas is None else sigmas, RANK)
    smooth = [
        denoise_nl_means(image, patch_size=5, patch_distance=8, h=0.8, sigma=1.0, fast_mode=True)
        for image in space.project(noisy)
    ]
    return space.back(np.stack(smooth))


def subspace_after_outliers(noisy: np.ndarray) -> np.ndarray:
    """Replace outliers of `(bands, H, W)`, then denoise by `subspace`."""
    sigmas = estimated_sigmas(noisy)
    return subspace(without_outliers(noisy, sigmas, RANK), sigmas)
