"""Scores for data sets whose targets are not registered to the blurred images.

RealBlur's two cameras and Levin's repeated exposures leave a small displacement between input and target, which no
network can know. The published protocols remove it before scoring:

- RealBlur (Rim et al., ECCV 2020): match the intensity by one factor, register the output to the target by the
  homography with the largest enhanced correlation coefficient (ECC), and score the pixels where the warped output
  is defined.
- Levin et al. (CVPR 2009): take the best score over all whole-pixel shifts, without the borders.

Images are `(H, W, 3)` in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from common.errors import UserError

REALBLUR_PSNR = "PSNR after the RealBlur authors' ECC homography alignment, over the overlap, data range 1"
REALBLUR_SSIM = "SSIM per channel (Gaussian, sigma 1.5) after the RealBlur authors' alignment, over the overlap"
LEVIN = "images are first shifted by the whole pixels, at most 6, that give the best PSNR, and cut by 20 pixels"

_SSIM_BORDER = 5  # half of the 11x11 window; positions whose window leaves the image do not count


@dataclass(frozen=True)
class Aligned:
    """An output registered to its target.

    Attributes:
        output, target: `(H, W, 3)` float32 in [0, 1], zero outside the overlap.
        mask: `(H, W)` float32, 1 where the output is defined, otherwise 0.
        homography: `(3, 3)`, maps target coordinates to output coordinates, in pixels.
    """

    output: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    homography: np.ndarray


def align(output: np.ndarray, target: np.ndarray, *, iterations: int = 100) -> Aligned:
    """Register `output` to `target` as RealBlur's evaluation does.

    Args:
        output, target: `(H, W, 3)` in [0, 1].
        iterations: number of ECC iterations, as published; there is no other stopping criterion.

    Raises:
        ValueError: the shapes differ.
        UserError: ECC does not converge, for example for an image without structure.
    """
    output, target = _check(output, target)
    matched = output * np.float32((target * output).sum() / max(float((output * output).sum()), 1e-12))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 0.0)
    try:
        _, homography = cv2.findTransformECC(
            cv2.cvtColor(target, cv2.COLOR_RGB2GRAY),
            cv2.cvtColor(matched, cv2.COLOR_RGB2GRAY),
            np.eye(3, dtype=np.float32),
            cv2.MOTION_HOMOGRAPHY,
            criteria,  # OpenCV first smooths with a 5x5 Gaussian by default, as published
        )
    except cv2.error:
        raise UserError("the output cannot be aligned to its target: ECC found no common structure") from None
    size = (target.shape[1], target.shape[0])
    warped = cv2.warpPerspective(
        matched, homography, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpPerspective(
        np.ones(target.shape[:2], np.float32),
        homography,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    inside = mask[..., None]
    return Aligned((warped * inside).clip(0, 1), (target * inside).clip(0, 1), mask, homography)


def realblur_scores(output: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """PSNR in dB and SSIM after alignment, as `REALBLUR_PSNR` and `REALBLUR_SSIM` define them.

    Args:
        output, target: `(H, W, 3)` in [0, 1], rounded to 8 bits.

    Raises:
        ValueError, UserError: as `align`.
    """
    aligned = align(output, target)
    error = np.square(aligned.output - aligned.target, dtype=np.float64).sum() / (3 * aligned.mask.sum())
    psnr = float("inf") if error == 0 else float(-10 * np.log10(error))
    _, similarity = structural_similarity(
        aligned.target,
        aligned.output,
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    inner = slice(_SSIM_BORDER, -_SSIM_BORDER)
    mask = aligned.mask[inner, inner]
    return psnr, float((similarity[inner, inner].mean(axis=2) * mask).sum() / mask.sum())


def best_shift(
    output: np.ndarray, target: np.ndarray, *, reach: int = 6, border: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Find the whole-pixel shift at which the output agrees best with the target.

    Args:
        output, target: `(H, W, 3)`.
        reach: largest shift in rows and in columns, in pixels.
        border: pixels cut from every side of the target, at least `reach`.

    Returns:
        the shifted output and the target, both without the border and of equal shape.

    Raises:
        ValueError: the shapes differ, or `border` is smaller than `reach` or leaves no pixels.
    """
    output, target = _check(output, target)
    height, width = target.shape[:2]
    if not reach <= border < min(height, width) / 2:
        raise ValueError(f"border must lie between reach {reach} and half of {height}x{width}, got {border}")
    inner = target[border : height - border, border : width - border]

    def window(rows: int, columns: int) -> np.ndarray:
        return output[border + rows : height - border + rows, border + columns : width - border + columns]

    shifts = [(rows, columns) for rows in range(-reach, reach + 1) for columns in range(-reach, reach + 1)]
    errors = [float(np.square(window(*shift) - inner, dtype=np.float64).mean()) for shift in shifts]
    return window(*shifts[int(np.argmin(errors))]), inner


def _check(output: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if output.ndim != 3 or output.shape != target.shape:
        raise ValueError(f"expected two (H, W, 3) images, got {output.shape} and {target.shape}")
    return np.ascontiguousarray(output, np.float32), np.ascontiguousarray(target, np.float32)
