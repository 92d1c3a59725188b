"""Noise models: their statistics, which bands they hit, and that a sample's noise is its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.errors import UserError
from hcanet.noise import (
    CASES,
    FRAMEWORKS,
    corrupt,
    estimated_sigmas,
    sample_generator,
    scene_generator,
)
from support.scripts import forkserver

CLEAN = np.full((30, 100, 200), 0.5)


def made(case: str, seed: int = 0, clean: np.ndarray = CLEAN, **options):
    return corrupt(clean, case, np.random.default_rng(seed), **options)


def test_gaussian_is_the_plain_formula() -> None:
    found = made("gaussian", sigma=50)
    expected = CLEAN + np.random.default_rng(0).standard_normal(CLEAN.shape) * 50 / 255
    np.testing.assert_allclose(found.image, expected, rtol=0, atol=1e-15)
    assert (CLEAN == 0.5).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_band_draws_its_sigma_from_the_list(framework: str) -> None:
    drawn = np.concatenate([made("case1", seed, framework=framework).sigmas for seed in range(20)])
    values, counts = np.unique(drawn, return_counts=True)
    assert tuple(values) == FRAMEWORKS[framework].sigmas
    assert counts.min() > 0.7 * len(drawn) / len(values)
    found = made("case1", framework=framework)
    measured = 255 * found.image.std(axis=(1, 2))
    np.testing.assert_allclose(measured, found.sigmas, rtol=0.03)


def test_blind_cycles_or_is_uniform() -> None:
    cycle = [made("blind", position=i).sigmas for i in range(8)]
    assert [one[0] for one in cycle] == [10, 30, 50, 70] * 2
    uniform = np.array([made("blind", seed, np.zeros((2, 2, 2)), framework="sert").sigmas for seed in range(400)])
    assert (uniform[:, 0] == uniform[:, 1]).all()
    assert 10 <= uniform.min() < 12 and 68 < uniform.max() <= 70
    assert uniform.mean() == pytest.approx(40, abs=3)


@pytest.mark.parametrize(
    ("case", "framework", "shares"),
    [("case2", "mafnet", (0.05, 0.15)), ("case5", "mafnet", (0.05, 0.10)), ("case5", "qrnn3d", (0.05, 0.15))],
)
def test_stripes_shift_whole_columns(case: str, framework: str, shares: tuple[float, float]) -> None:
    counts, shifts = [], []
    for seed in range(10):
        striped = made(case, seed, framework=framework)
        shift = striped.image[striped.bands["stripes"]] - CLEAN[0]
        plain = made("case1", seed, framework=framework).image[striped.bands["stripes"]] - CLEAN[0]
        # The same draws come first, so the difference to case 1 is the stripes alone.
        added = shift - plain
        assert np.abs(added - added[:, :1]).max() < 1e-12, "a stripe is constant along its column"
        counts += list((np.abs(added[:, 0]) > 1e-12).sum(axis=1))
        shifts += list(added[:, 0][np.abs(added[:, 0]) > 1e-12])
        assert len(striped.bands["stripes"]) == 10
    low, high = math.floor(200 * shares[0]), math.floor(200 * shares[1]) - 1
    assert (min(counts), max(counts)) == (low, high)
    assert -0.25 <= min(shifts) < -0.22 and 0.22 < max(shifts) <= 0.25 and abs(np.mean(shifts)) < 0.02


def test_dead_lines_are_zero() -> None:
    counts = []
    for seed in range(10):
        found = made("case3", seed)
        dead = (found.image == 0).all(axis=1)
        assert sorted(np.flatnonzero(dead.any(axis=1))) == sorted(found.bands["dead lines"])
        assert len(found.bands["dead lines"]) == 10
        counts += list(dead[found.bands["dead lines"]].sum(axis=1))
    assert (min(counts), max(counts)) == (10, 29)


def test_impulses_are_half_one_and_half_zero() -> None:
    ratios = []
    for seed in range(10):
        found = made("case4", seed)
        hit = (found.image == 0) | (found.image == 1)
        share = hit.mean(axis=(1, 2))
        assert sorted(np.flatnonzero(share)) == sorted(found.bands["impulses"])
        ratios += list(share[found.bands["impulses"]])
        ones = (found.image[found.bands["impulses"]] == 1).sum() / hit.sum()
        assert ones == pytest.approx(0.5, abs=0.01)
    rounded = np.round(ratios, 1)
    np.testing.assert_allclose(ratios, rounded, atol=0.012)
    assert set(rounded) == {0.1, 0.3, 0.5, 0.7}


def test_the_mixture_hits_three_disjoint_thirds() -> None:
    found = made("case5", clean=np.full((31, 20, 40), 0.5))
    bands = np.concatenate(list(found.bands.values()))
    assert [len(part) for part in found.bands.values()] == [10, 10, 10]
    assert len(set(bands)) == 30


@pytest.mark.parametrize("case", CASES)
def test_tiny_images_and_float32(case: str) -> None:
    """Published code raises where a share of the columns is less than one."""
    for shape in ((31, 8, 8), (2, 3, 1), (1, 1, 1)):
        found = made(case, clean=np.full(shape, 0.5, dtype=np.float32))
        assert found.image.dtype == np.float32 and found.image.shape == shape and np.isfinite(found.image).all()


def _sum(key: tuple[int, int, int]) -> float:
    return float(corrupt(CLEAN[:6, :8, :8], "case5", sample_generator(*key)).image.sum())


def test_a_sample_has_its_own_noise_in_any_process() -> None:
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    here = [_sum(key) for key in keys]
    assert len(set(here)) == len(keys)
    with forkserver().Pool(2) as pool:
        assert pool.map(_sum, keys[::-1]) == here[::-1]


def test_a_scene_has_the_noise_of_its_name() -> None:
    one, same, other, seed = (scene_generator(*key).random() for key in ((0, "a"), (0, "a"), (0, "b"), (1, "a")))
    assert one == same and len({one, other, seed}) == 3


@pytest.mark.parametrize("case", ["gaussian", "case3"])
def test_noise_levels_are_found_without_the_clean_image(case: str) -> None:
    rows, columns = np.mgrid[:100, :200] / 100
    clean = np.stack([0.5 + 0.3 * np.sin(3 * rows + band) * np.cos(2 * columns) for band in range(12)])
    found = made(case, clean=clean, sigma=20)
    np.testing.assert_allclose(estimated_sigmas(found.image), found.sigmas, rtol=0.25 if case == "case3" else 0.06)
    assert estimated_sigmas(clean).max() < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "guass"}, "noise case guass does not exist; choose one of gaussian, blind"),
        ({"case": "case1", "framework": "x"}, "choose one of mafnet, qrnn3d, sert"),
        ({"case": "gaussian", "sigma": -1.0}, "sigma -1 cannot be"),
        ({"case": "gaussian", "sigma": math.nan}, "sigma nan cannot be"),
    ],
)
def test_wrong_names_are_named(options: dict, message: str) -> None:
    """The published trainer adds no noise for a name that it does not know, and trains input = target."""
    with pytest.raises(UserError, match=message):
        made(**options)
