"""`imresize` against values worked out by hand from MATLAB's definition, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from essaformer.resize import bicubic, imresize, weights


def test_kernel_values() -> None:
    """Keys, a = −1/2: 1 at 0, 0 at 1 and 2, 0.5625 at 1/2, −0.0625 at 3/2."""
    np.testing.assert_allclose(
        bicubic(torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, -0.5])).numpy(), [1, 0.5625, 0, -0.0625, 0, 0, 0.5625]
    )


def test_doubling_by_hand() -> None:
    """Output 1 of ×2 lies at 0.75: distances 1.75, 0.75, 0.25, 1.25 to pixels −1, 0, 1, 2; −1 and 0 mirror to 2 and 1.

    k(1.75) = −0.0234375, k(0.75) = 0.2265625, k(0.25) = 0.8671875, k(1.25) = −0.0703125.
    """
    row = np.array([[0.0, 1.0, 2.0, 3.0]])
    expected = -0.0234375 * 1 + 0.2265625 * 0 + 0.8671875 * 0 - 0.0703125 * 1
    assert imresize(row, size=(1, 8))[0, 0] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_allclose(imresize(row, size=(1, 8))[0, 3:5], [1.25, 1.75])  # inside, a ramp stays one


def test_halving_by_hand() -> None:
    """Output i of ×1/2 lies at 2i − 0.5; taps at distances 0.5 … 3.5 with k(d/2)/2, both sides."""
    taps = bicubic(torch.tensor([0.25, 0.75, 1.25, 1.75])).double().numpy() / 2
    np.testing.assert_allclose(2 * taps.sum(), 1)
    expected = np.concatenate([taps[::-1], taps])
    matrix = weights(16, 8, 0.5)
    np.testing.assert_allclose(matrix[3], np.r_[np.zeros(3), expected, np.zeros(5)], atol=1e-15)
    # Output 1 at 1.5: taps at −2 … 5; −2, −1, 0 mirror to pixels 3, 2, 1.
    first = np.zeros(16)
    np.add.at(first, [2, 1, 0, 0, 1, 2, 3, 4], expected)
    np.testing.assert_allclose(matrix[0], first, atol=1e-15)


@pytest.mark.parametrize("scale", [0.125, 0.25, 1 / 3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 8.0])
def test_constants_stay_and_mirrors_commute(scale: float) -> None:
    rng = np.random.default_rng(0)
    picture = rng.random((24, 48))
    np.testing.assert_allclose(imresize(np.full((5, 24, 48), 3.7), scale), 3.7)
    result = imresize(picture, scale)
    assert result.shape == (int(np.ceil(24 * scale)), int(np.ceil(48 * scale)))
    np.testing.assert_allclose(imresize(picture.T, scale), result.T, atol=1e-12)
    if (24 * scale).is_integer():
        np.testing.assert_allclose(imresize(picture[::-1, ::-1], scale), result[::-1, ::-1], atol=1e-12)


def test_one_to_one_changes_nothing() -> None:
    picture = np.random.default_rng(0).random((3, 7, 5))
    np.testing.assert_allclose(imresize(picture, 1.0), picture, atol=1e-15)


def test_antialiasing_equals_pillows_away_from_borders() -> None:
    """Pillow's bicubic has the same kernel and stretch; only its borders differ."""
    from PIL import Image

    picture = np.random.default_rng(0).random((64, 48)).astype(np.float32)
    theirs = np.asarray(Image.fromarray(picture, mode="F").resize((12, 16), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(imresize(picture, 0.25)[3:-3, 3:-3], theirs[3:-3, 3:-3], atol=1e-6)


def test_tensors_equal_arrays_and_have_gradients() -> None:
    picture = torch.rand(2, 3, 12, 9, dtype=torch.float64, requires_grad=True)
    result = imresize(picture, 2.0)
    np.testing.assert_allclose(result.detach().numpy(), imresize(picture.detach().numpy(), 2.0), atol=1e-14)
    result.sum().backward()
    assert picture.grad is not None and picture.grad.sum().item() == pytest.approx(2 * 3 * 24 * 18)


def test_a_kernel_wider_than_the_picture_is_mirrored_again() -> None:
    assert imresize(np.array([[2.0, 4.0]]), size=(1, 1))[0, 0] == pytest.approx(3)
    assert imresize(np.full((1, 3, 3), 5.0), 0.125).shape == (1, 1, 1)


@pytest.mark.parametrize("arguments", [{}, {"scale": 2.0, "size": (4, 4)}, {"scale": 0.0}, {"size": (0, 4)}])
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"scale|pixel"):
        imresize(np.zeros((4, 4)), **arguments)
