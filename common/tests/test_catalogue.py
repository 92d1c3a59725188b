"""Published scenes: real files if available, otherwise tiny files in the published layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.io import savemat

from common.errors import UserError
from common.hyperspectral.classification import catalogue
from common.hyperspectral.classification.catalogue import load_fixed_split, load_labels, load_scene, reduce_labels
from common.hyperspectral.classification.published import CATALOGUE
from common.hyperspectral.geotiff import write_geotiff
from support.data import real_data

CLASSES = {"indian_pines": 16, "salinas": 16, "salinas_a": 16, "pavia_university": 9, "pavia_centre": 9, "ksc": 13,
           "botswana": 14, "houston2013": 15, "houston2013_mat": 15, "houston2018_crop": 12}  # fmt: skip


def test_every_entry_is_complete():
    assert {name: len(entry.names) for name, entry in CATALOGUE.items()} == CLASSES
    for name, entry in CATALOGUE.items():
        assert len(set(entry.names)) == len(entry.names)
        assert max(entry.composite_bands) < entry.shape[2]
        for source in catalogue.files_of(entry):
            assert bool(source.url) != bool(source.origin), f"{name}: {source.file} needs an address or an origin"
            assert len(source.checksum) in (0, 40, 64)
            assert source.url.endswith(source.file) or not source.url


@pytest.fixture
def tiny(monkeypatch):
    """The catalogue with scenes of 12 × 10 pixels and 5 bands."""
    for name, entry in CATALOGUE.items():
        monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(entry, shape=(12, 10, 5)))
    return np.random.default_rng(0).integers(0, 999, (12, 10, 5)).astype(np.uint16)


@pytest.mark.parametrize("folder", ["", "salinas_a", "scenes", "scenes/mine"])
def test_files_are_found_below_the_root(tiny, tmp_path, folder):
    codes = np.zeros((12, 10), np.uint8)
    codes[:, 0], codes[:, 5] = 1, 14
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    savemat(tmp_path / folder / "SalinasA_corrected.mat", {"another_key": tiny})
    savemat(tmp_path / folder / "SalinasA_gt.mat", {"salinasA_gt": codes})
    scene = load_scene("salinas_a", tmp_path)
    np.testing.assert_array_equal(scene.cube, tiny)
    assert scene.codes == (1, 14)
    assert scene.class_names == ("Broccoli green weeds 1", "Lettuce romaine 7 weeks")
    assert sorted(np.unique(scene.labels)) == [0, 1, 2]


def test_what_is_not_as_published_is_refused(tiny, tmp_path):
    with pytest.raises(
        UserError, match=r"PaviaU.mat of pavia_university was not found .*python -m common.download pavia"
    ):
        load_scene("pavia_university", tmp_path)
    with pytest.raises(UserError, match=r"Contest_CASI.tif of houston2013 .*request the 2013 contest data"):
        load_scene("houston2013", tmp_path)
    with pytest.raises(UserError, match="scene 'mars' is unknown; choose one of indian_pines, salinas"):
        load_scene("mars", tmp_path)
    savemat(tmp_path / "KSC.mat", {"KSC": tiny[:, :9]})
    savemat(tmp_path / "KSC_gt.mat", {"KSC_gt": np.ones((12, 10))})
    with pytest.raises(UserError, match=r"KSC.mat:KSC: has shape \(12, 9, 5\); .* is published as \(12, 10, 5\)"):
        load_scene("ksc", tmp_path)
    savemat(tmp_path / "KSC_gt.mat", {"KSC_gt": np.ones((12, 9))})
    with pytest.raises(UserError, match=r"KSC_gt: has shape \(12, 9\); .* is published as \(12, 10\)"):
        load_scene("ksc", tmp_path)
    savemat(tmp_path / "KSC_gt.mat", {"KSC_gt": np.full((12, 10), 14)})
    with pytest.raises(UserError, match=r"holds class code 14; Kennedy Space Center .* has codes 1 to 13"):
        load_scene("ksc", tmp_path)
    with pytest.raises(
        UserError, match="salinas has no published fixed split here; indian_pines, pavia_university, houst"
    ):
        load_fixed_split("salinas", tmp_path)


def sample_list(pixels):
    names = "".join(f"; ROI name: class_{k}\n; ROI rgb value: {{0, 255, 0}}\n; ROI npts: {n}\n;\n"
                    for k, n in enumerate([len(p) for p in pixels]))  # fmt: skip
    body = ";    ID    X    Y        MapX        MapY          Lat           Lon\n"
    for region in pixels:
        body += "".join(f"  {i}  {x}  {y}  271460.5  3290891.0  29.72  -95.36\n" for i, (x, y) in enumerate(region, 1))
        body += "\n"
    return f"; ENVI Output of ROIs (4.8)\n; Number of ROIs: {len(pixels)}\n; File Dimension: 10 x 12\n;\n{names}{body}"


def test_houston_2013_from_its_contest_files(tiny, tmp_path):
    write_geotiff(tmp_path / "2013_IEEE_GRSS_DF_Contest_CASI.tif", tiny)
    train = [[(k % 10 + 1, k // 10 + 1)] for k in range(15)]
    test = [[(k % 10 + 1, k // 10 + 5), (k % 10 + 1, k // 10 + 9)] for k in range(15)]
    for name, pixels in (("TR", train), ("VA", test)):
        (tmp_path / f"2013_IEEE_GRSS_DF_Contest_Samples_{name}.txt").write_text(sample_list(pixels))
    labels, split = load_fixed_split("houston2013", tmp_path)
    assert split.train.tolist() == list(range(15))
    assert split.sizes == (15, 0, 30)
    assert labels[1, 2] == 13 and labels[4, 0] == 1  # x counts columns, y rows, both from 1
    scene = load_scene("houston2013", tmp_path)
    np.testing.assert_array_equal(scene.labels, labels)
    np.testing.assert_array_equal(scene.cube, tiny)
    path = tmp_path / "2013_IEEE_GRSS_DF_Contest_Samples_TR.txt"
    path.write_text(path.read_text()[:-60])
    with pytest.raises(UserError, match="lists 15 regions of 15 pixels and 14 pixels"):
        load_fixed_split("houston2013", tmp_path)
    path.write_text(sample_list([[(11, 1)], *train[1:]]))
    with pytest.raises(UserError, match="holds pixels outside the scene of 12 rows and 10 columns"):
        load_fixed_split("houston2013", tmp_path)


def test_finer_labels_are_reduced_block_by_block():
    blocks = [[[5, 5, 5, 5], [5, 5, 5, 0], [0, 0, 5, 5], [7, 7, 7, 5]]]
    labels = np.block([[np.array(b).reshape(2, 2) for b in row] for row in blocks])
    assert reduce_labels(labels, 2).tolist() == [[5, 0, 0, 0]]


def test_real_houston_2018():
    root = real_data("houston2018_crop")
    scene = load_scene("houston2018_crop", root)
    assert scene.codes == (1, 2, 3, 5, 6, 9, 10, 12)
    assert scene.class_counts.tolist() == [109, 461, 120, 1339, 198, 277, 95, 1544]


def test_real_salinas_a():
    scene = load_scene("salinas_a", real_data("salinas_a"))
    assert scene.codes == (1, 10, 11, 12, 13, 14)
    assert scene.class_counts.tolist() == [391, 1343, 616, 1525, 674, 799]


@pytest.mark.parametrize(
    ("name", "sizes", "agreeing"),
    [("indian_pines", (695, 0, 9671), 10110), ("pavia_university", (3921, 0, 40002), 42776)],
)
def test_real_fixed_splits_agree_with_the_ground_truth(name, sizes, agreeing):
    root = real_data("ground_truth_only")
    labels, split = load_fixed_split(name, root)
    assert split.sizes == sizes
    truth, _ = load_labels(name, root)
    both = (labels > 0) & (truth > 0)
    assert both.sum() == agreeing
    np.testing.assert_array_equal(labels[both], truth[both])
