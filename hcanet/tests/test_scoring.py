"""Metrics against independent references, the methods without training, and the noise of test scenes."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.errors import UserError
from hcanet import classical
from hcanet.metrics import score, spectral_angle
from hcanet.noise import corrupt
from hcanet.published import PUBLISHED, published_lines
from hcanet.scenes import demo_scene, load_regions, whole
from hcanet.scoring import NETWORK, SceneNoise, SceneScore, cases_to_test, mean, rows
from support.data import real_data


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    clean = whole(demo_scene(seed=1, height=40, width=48), "percentile").values().astype(float)
    return clean, corrupt(clean, "gaussian", np.random.default_rng(0), sigma=50).image


def test_metrics_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pair
    found, clipped = score(noisy, clean), score(noisy, clean, "hsir")
    bands = list(zip(clean, noisy, strict=True))
    each = [peak_signal_noise_ratio(c, n, data_range=1) for c, n in bands]
    assert found["PSNR (dB)"] == pytest.approx(np.mean(each))
    assert found["median-band PSNR (dB)"] == pytest.approx(np.median(each))
    assert found["SSIM"] == pytest.approx(np.mean([structural_similarity(c, n, data_range=1) for c, n in bands]))
    cut = [(c, np.clip(n, 0, 1)) for c, n in bands]
    each = [peak_signal_noise_ratio(c, n, data_range=1) for c, n in cut]
    assert clipped["PSNR, clipped (dB)"] == pytest.approx(np.mean(each))
    assert clipped["SSIM, range 2"] == pytest.approx(
        np.mean([structural_similarity(c, n, data_range=2) for c, n in cut])
    )
    assert clipped["PSNR, clipped (dB)"] > found["PSNR (dB)"]


def test_pixels_without_data_do_not_count(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pair
    valid = np.ones(clean.shape[1:], dtype=bool)
    valid[:, 30:] = False
    worse = noisy.copy()
    worse[:, :, 33:] = 9  # beyond the reach of a window of 7 from column 29
    for family in ("range 1", "hsir"):
        assert score(worse, clean, family, valid) == pytest.approx(score(noisy, clean, family, valid))
        assert score(worse, clean, family) != pytest.approx(score(noisy, clean, family))
    assert score(noisy, clean, valid=valid)["SAM (rad)"] == pytest.approx(
        spectral_angle(noisy[:, :, :30], clean[:, :, :30])
    )


def test_the_spectral_angle_by_hand() -> None:
    one, other = np.zeros((2, 1, 2)), np.zeros((2, 1, 2))
    one[:, 0, 0], other[:, 0, 0] = (1, 0), (1, 1)
    one[:, 0, 1], other[:, 0, 1] = (0.3, 0.7), (0.3, 0.7)
    assert spectral_angle(one, other) == pytest.approx(np.pi / 8, abs=1e-4)
    assert spectral_angle(np.zeros((3, 2, 2)), np.zeros((3, 2, 2))) >= 0
    equal = np.random.default_rng(0).random((50, 30, 30))
    assert np.isfinite(spectral_angle(equal, equal)) and spectral_angle(equal, equal) < 1e-3


def test_methods_without_training_remove_noise(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pair
    values = {
        "noisy": noisy, "variation": classical.total_variation(noisy), "subspace": classical.subspace(noisy),
        "known": classical.subspace(noisy, np.full(31, 50.0)),
    }  # fmt: skip
    psnr = {name: score(image, clean)["PSNR (dB)"] for name, image in values.items()}
    assert psnr["variation"] > psnr["noisy"] + 3
    assert min(psnr["subspace"], psnr["known"]) > psnr["variation"] + 3


def test_replaced_outliers_help_with_the_mixture(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, _ = pair
    noisy = corrupt(clean, "case5", np.random.default_rng(0)).image
    plain, replaced = (
        score(method(noisy), clean)["PSNR (dB)"] for method in (classical.subspace, classical.subspace_after_outliers)
    )
    assert replaced > plain + 1


def test_the_bold_row_of_the_real_scene_is_reached() -> None:
    """σ 50 on abu-urban-3: 38.04 dB, 0.936, 0.055 measured elsewhere with the same method."""
    (region,) = load_regions("abu", real_data("abu_aviris"))["test"]
    noise = SceneNoise(generator="plain").add(region.values(), "gaussian", region.name, 0)
    found = score(classical.subspace(noise.image, noise.sigmas), region.values())
    assert found["PSNR (dB)"] == pytest.approx(38.04, abs=0.1)
    assert found["SSIM"] == pytest.approx(0.936, abs=0.003)
    assert found["SAM (rad)"] == pytest.approx(0.055, abs=0.002)


def test_noise_of_test_scenes() -> None:
    clean = np.zeros((3, 4, 5), dtype=np.float32)
    plain, named = SceneNoise(generator="plain"), SceneNoise()
    first = plain.add(clean, "gaussian", "a", 0).image
    expected = np.random.default_rng(0).standard_normal((3, 4, 5)) * 50 / 255
    np.testing.assert_allclose(first, expected, rtol=1e-14)
    np.testing.assert_array_equal(first, plain.add(clean, "gaussian", "b", 0).image)
    a, again, b = (named.add(clean, "gaussian", name, 0).image for name in ("a", "a", "b"))
    assert np.array_equal(a, again) and not np.array_equal(a, b)
    assert (named.title("gaussian"), named.title("case3")) == ("σ 50", "case3")


def test_cases_and_rows() -> None:
    assert cases_to_test(("blind", "complex")) == ("case1", "case2", "case3", "case4")
    assert cases_to_test(("blind",), ("case5",)) == ("case5",)
    with pytest.raises(UserError, match="does not exist"):
        cases_to_test(("blind",), ("case9",))
    runs = [
        [
            SceneScore(name, "σ 50", {NETWORK: {"PSNR (dB)": 30.0 + i + j}, "noisy": {"PSNR (dB)": 14.0}})
            for j, name in enumerate("ab")
        ]
        for i in range(3)
    ]
    found = rows(runs, "ABU", "test", "abu", [0, 1, 2])
    assert [(row.preset, row.value, row.std) for row in found] == [
        ("abu", 31.5, pytest.approx((2 / 3) ** 0.5)),
        ("noisy", 14.0, None),
    ]
    assert found[0].split == "test, 2 scenes" and mean(runs[0], NETWORK, "PSNR (dB)") == 30.5


def test_published_rows_have_their_source() -> None:
    assert {
        len(values) for methods in PUBLISHED.values() for kinds in methods.values() for values in kinds.values()
    } == {3}
    assert [
        "table image in the README of MAFNet (SAM in radians)",
        "MAFNet",
        "37.19",
        "0.938",
        "0.065",
    ] in published_lines("case5")
    assert len(published_lines("σ 50")) == 8 and published_lines("case9") == []
