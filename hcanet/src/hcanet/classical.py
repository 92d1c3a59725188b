"""What needs no training: rows to stand beside the network's.

- `total_variation`: Chambolle's, band by band, weight 0.4. It sees one band at a time.
- `subspace`: five eigen-images (see `eigen.py`), each through non-local means.
- `subspace_after_outliers`: the same after values that lie far from the rank-5 estimate have been replaced by it,
  for stripes, dead lines and impulses.
"""

from __future__ import annotations

import numpy as np
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from hcanet.eigen import EigenSpace, without_outliers
from hcanet.noise import estimated_sigmas

RANK = 5


def total_variation(noisy: np.ndarray, weight: float = 0.4) -> np.ndarray:
    """`(bands, H, W)` → the same."""
    return np.stack([denoise_tv_chambolle(band, weight=weight) for band in noisy])


def subspace(noisy: np.ndarray, sigmas: np.ndarray | None = None) -> np.ndarray:
    """SVD of rank 5 with non-local means in the eigen-images, `(bands, H, W)` → the same.

    Args:
        sigmas: of every band on the scale of 0 to 255; estimated where they are not known.
    """
    space = EigenSpace.of(noisy, estimated_sigmas(noisy) if sigmas is None else sigmas, RANK)
    smooth = [
        denoise_nl_means(image, patch_size=5, patch_distance=8, h=0.8, sigma=1.0, fast_mode=True)
        for image in space.project(noisy)
    ]
    return space.back(np.stack(smooth))


def subspace_after_outliers(noisy: np.ndarray) -> np.ndarray:
    """`subspace` of an image whose outliers are replaced."""
    sigmas = estimated_sigmas(noisy)
    return subspace(without_outliers(noisy, sigmas, RANK), sigmas)
