"""The six metrics of hyperspectral super-resolution, under the two protocols that papers use.

The authors of ESSAformer refer to two frameworks that differ; every result row names its protocol.

| | `sspsr` | `mcnet` |
|---|---|---|
| PSNR | mean over bands, data range 1 | one mean squared error over the cube |
| SSIM | mean over bands, uniform 7 × 7 window | mean over bands, Gaussian 11 × 11, σ = 1.5 |
| SAM | degrees, pixels of norm zero left out | the same |
| CC, RMSE, ERGAS | as below | the same |
| before | nothing | the prediction is clipped to [0, 1] |

CC is the mean over bands of Pearson's correlation; RMSE is over the cube; ERGAS is
`100 / scale · sqrt(mean over bands of (RMSE_b / mean_b)²)` with the real scale. The first framework's code has
a fixed 4, which does not give its published ×8 values. Arrays are `(H, W, bands)` in [0, 1].
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

Protocol = Literal["sspsr", "mcnet"]
METRICS = ("PSNR (dB)", "SSIM", "SAM (°)", "CC", "RMSE", "ERGAS")
LOWER_IS_BETTER = ("SAM (°)", "RMSE", "ERGAS")

DEFINITIONS: dict[str, dict[str, str]] = {
    "sspsr": {
        "PSNR (dB)": "sspsr: mean over bands, data range 1",
        "SSIM": "sspsr: mean over bands, uniform 7 × 7 window, sample covariance, border of 3 left out, data range 1",
        "SAM (°)": "sspsr: mean over pixels, degrees, pixels of norm zero left out",
        "CC": "sspsr: Pearson correlation, mean over bands that vary",
        "RMSE": "sspsr: over the cube",
        "ERGAS": "sspsr: 100 / scale · sqrt(mean over bands of (RMSE / mean)²), real scale",
    },
}
DEFINITIONS["mcnet"] = {
    name: text.replace("sspsr", "mcnet") + "; prediction clipped to [0, 1]"
    for name, text in DEFINITIONS["sspsr"].items()
} | {
    "PSNR (dB)": "mcnet: one mean squared error over the cube, data range 1; prediction clipped to [0, 1]",
    "SSIM": "mcnet: mean over bands, Gaussian 11 × 11 window, σ 1.5, border of 5 left out, data range 1; "
    "prediction clipped to [0, 1]",
}


def score(
    predicted: np.ndarray,
    truth: np.ndarray,
    scale: int,
    protocol: Protocol = "sspsr",
    valid: np.ndarray | None = None,
) -> dict[str, float]:
    """Return all six metrics of one image.

    Args:
        predicted, truth: `(H, W, bands)`, values nominally in [0, 1]; at least as large as SSIM's window.
        scale: factor of the super-resolution, for ERGAS.
        protocol: see the table above.
        valid: `(H, W)` bool, the pixels that count; SSIM counts windows inside them. By default all.

    Returns:
        metric → value, in the order of `METRICS`.

    Raises:
        ValueError: shapes differ, or are smaller than SSIM's window.
    """
    if predicted.shape != truth.shape or predicted.ndim != 3:
        raise ValueError(f"expected two arrays (rows, columns, bands), got {predicted.shape} and {truth.shape}")
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    if protocol == "mcnet":
        predicted = predicted.clip(0, 1)
    similarity = ssim(predicted, truth, gaussian=protocol == "mcnet", valid=valid)
    if valid is not None and not valid.all():
        predicted, truth = predicted[valid][None], truth[valid][None]
    return {
        "PSNR (dB)": psnr(predicted, truth, per_band=protocol == "sspsr"),
        "SSIM": similarity,
        "SAM (°)": sam(predicted, truth),
        "CC": cc(predicted, truth),
        "RMSE": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "ERGAS": ergas(predicted, truth, scale),
    }


def psnr(predicted: np.ndarray, truth: np.ndarray, *, per_band: bool) -> float:
    """Peak signal-to-noise ratio in dB for a data range of 1; infinite for equal arrays."""
    error = np.square(predicted - truth).mean(axis=(0, 1) if per_band else None)
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(error)))


def ssim(predicted: np.ndarray, truth: np.ndarray, *, gaussian: bool, valid: np.ndarray | None = None) -> float:
    """Structural similarity, mean over bands; NaN if every window contains pixels without data.

    Args:
        gaussian: 11 × 11 Gaussian window of σ 1.5 with weighted moments; otherwise uniform 7 × 7 with the
            sample covariance (n − 1), which is scikit-image's default.
        valid: `(H, W)` bool; only windows in which it is true everywhere count. By default all.
    """
    window = 11 if gaussian else 7
    if min(truth.shape[:2]) < window:
        raise ValueError(f"SSIM's window has {window} × {window} pixels, the image only {truth.shape[:2]}")
    correction = 1.0 if gaussian else window**2 / (window**2 - 1)
    inside = slice(window // 2, -(window // 2))
    counted = np.ones(truth.shape[:2], dtype=bool) if valid is None else ndimage.minimum_filter(valid, window)
    counted = counted[inside, inside]
    if not counted.any():
        return float("nan")

    def mean(x: np.ndarray) -> np.ndarray:
        if gaussian:
            filtered = ndimage.gaussian_filter(x, 1.5, radius=5, axes=(0, 1))
        else:
            filtered = ndimage.uniform_filter(x, (window, window, 0), axes=(0, 1, 2))
        return filtered[inside, inside]

    values = []
    for band in range(
        truth.shape[2]
    ):  # band by band, because five filtered copies of a whole scene need too much memory
        x, y = predicted[..., band : band + 1], truth[..., band : band + 1]
        mean_x, mean_y = mean(x), mean(y)
        var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
        covariance = mean(x * y) - mean_x * mean_y
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mean_x * mean_y + c1) * (2 * correction * covariance + c2)
        similar = top / ((mean_x**2 + mean_y**2 + c1) * (correction * (var_x + var_y) + c2))
        values.append(np.mean(similar if counted.all() else similar[counted]))
    return float(np.mean(values))


def sam(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle between spectra in degrees; pixels in which either spectrum is zero do not count."""
    norms = np.linalg.norm(predicted, axis=2) * np.linalg.norm(truth, axis=2)
    counted = norms > 0
    if not counted.any():
        return 0.0
    cosine = np.einsum("hwb,hwb->hw", predicted, truth)[counted] / norms[counted]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def cc(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's correlation per band, mean over bands; bands that are constant in either array do not count."""
    x, y = predicted - predicted.mean(axis=(0, 1)), truth - truth.mean(axis=(0, 1))
    denominator = np.sqrt((x * x).sum(axis=(0, 1)) * (y * y).sum(axis=(0, 1)))
    varies = denominator > 0
    if not varies.any():
        return float("nan")
    return float(((x * y).sum(axis=(0, 1))[varies] / denominator[varies]).mean())


def ergas(predicted: np.ndarray, truth: np.ndarray, scale: int) -> float:
    """Relative global error ERGAS; 0 is perfect. Bands whose true mean is zero do not count."""
    error, means = np.square(predicted - truth).mean(axis=(0, 1)), truth.mean(axis=(0, 1))
    counted = means != 0
    if not counted.any():
        return float("nan")
    return float(100 / scale * np.sqrt(np.mean(error[counted] / means[counted] ** 2)))
