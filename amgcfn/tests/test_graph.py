"""Graph construction against the loops it replaces, and on scenes that cannot give a graph."""

from __future__ import annotations

import numpy as np
import pytest

import amgcfn.literal
from amgcfn import SuperpixelGraph, build_graph
from amgcfn.graph import standardise, superpixel_adjacency, superpixel_means, superpixels
from amgcfn.hops import hop_graphs
from common.errors import UserError
from common.hyperspectral.classification.transforms import fit_pca


def _random_graph(seed: int, nodes: int, share: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.random((nodes, nodes)) * (generator.random((nodes, nodes)) < share), 1)
    return upper + upper.T


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hop", [1, 2, 3, 4])
def test_hop_graph_equals_depth_first_search(seed, hop):
    adjacency = _random_graph(seed, 17, 0.25)
    expected = amgcfn.literal.hop_graph(adjacency, hop)
    found = hop_graphs(adjacency, hop)[hop - 1].toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert (found > 0).sum() > 17


def test_hops_of_a_path_use_simple_paths_only():
    # 0 - 1 - 2: there is no simple path of 2 edges from 0 to itself, nor one of 3 edges at all.
    adjacency = np.array([[0, 0.5, 0], [0.5, 0, 0.9], [0, 0.9, 0]])
    one, two, three = (hop.toarray() for hop in hop_graphs(adjacency, 3))
    np.testing.assert_allclose(one, adjacency + np.eye(3))
    np.testing.assert_allclose(two, [[1, 0, 0.7], [0, 1, 0], [0.7, 0, 1]])
    np.testing.assert_allclose(three, np.eye(3))


def test_unconnected_superpixels_keep_their_self_loops():
    hops = hop_graphs(np.zeros((4, 4)), 3)
    for hop in hops:
        np.testing.assert_array_equal(hop.toarray(), np.eye(4))


def test_large_graph_is_grown_in_blocks(monkeypatch):
    # 3000 nodes exceed one block of start nodes; a ring's k-hop neighbours are known.
    nodes = np.arange(3000)
    ring = np.zeros((3000, 3000))
    ring[nodes, (nodes + 1) % 3000] = ring[(nodes + 1) % 3000, nodes] = 0.5
    three = hop_graphs(ring, 3)[2]
    assert three.nnz == 3 * 3000
    assert three[0, 3] == three[2999, 2] == 0.5 and three[0, 1] == 0


def test_adjacency_and_means_equal_the_loops():
    generator = np.random.default_rng(0)
    segments = np.kron(generator.permutation(20).reshape(4, 5), np.ones((4, 3), dtype=np.int64))
    segments[5:9, 4:9] = 20
    values = generator.standard_normal((*segments.shape, 3))
    features = superpixel_means(values, segments)
    np.testing.assert_allclose(features, amgcfn.literal.superpixel_means(values, segments), rtol=1e-12)
    expected = amgcfn.literal.superpixel_adjacency(segments, features)
    np.testing.assert_allclose(superpixel_adjacency(segments, features).toarray(), expected, rtol=1e-14)
    assert (expected > 0).sum() > 40


def test_standardised_components_have_unit_variance_and_constant_ones_are_zero():
    components = np.random.default_rng(1).standard_normal((20, 20, 3)) * [5, 1, 0] + 7
    colours = standardise(components)
    np.testing.assert_allclose(colours.mean(axis=(0, 1)), 0, atol=1e-9)
    np.testing.assert_allclose(colours.std(axis=(0, 1)), [1, 1, 0])


def test_superpixels_are_contiguous_and_about_a_hundred_pixels():
    yy, xx = np.mgrid[:60, :80]
    colours = np.stack([np.sin(yy / 7), np.cos(xx / 9), np.sin((xx + yy) / 11)], axis=2)
    segments = superpixels(colours)
    assert segments.dtype == np.int64
    np.testing.assert_array_equal(np.unique(segments), np.arange(segments.max() + 1))
    assert 24 <= segments.max() + 1 <= 96


