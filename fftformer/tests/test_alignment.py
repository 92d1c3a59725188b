"""The protocols of RealBlur and Levin find known displacements, and their scores equal independent ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from common.errors import UserError
from fftformer.alignment import align, best_shift, realblur_scores
from fftformer.images import read_rgb
from fftformer.layouts import find_pairs
from support.data import real_data


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    """Smooth random structure at several scales, which interpolation hardly changes."""
    random = np.random.default_rng(0)
    noise = random.random((140, 190, 3))
    image = sum(ndimage.gaussian_filter(noise, (sigma, sigma, 0)) * sigma for sigma in (2, 4, 8))
    image = (image - image.min()) / np.ptp(image)
    return (0.1 + 0.8 * image).astype(np.float32)


HOMOGRAPHY = np.array([[1.004, 0.003, 2.3], [-0.002, 0.997, -1.6], [1e-5, -5e-6, 1]], np.float32)


def test_a_known_homography_and_brightness_are_undone(target: np.ndarray) -> None:
    size = (target.shape[1], target.shape[0])
    moved = 0.85 * cv2.warpPerspective(target, HOMOGRAPHY, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    aligned = align(moved, target)
    corners = np.float32([[[10, 10], [180, 10], [180, 130], [10, 130]]])
    error = cv2.perspectiveTransform(corners, aligned.homography) - cv2.perspectiveTransform(corners, HOMOGRAPHY)
    assert np.abs(error).max() < 0.2, "pixels; the corners were displaced by up to 4"
    before = -10 * np.log10(np.square(moved - target).mean())
    after, similarity = realblur_scores(moved, target)
    assert before < 25 and after > 40 and similarity > 0.99


def test_only_the_overlap_counts(target: np.ndarray) -> None:
    shift = np.float32([[1, 0, 7], [0, 1, 0]])
    moved = cv2.warpAffine(target, shift, (target.shape[1], target.shape[0]), borderMode=cv2.BORDER_REPLICATE)
    aligned = align(moved, target)
    # The output lacks the last 7 columns of the target.
    assert not aligned.mask[:, -6:].any() and aligned.mask[:, :-8].all()
    assert not aligned.output[:, -6:].any() and not aligned.target[:, -6:].any()
    score, _ = realblur_scores(moved, target)
    expected = np.square(aligned.output - aligned.target, dtype=np.float64)[aligned.mask > 0].mean()
    assert score == pytest.approx(-10 * np.log10(expected), abs=1e-6)
    assert score > 35


def test_equal_images_score_perfectly(target: np.ndarray) -> None:
    quantised = np.rint(target * 255).astype(np.float32) / 255
    score, similarity = realblur_scores(quantised, quantised)
    assert score > 100 and similarity == pytest.approx(1.0, abs=1e-6)


def test_images_without_structure_are_refused() -> None:
    flat = np.full((60, 60, 3), 0.5, np.float32)
    with pytest.raises(UserError, match="cannot be aligned"):
        align(flat, flat)


@pytest.mark.parametrize("shift", [(0, 0), (6, -6), (-3, 5)])
def test_best_shift_is_found(target: np.ndarray, shift: tuple[int, int]) -> None:
    moved, inner = best_shift(np.roll(target, shift, axis=(0, 1)), target)
    assert inner.shape == (100, 150, 3)
    np.testing.assert_array_equal(inner, target[20:-20, 20:-20])
    np.testing.assert_array_equal(moved, inner)


def test_a_shift_beyond_reach_is_not_found(target: np.ndarray) -> None:
    moved, inner = best_shift(np.roll(target, (7, 0), axis=(0, 1)), target)
    assert not np.allclose(moved, inner)


def test_wrong_arguments(target: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two \\(H, W, 3\\)"):
        align(target[:-1], target)
    for border in (5, 70):
        with pytest.raises(ValueError, match="border must lie"):
            best_shift(target, target, border=border)


def test_real_levin_inputs() -> None:
    """Compare with an independent loop over shifts; the description of the data says about 23 dB on average."""
    scores = []
    for pair in find_pairs(real_data("levin09"))[::6]:
        blurred, sharp = read_rgb(pair.blurred), read_rgb(pair.sharp)
        moved, inner = best_shift(blurred, sharp)
        score = -10 * np.log10(np.square(moved - inner, dtype=np.float64).mean())
        errors = [
            np.square(np.roll(blurred, (i, j), (0, 1)) - sharp, dtype=np.float64)[20:-20, 20:-20].mean()
            for i in range(-6, 7)
            for j in range(-6, 7)
        ]
        assert score == pytest.approx(-10 * np.log10(min(errors)), abs=1e-9)
        scores.append(score)
    assert 20 < np.mean(scores) < 26
