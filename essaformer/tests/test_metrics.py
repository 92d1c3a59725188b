"""Every measure against an independent implementation and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from essaformer.metrics import METRICS, cc, ergas, psnr, sam, score, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random((24, 31, 4)).cumsum(axis=0) / 24
    return truth + 0.05 * rng.standard_normal(truth.shape), truth


def test_psnr_by_hand() -> None:
    truth, predicted = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    predicted[..., 0], predicted[..., 1] = 0.1, 0.01  # 20 dB and 40 dB
    assert psnr(predicted, truth, per_band=True) == pytest.approx(30)
    assert psnr(predicted, truth, per_band=False) == pytest.approx(-10 * np.log10((0.01 + 0.0001) / 2))


def test_psnr_and_ssim_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    predicted, truth = pair
    bands = range(truth.shape[2])
    expected = np.mean([peak_signal_noise_ratio(truth[..., b], predicted[..., b], data_range=1) for b in bands])
    assert psnr(predicted, truth, per_band=True) == pytest.approx(expected)
    uniform = np.mean([structural_similarity(truth[..., b], predicted[..., b], data_range=1) for b in bands])
    assert ssim(predicted, truth, gaussian=False) == pytest.approx(uniform)
    gaussian = [
        structural_similarity(
            truth[..., b],
            predicted[..., b],
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for b in bands
    ]
    assert ssim(predicted, truth, gaussian=True) == pytest.approx(np.mean(gaussian))


def test_sam_by_hand() -> None:
    truth = np.array([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 0.0]]])
    predicted = np.array([[[0.0, 3.0], [1.0, 0.0]], [[1.0, 1.0], [5.0, 0.0]]])
    # 90°, 45°, skipped (zero norm), 0°
    assert sam(predicted, truth) == pytest.approx(45)
    assert sam(np.zeros_like(truth), truth) == 0.0


def test_cc_equals_numpy_and_skips_constant_bands(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = pair
    expected = [np.corrcoef(predicted[..., b].ravel(), truth[..., b].ravel())[0, 1] for b in range(4)]
    assert cc(predicted, truth) == pytest.approx(np.mean(expected))
    truth[..., 2] = 0.5
    assert cc(predicted, truth) == pytest.approx(np.mean([expected[b] for b in (0, 1, 3)]))


def test_ergas_by_hand_with_the_real_scale() -> None:
    truth = np.stack([np.full((3, 3), 0.5), np.full((3, 3), 0.25)], axis=-1)
    predicted = truth + 0.05
    expected = 100 / 8 * np.sqrt(((0.05 / 0.5) ** 2 + (0.05 / 0.25) ** 2) / 2)
    assert ergas(predicted, truth, 8) == pytest.approx(expected)
    assert ergas(predicted, truth, 4) == pytest.approx(2 * expected)


def test_protocols_differ_where_they_should(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = pair
    sspsr, mcnet = score(predicted, truth, 4), score(predicted, truth, 4, "mcnet")
    assert list(sspsr) == list(mcnet) == list(METRICS)
    clipped = np.clip(predicted, 0, 1)
    assert sspsr["RMSE"] == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)))
    assert mcnet["RMSE"] == pytest.approx(np.sqrt(np.mean((clipped - truth) ** 2)))
    assert mcnet["PSNR (dB)"] == pytest.approx(-20 * np.log10(mcnet["RMSE"]))


def test_a_perfect_result() -> None:
    truth = np.random.default_rng(0).random((16, 16, 3))
    found = score(truth, truth, 2)
    assert found["PSNR (dB)"] == np.inf
    assert [found["SSIM"], found["CC"]] == pytest.approx([1, 1])
    assert [found["SAM (°)"], found["RMSE"], found["ERGAS"]] == pytest.approx([0, 0, 0], abs=1e-5)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two arrays"):
        score(np.zeros((4, 4, 2)), np.zeros((4, 5, 2)), 2)
    with pytest.raises(ValueError, match="window has 7 × 7"):
        score(np.zeros((6, 20, 2)), np.zeros((6, 20, 2)), 2)