def test_superpixels_follow_edges_unless_rescaled():
    rows, columns = np.mgrid[:80, :80]
    side = rows > columns + 5 * np.sin(columns / 9)
    noise = 0.05 * np.random.default_rng(0).standard_normal((80, 80, 3))
    colours = standardise(np.where(side[..., None], [1, 0.5, 0], [0.9, 0.6, 0]) + noise)
    colours[0, 0] = 30  # one outlier sets the range, and with it scikit-image's own scale

    def mixed(segments: np.ndarray) -> float:
        share = np.bincount(segments.ravel(), side.ravel()) / np.bincount(segments.ravel())
        return float(np.minimum(share, 1 - share).mean())

    assert mixed(superpixels(colours)) < 0.5 * mixed(superpixels(colours, rescale=True))


def _graph_of(cube: np.ndarray, **keywords) -> SuperpixelGraph:
    return build_graph(cube, fit_pca(np.nan_to_num(cube), 3), **keywords)


def test_graph_is_symmetric_with_ones_on_the_diagonal():
    graph = _graph_of(np.random.default_rng(2).random((40, 30, 8)), hops=4)
    assert len(graph.hops) == 4
    for hop in graph.hops:
        dense = hop.toarray()
        np.testing.assert_allclose(dense, dense.T)
        np.testing.assert_array_equal(np.diag(dense), 1)


def test_saved_graph_is_the_same(tmp_path):
    graph = _graph_of(np.random.default_rng(2).random((40, 30, 8)))
    graph.save(tmp_path / "graph.safetensors", scene="abc")
    loaded, metadata = SuperpixelGraph.load(tmp_path / "graph.safetensors")
    assert metadata == {"scene": "abc"}
    np.testing.assert_array_equal(loaded.segments, graph.segments)
    np.testing.assert_array_equal(loaded.features, graph.features)
    for ours, theirs in zip([loaded.adjacency, *loaded.hops], [graph.adjacency, *graph.hops], strict=True):
        np.testing.assert_array_equal(ours.toarray(), theirs.toarray())


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"x" * 40, "is not a saved superpixel graph")]
)
def test_unusable_graph_files_are_named(tmp_path, content, message):
    path = tmp_path / "graph.safetensors"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        SuperpixelGraph.load(path)


def test_pixels_without_data_join_and_weigh_nothing():
    generator = np.random.default_rng(4)
    cube = generator.random((40, 30, 5))
    valid = np.ones((40, 30), dtype=bool)
    valid[:, 20:] = valid[7, 3] = False
    components = fit_pca(cube[:, :20], 3)
    graph = build_graph(cube, components, valid=valid)
    colours = standardise(components.apply(cube), valid)
    np.testing.assert_allclose(colours[valid].std(axis=0), 1)
    for label, feature in enumerate(graph.features):
        np.testing.assert_allclose(feature, colours[(graph.segments == label) & valid].mean(axis=0), rtol=1e-9)
    # Nearest pixels with data: every row of the border continues the superpixel beside it.
    np.testing.assert_array_equal(graph.segments[:, 20:], np.repeat(graph.segments[:, 19:20], 10, axis=1))
    inside = amgcfn.literal.superpixel_adjacency(
        np.pad(graph.segments[:, :20], ((0, 0), (0, 1)), "edge"), graph.features
    )
    joined = graph.adjacency.toarray()
    assert (joined > 0).sum() > 20 and not ((joined > 0) & (inside == 0)).any()


def test_superpixels_are_not_joined_across_pixels_without_data():
    segments = np.repeat([[0, 0, 0, 0, 0, 1, 1, 1, 1]], 6, axis=0)
    valid = np.ones((6, 9), dtype=bool)
    assert superpixel_adjacency(segments, np.zeros((2, 3)), valid).toarray()[0, 1] == 1
    valid[:, 4] = False
    assert superpixel_adjacency(segments, np.zeros((2, 3)), valid).nnz == 0


def test_nan_is_refused():
    cube = np.random.default_rng(3).random((30, 30, 5))
    cube[3, 4, 2] = np.nan
    with pytest.raises(UserError, match=r"NaN or infinite values"):
        _graph_of(cube)


def test_one_superpixel_is_refused():
    with pytest.raises(UserError, match=r"9×9 pixels gives one superpixel"):
        _graph_of(np.random.default_rng(3).random((9, 9, 5)))


def test_zero_hops_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        hop_graphs(np.zeros((3, 3)), 0)
