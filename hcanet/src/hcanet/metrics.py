"""PSNR, SSIM and SAM in the two families of definitions that denoising papers use.

`range 1`: per band with data range 1 (SSIM: scikit-image's default window), mean over bands, no clipping, SAM in
radians. `hsir`: the denoised image is clipped to [0, 1], SSIM has data range 2 (the papers gave no range, and older
scikit-image then used 2 for floats), SAM in degrees.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from skimage.metrics import structural_similarity

Family = Literal["range 1", "hsir"]
FAMILIES: tuple[Family, ...] = get_args(Family)
METRICS: dict[Family, tuple[str, ...]] = {
    "range 1": ("PSNR (dB)", "SSIM", "SAM (rad)", "median-band PSNR (dB)"),
    "hsir": ("PSNR, clipped (dB)", "SSIM, range 2", "SAM (°)"),
}
DEFINITIONS: dict[str, str] = {
    "PSNR (dB)": "mean over bands, data range 1, not clipped",
    "SSIM": "mean over bands, uniform 7 × 7 window (scikit-image's default), data range 1, not clipped",
    "SAM (rad)": "mean over pixels of arccos((<x, y> + 1e-8) / ((|x| + 1e-8)(|y| + 1e-8))), radians, not clipped",
    "median-band PSNR (dB)": "median over bands, data range 1, not clipped",
    "PSNR, clipped (dB)": "mean over bands, data range 1, clipped to [0, 1]",
    "SSIM, range 2": "mean over bands, uniform 7 × 7 window, data range 2 (scikit-image's default for "
    "values in [-1, 1]), clipped to [0, 1]",
    "SAM (°)": "mean over pixels, degrees, clipped to [0, 1]",
}


def score(
    image: np.ndarray, clean: np.ndarray, family: Family = "range 1", valid: np.ndarray | None = None
) -> dict[str, float]:
    """Return every metric of a family.

    Args:
        image, clean: `(bands, H, W)`; SSIM is left out for images of less than 7 × 7 pixels.
        valid: `(H, W)` bool, the pixels that count; by default all.

    Raises:
        ValueError: the shapes differ.
    """
    if image.shape != clean.shape or image.ndim != 3:
        raise ValueError(f"expected two images (bands, H, W), got {image.shape} and {clean.shape}")
    counted = np.ones(image.shape[1:], dtype=bool) if valid is None else valid
    image, clean = image.astype(np.float64), clean.astype(np.float64)
    if family == "hsir":
        image = np.clip(image, 0, 1)
    errors = ((image - clean) ** 2)[:, counted].mean(axis=1)
    psnr = -10 * np.log10(np.maximum(errors, 1e-20))
    similarity = np.nan
    if min(image.shape[1:]) >= 7:
        data_range = 1.0 if family == "range 1" else 2.0
        inner = (slice(3, -3), slice(3, -3))  # like scikit-image, without a border of half a window
        maps = [
            structural_similarity(a, b, data_range=data_range, full=True)[1] for a, b in zip(image, clean, strict=True)
        ]
        if counted[inner].any():
            similarity = np.mean([one[inner][counted[inner]].mean() for one in maps])
    angle = spectral_angle(image, clean, counted)
    values = [psnr.mean(), similarity, angle, np.median(psnr)]
    if family != "range 1":
        values = [psnr.mean(), similarity, np.degrees(angle)]
    return {name: float(v) for name, v in zip(METRICS[family], values, strict=True) if not np.isnan(v)}


def spectral_angle(image: np.ndarray, clean: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean angle between spectra in radians; the cosine is clipped, else rounding could give NaN."""
    product = (image * clean).sum(axis=0) + 1e-8
    norms = (np.linalg.norm(image, axis=0) + 1e-8) * (np.linalg.norm(clean, axis=0) + 1e-8)
    angles = np.arccos(np.clip(product / norms, -1, 1))
    return float(angles.mean() if valid is None else angles[valid].mean())
