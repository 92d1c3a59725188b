"""PSNR and both SSIMs equal those of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.errors import UserError
from fftformer.metrics import psnr, quantise, ssim_2d, ssim_3d
from fftformer.scoring import score_pictures


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.from_numpy(data.astronaut()[100:180, 140:236] / 255.0).permute(2, 0, 1)
    noise = np.random.default_rng(0).standard_normal(target.shape) * 0.08
    return quantise(target + torch.from_numpy(noise)), target


def test_psnr_is_scikit_image_s(pair) -> None:
    image, target = pair
    assert psnr(image, target) == pytest.approx(
        peak_signal_noise_ratio(target.numpy(), image.numpy(), data_range=1), abs=1e-9
    )
    assert psnr(target, target) == float("inf")


def test_psnr_under_a_mask_counts_only_the_mask(pair) -> None:
    image, target = pair
    mask = torch.zeros(target.shape[1:])
    mask[:30, :40] = 1
    assert psnr(image, target, mask) == pytest.approx(psnr(image[:, :30, :40], target[:, :30, :40]), abs=1e-9)


def test_ssim_2d_is_the_gaussian_one_of_scikit_image(pair) -> None:
    image, target = pair
    _, similarity = structural_similarity(
        target.numpy(),
        image.numpy(),
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        full=True,
    )
    assert ssim_2d(image, target) == pytest.approx(similarity[:, 5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_3d_is_scikit_image_s_on_the_volume(pair) -> None:
    """The window is longer than the number of channels, so the replicated borders matter."""
    image, target = (np.pad(p.numpy(), 5, mode="edge") for p in pair)
    _, similarity = structural_similarity(
        target, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    assert ssim_3d(*pair) == pytest.approx(similarity[5:-5, 5:-5, 5:-5].mean(), abs=1e-9)


def test_the_two_ssims_differ(pair) -> None:
    assert abs(ssim_2d(*pair) - ssim_3d(*pair)) > 1e-3


def test_images_that_are_too_small_for_ssim_are_named() -> None:
    image = torch.rand(3, 20, 10)
    with pytest.raises(UserError, match="scene7: has a side below 11 pixels, which SSIM needs; remove the pair"):
        score_pictures([{"name": "scene7", "blurred": image, "sharp": image}], lambda x: x, "pairs")


def test_shapes_must_agree(pair) -> None:
    with pytest.raises(ValueError, match="expected two"):
        psnr(pair[0], pair[1][:, :-1])
