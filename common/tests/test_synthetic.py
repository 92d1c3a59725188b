"""The synthetic scene: repeatable, and a task on which neighbours help."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.errors import UserError
from common.hyperspectral.classification.splits import stratified_split
from common.hyperspectral.synthetic import synthetic_scene


def test_arguments_decide_everything():
    scene = synthetic_scene(40, 50, bands=7, num_classes=3, seed=1)
    again = synthetic_scene(40, 50, bands=7, num_classes=3, seed=1)
    assert (scene.cube.shape, scene.cube.dtype, scene.codes) == ((40, 50, 7), np.uint16, (1, 2, 3))
    np.testing.assert_array_equal(scene.cube, again.cube)
    np.testing.assert_array_equal(scene.labels, again.labels)
    assert not np.array_equal(scene.cube, synthetic_scene(40, 50, bands=7, num_classes=3, seed=2).cube)
    assert (scene.class_counts > 20).all()
    assert 0.5 < (scene.labels > 0).mean() < 0.95
    assert 2000 < np.percentile(scene.cube, 99) < 20_000


def test_a_window_sees_more_than_a_pixel():
    scene = synthetic_scene(96, 96)
    split = stratified_split(scene.labels, 0.1, seed=0)

    def accuracy(cube):
        spectra = cube.reshape(-1, scene.bands).astype(float)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        model.fit(spectra[split.train], scene.labels.flat[split.train])
        return model.score(spectra[split.test], scene.labels.flat[split.test])

    pixel = accuracy(scene.cube)
    window = accuracy(ndimage.uniform_filter(scene.cube.astype(np.float32), (5, 5, 1)))
    assert 0.6 < pixel < 0.9
    assert window > pixel + 0.05


def test_a_given_ground_truth_is_kept():
    labels = np.zeros((50, 60), np.uint8)
    labels[5:20, 5:30], labels[30:45, 20:55] = 1, 2
    scene = synthetic_scene(labels=labels, bands=9)
    np.testing.assert_array_equal(scene.labels, labels)
    assert scene.cube.shape == (50, 60, 9)
    inner = [scene.cube[8:17, 8:27].reshape(-1, 9).mean(0), scene.cube[33:42, 23:52].reshape(-1, 9).mean(0)]
    assert np.abs(inner[0] - inner[1]).max() > 100


def test_too_small_an_area():
    with pytest.raises(UserError, match="9 classes on 10 × 10 pixels; expected at least 2, and 64 pixels for each"):
        synthetic_scene(10, 10, num_classes=9)
