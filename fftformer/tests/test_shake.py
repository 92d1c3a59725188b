"""Camera shake: kernels, linear intensity, registration, held-out images, exact repetition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.errors import UserError
from fftformer.metrics import psnr
from fftformer.shake import (
    HELD_OUT_PHOTOGRAPHS,
    KERNEL_SIZE,
    TRAINING_PHOTOGRAPHS,
    ShakenPhotographs,
    held_out_photographs,
    random_kernel,
    shake,
    to_linear,
    to_srgb,
)


@pytest.fixture(scope="module")
def kernels() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack([random_kernel(random) for _ in range(300)])


def test_kernels_keep_light_and_place(kernels: np.ndarray) -> None:
    assert kernels.shape == (300, KERNEL_SIZE, KERNEL_SIZE) and kernels.min() >= 0
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1, atol=1e-6)
    offsets = np.arange(KERNEL_SIZE) - KERNEL_SIZE // 2
    for axis in (1, 2):
        centre = (kernels.sum(axis=axis) * offsets).sum(axis=1)
        np.testing.assert_allclose(centre, 0, atol=1e-5)


def test_kernels_are_curved_paths_of_the_stated_size(kernels: np.ndarray) -> None:
    def extent(kernel: np.ndarray) -> int:
        return max(np.ptp(np.nonzero(kernel.sum(axis=axis) > 0)[0]) for axis in (0, 1))

    extents = np.array([extent(kernel) for kernel in kernels])
    assert np.percentile(extents, 1) >= 4 and np.median(extents) >= 7 and extents.max() <= 16
    # The kernel is a thin connected line: few pixels are above zero, and none has most of the weight.
    assert all(ndimage.label(kernel > 0, np.ones((3, 3)))[1] == 1 for kernel in kernels)
    assert np.median((kernels > 0).mean(axis=(1, 2))) < 0.3
    assert np.median(kernels.max(axis=(1, 2))) < 0.25
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_srgb_is_inverted_exactly() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-5)
    assert to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


def test_blur_is_the_convolution_of_linear_intensity() -> None:
    random = np.random.default_rng(1)
    linear, kernel = random.random((61, 52, 3)).astype(np.float32), random_kernel(random)
    blurred = shake(linear, kernel, 0.0, random)
    half = KERNEL_SIZE // 2
    expected = np.stack([ndimage.convolve(linear[..., c], kernel) for c in range(3)], axis=-1)[half:-half, half:-half]
    assert blurred.shape == expected.shape
    assert np.abs(blurred - to_srgb(expected)).max() <= 0.5 / 255 + 1e-5, "rounded to 8 bits"
    np.testing.assert_allclose(blurred * 255, np.rint(blurred * 255), atol=1e-4)


def test_noise_has_the_stated_size() -> None:
    grey = np.full((216, 216, 3), to_linear(np.float32(0.5)), np.float32)
    kernel = random_kernel(np.random.default_rng(0))
    noisy = shake(grey, kernel, 0.02, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.02, rel=0.02) and noisy.mean() == pytest.approx(0.5, abs=1e-3)


def test_items_repeat_and_differ() -> None:
    data = ShakenPhotographs(crop=64, seed=1, length=10)
    first = data[3, 7]
    data[0, 0]
    for key in ("blurred", "sharp"):
        assert first[key].shape == (3, 64, 64) and first[key].dtype == torch.float32
        assert first[key].min() >= 0 and first[key].max() <= 1
        assert torch.equal(data[3, 7][key], first[key])
        assert torch.equal(ShakenPhotographs(64, 1, 20)[3, 7][key], first[key])
    for other in (data[4, 7], data[3, 8], ShakenPhotographs(64, 2, 10)[3, 7]):
        assert not torch.equal(other["blurred"], first["blurred"])
    assert len(data) == 10


def test_blurred_and_sharp_show_the_same_place() -> None:
    data = ShakenPhotographs(crop=96, seed=0)
    for index in range(12):
        item = data[0, index]
        sharp, blurred = (item[key].mean(dim=0).numpy() for key in ("sharp", "blurred"))
        smooth = ndimage.gaussian_filter(sharp, 3)
        errors = {
            (i, j): np.square(np.roll(smooth, (i, j), (0, 1)) - blurred)[12:-12, 12:-12].mean()
            for i in (-6, 0, 6)
            for j in (-6, 0, 6)
        }
        assert min(errors, key=errors.get) == (0, 0)


def test_held_out_images_are_fixed_distinct_and_clearly_blurred() -> None:
    assert not set(HELD_OUT_PHOTOGRAPHS) & set(TRAINING_PHOTOGRAPHS)
    items = held_out_photographs()
    assert len({item["name"] for item in items}) == len(items) == 6
    scores = [psnr(item["blurred"], item["sharp"]) for item in items]
    assert 24 < np.mean(scores) < 28 and max(scores) < 32
    again = held_out_photographs()
    assert all(torch.equal(a["blurred"], b["blurred"]) for a, b in zip(items, again, strict=True))


def test_crop_larger_than_the_photographs_is_refused() -> None:
    with pytest.raises(UserError, match="--crop 400: the demo's photographs allow 1 to"):
        ShakenPhotographs(crop=400, seed=0)
