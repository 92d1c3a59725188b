"""Strips of rows give the whole scene's result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amgcfn import AMGCFN, build_graph
from amgcfn.strips import HALO, classify_scene, rows_for_memory
from common.hyperspectral.classification.transforms import fit_pca


def _scene_and_model():
    generator = np.random.default_rng(0)
    yy, xx = np.mgrid[:61, :33]
    cube = np.stack([np.sin(yy / 6 + b) + np.cos(xx / (5 + b)) for b in range(7)], axis=2)
    cube = np.rint(2000 + 500 * (cube + 0.3 * generator.standard_normal(cube.shape))).astype(np.int16)
    graph = build_graph(cube, fit_pca(cube, 3))
    torch.manual_seed(0)
    model = AMGCFN(bands=7, num_classes=4)
    features, segments, hops = graph.tensors()
    for _ in range(20):  # running statistics that fit the scene
        model(torch.from_numpy(cube.astype(np.float32)), features, segments, hops)
    return cube, graph, model.eval()


@pytest.mark.parametrize("rows", [1, 7, 40, 60])
def test_strips_equal_the_whole_scene(rows):
    cube, graph, model = _scene_and_model()
    for found, expected in zip(
        classify_scene(model, cube, graph, rows=rows), classify_scene(model, cube, graph), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
        assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


def test_a_smaller_halo_would_be_wrong(monkeypatch):
    cube, graph, model = _scene_and_model()
    expected = classify_scene(model, cube, graph)[1]
    monkeypatch.setattr("amgcfn.strips.HALO", HALO - 3)
    found = classify_scene(model, cube, graph, rows=20)[1]
    assert (found - expected).abs().max() > 2e-4 * expected.abs().max()


def test_strips_need_evaluation_mode_and_a_row():
    cube, graph, model = _scene_and_model()
    with pytest.raises(ValueError, match="at least 1 row"):
        classify_scene(model, cube, graph, rows=0)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        classify_scene(model.train(), cube, graph, rows=10)


def test_rows_for_memory_grow_with_the_budget():
    model = AMGCFN(bands=103, num_classes=9)
    small, large = (rows_for_memory(model, 340, budget) for budget in (2e8, 2e9))
    assert 1 <= small < large
