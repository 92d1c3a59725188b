"""What needs no training: rows to stand beside the network's.

- `total_variation`: Chambolle's, band by band, weight 0.4. It sees one band at a time.
- `subspace`: the spectra of a scene lie near a space of few dimensions. Bands are divided by their noise level, the
  mean is removed, five eigen-images are kept, which have unit noise, and each goes through non-local means.
- `subspace_after_outliers`: the same after values that lie far from the rank-5 estimate have been replaced by it,
  for stripes, dead lines and impulses.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from common.hyperspectral.noise import estimated_sigmas

RANK = 5


def total_variation(noisy: np.ndarray, weight: float = 0.4) -> np.ndarray:
    """`(bands, H, W)` → the same."""
    return np.stack([denoise_tv_chambolle(band, weight=weight) for band in noisy])


def subspace(noisy: np.ndarray, sigmas: np.ndarray | None = None) -> np.ndarray:
    """SVD of rank 5 with non-local means in the eigen-images, `(bands, H, W)` → the same.

    Args:
        sigmas: of every band on the scale of 0 to 255; estimated where they are not known.
    """
    vectors, images, mean, scale = _eigen_images(noisy, estimated_sigmas(noisy) if sigmas is None else sigmas)
    smooth = np.stack(
        [denoise_nl_means(image, patch_size=5, patch_distance=8, h=0.8, sigma=1.0, fast_mode=True) for image in images]
    )
    return _back(vectors, smooth, mean, scale)


def subspace_after_outliers(noisy: np.ndarray, rounds: int = 8, limit: float = 2.5) -> np.ndarray:
    """`subspace` of an image whose outliers are replaced; starts from the 5 × 5 median."""
    sigmas = estimated_sigmas(noisy)
    cleaned = ndimage.median_filter(noisy, size=(1, 5, 5))
    for _ in range(rounds):
        estimate = _back(*_eigen_images(cleaned, sigmas))
        residual = noisy - estimate
        robust = np.median(np.abs(residual), axis=(1, 2), keepdims=True) / 0.6745
        cleaned = np.where(np.abs(residual) > limit * robust, estimate, noisy)
    return subspace(cleaned, sigmas)


def _eigen_images(noisy: np.ndarray, sigmas: np.ndarray) -> tuple[np.ndarray, ...]:
    """Vectors `(bands, rank)`, images `(rank, H, W)`, and the mean and scale that were taken out."""
    scale = np.maximum(np.asarray(sigmas) / 255, 1e-4)[:, None]
    flat = noisy.reshape(len(noisy), -1) / scale
    mean = flat.mean(axis=1, keepdims=True)
    flat = flat - mean
    vectors = np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :RANK]
    return vectors, (vectors.T @ flat).reshape(-1, *noisy.shape[1:]), mean, scale


def _back(vectors: np.ndarray, images: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    flat = (vectors @ images.reshape(len(images), -1) + mean) * scale
    return flat.reshape(-1, *images.shape[1:])
