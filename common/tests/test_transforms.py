"""Spectral transforms against scikit-learn, and what a checkpoint folder keeps of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.decomposition import PCA

from common.errors import UserError
from common.hyperspectral.classification import transforms
from common.hyperspectral.classification.transforms import SpectralTransform, fit_pca

RNG = np.random.default_rng(0)
CUBE = (3000 + RNG.standard_normal((30, 20, 12)) @ RNG.standard_normal((12, 12)) * 400).astype(np.int16)
PIXELS = RNG.permutation(600)[:80]
FLAT = CUBE.reshape(-1, 12).astype(float)


@pytest.fixture(autouse=True, params=[1 << 20, 500])
def chunk(request, monkeypatch):
    monkeypatch.setattr(transforms, "_CHUNK_VALUES", request.param)


@pytest.mark.parametrize("pixels", [None, PIXELS])
def test_pca_equals_scikit_learn_sign_included(pixels):
    reference = PCA(5, whiten=True, svd_solver="full").fit(FLAT if pixels is None else FLAT[pixels])
    transform = fit_pca(CUBE, 5, pixels=pixels)
    expected = reference.transform(FLAT).reshape(30, 20, 5)
    np.testing.assert_allclose(transform.apply(CUBE), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(transform.explained, reference.explained_variance_ratio_, rtol=1e-10)
    assert transform.apply(CUBE).dtype == np.float32


def test_a_constant_band_stays_finite():
    cube = CUBE.copy()
    cube[..., 3] = 7
    assert np.isfinite(fit_pca(cube, 11).apply(cube)).all()


def test_a_saved_transform_does_the_same(tmp_path):
    transform = fit_pca(CUBE, 4, pixels=PIXELS)
    transform.save(tmp_path / "pca.npz")
    loaded = SpectralTransform.load(tmp_path / "pca.npz")
    np.testing.assert_array_equal(loaded.apply(CUBE), transform.apply(CUBE))
    assert loaded.fitted_on == "80 pixels"


@pytest.mark.parametrize(("components", "pixels"), [(13, None), (0, None), (10, PIXELS[:9])])
def test_more_components_than_bands_or_pixels(components, pixels):
    with pytest.raises(UserError, match=f"{components} principal components asked for; expected 1 to"):
        fit_pca(CUBE, components, pixels=pixels)


def test_wrong_files_and_bands(tmp_path):
    with pytest.raises(UserError, match="has 11 bands but the transform was fitted on 12"):
        fit_pca(CUBE, 2).apply(CUBE[..., :11])
    with pytest.raises(UserError, match="no such file"):
        SpectralTransform.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a saved spectral transform"):
        SpectralTransform.load(tmp_path / "bad.npz")


def test_no_float_copy_of_the_cube_is_made(chunk):
    cube = np.zeros((400, 300, 60), np.uint16) + np.arange(60, dtype=np.uint16)  # 14 MB, 58 MB in float64
    cube[::2] += 3
    tracemalloc.start()
    fit_pca(cube, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 8 * max(transforms._CHUNK_VALUES, 300 * 60)  # a chunk, and the one before it
