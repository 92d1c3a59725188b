"""Scenes, regions that share no pixel, patches, scaling, and what is said about bad files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from common.errors import UserError
from common.hyperspectral.regions import describe
from essaformer import imresize
from essaformer.data import EvaluationPictures, TrainingPatches
from essaformer.regions import Region, Regions
from essaformer.scaling import Scaling, restored, scaled
from essaformer.scenes import ABU, load_regions
from support.data import real_data

SCALING = Scaling("percentile", 99.9)


def coverage(regions: Regions) -> dict[tuple[str, str], np.ndarray]:
    """How often each split uses each pixel of each scene."""
    used: dict[tuple[str, str], np.ndarray] = {}
    for split, found in regions.items():
        for r in found:
            count = used.setdefault((r.scene.name, split), np.zeros(r.scene.shape, int))
            count[r.top : r.top + r.height, r.left : r.left + r.width] += 1
    return used


def assert_disjoint(regions: Regions) -> None:
    used = coverage(regions)
    for name in {scene for scene, _ in used}:
        total = sum(count for (scene, _), count in used.items() if scene == name)
        assert total.max() == 1, f"{name}: a pixel is used twice"


@pytest.fixture
def abu(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ABU:
        cube = rng.integers(1, 5000, (40, 36, 6)).astype(np.int16)
        scipy.io.savemat(tmp_path / f"{name}.mat", {"data": cube, "map": np.zeros((40, 36))})
    return tmp_path


def test_abu_trains_on_four_and_tests_on_the_fifth(abu: Path) -> None:
    regions = load_regions("abu", abu, SCALING, 2, test_scene="abu-airport-2")
    assert_disjoint(regions)
    assert {r.scene.name for r in regions["train"]} == set(ABU) - {"abu-airport-2"}
    assert [(r.scene.name, r.height, r.width) for r in regions["test"]] == [("abu-airport-2", 40, 36)]
    (validation,) = regions["validation"]
    assert (validation.scene.name, validation.height) == ("abu-urban-4", 12)
    assert describe(regions)["validation"][0]["top"] == 28


def test_chikusei_is_cropped_and_cut_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "HyperspecVNIR_Chikusei_20140729.mat", "w") as file:
        data = file.create_dataset("chikusei", (1, 2335, 2517), "u1", chunks=(1, 64, 64), fillvalue=7)
        data[0, 143, 106] = 200  # the crop's first pixel
        data[0, 142, 106] = data[0, 143, 105] = 250  # outside
    monkeypatch.setattr(h5py, "File", lambda path, open=h5py.File: OneBand(open(path)))
    monkeypatch.setattr("essaformer.scenes.make_scene", narrow_scene)
    regions = load_regions("chikusei", tmp_path, Scaling("maximum"), 4)
    assert_disjoint(regions)
    assert [(r.top, r.left, r.height, r.width) for r in regions["test"]] == [(0, 512 * i, 512, 512) for i in range(4)]
    assert regions["train"][0].divisor == 200 and regions["train"][0].scene.cube[0, 0, 0] == 200
    places = TrainingPatches(regions["train"], 64, 32, 4, 0)
    assert len(places) == 49 * 63


class OneBand(contextlib.ExitStack):
    """Write the file with one band instead of 128, because the full crop has 600 MB."""

    shape = (128, 2335, 2517)

    def __init__(self, file: h5py.File) -> None:
        super().__init__()
        self.data = self.enter_context(file)["chikusei"]

    def __getitem__(self, key: object) -> object:
        return self if key == "chikusei" else self.data[key]


def narrow_scene(name: str, cube: np.ndarray, **options: object):
    from common.hyperspectral.scene import make_scene

    assert cube.shape == (2304, 2048, 1)
    return make_scene(name, cube, source=str(options["source"]))


def test_cave_scenes_are_read_from_their_folders(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / f"toy{number}_ms" / f"toy{number}_ms"
        folder.mkdir(parents=True)
        for band in range(1, 32):
            pixels = np.full((16, 20), 1000 * number + band, np.uint16)
            Image.fromarray(pixels).save(folder / f"toy{number}_ms_{band:02d}.png")
    regions = load_regions("cave", tmp_path, Scaling("constant", 65_535), 4)
    assert {split: [r.scene.name for r in found] for split, found in regions.items()} == {
        "train": ["toy0", "toy1", "toy2"],
        "validation": ["toy3"],
        "test": ["toy4", "toy5"],
    }
    np.testing.assert_allclose(regions["test"][0].values()[3, 4], np.arange(4001, 4032) / 65_535, rtol=1e-6)
    (tmp_path / "toy2_ms/toy2_ms/toy2_ms_07.png").unlink()
    with pytest.raises(UserError, match=r"toy2_ms: found 30 bands"):
        load_regions("cave", tmp_path, Scaling("constant", 65_535), 4)


def test_a_users_scene_is_cut_without_overlap(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).random((61, 75, 4), np.float32))
    regions = load_regions("abu", None, SCALING, 4, cube=str(tmp_path / "mine.npy"))
    assert_disjoint(regions)
    assert all(r.height % 4 == 0 and r.width % 4 == 0 for split in ("validation", "test") for r in regions[split])


def test_patches_are_turned_alike_and_reproducible(abu: Path) -> None:
    regions = load_regions("abu", abu, SCALING, 2)
    patches = TrainingPatches(regions["train"], 16, 8, 2, seed=3)
    for key in [(0, 0), (0, 5), (7, 11)]:
        item, again = patches[key], patches[key]
        assert item["low"].shape == (6, 8, 8) and item["high"].shape == (6, 16, 16)
        assert torch.equal(item["high"], again["high"])
        np.testing.assert_allclose(item["low"].numpy(), imresize(item["high"].numpy(), 0.5), atol=1e-6)
    turned = {patches[(epoch, 2)]["high"].numpy().tobytes() for epoch in range(40)}
    assert len(turned) == 8
    region, top, left = patches.windows[2]
    original = region.values(top, left, 16, 16).transpose(2, 0, 1)
    assert np.ascontiguousarray(original).tobytes() in turned


def test_evaluation_pictures_are_whole_regions(abu: Path) -> None:
    item = EvaluationPictures(load_regions("abu", abu, SCALING, 4)["test"], 4)[0]
    assert item["high"].shape == (6, 40, 36) and item["low"].shape == (6, 10, 9)
    assert item["high"].min() >= 0 and item["high"].max() == 1


def test_scaling_ignores_an_outlier_and_clips() -> None:
    cube = np.ones((50, 50, 2), np.int16) * 100
    cube[0, 0, 0], cube[1, 1, 1] = 30_000, -5
    assert Scaling("percentile", 99.9).divisor(cube) == 100
    assert Scaling("maximum").divisor(cube) == 30_000
    values = scaled(cube, 100)
    assert values.dtype == np.float32 and values.min() == 0 and values.max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_integers_are_clipped_and_never_wrap(dtype: type) -> None:
    limits = np.iinfo(dtype)
    values = restored(np.array([-3.0, 0.0, 0.26, 1.0, 1e6]), float(limits.max), np.dtype(dtype))
    assert values.dtype == dtype
    # The largest value of 64 bits that arithmetic in float64 reaches is 2⁶³.
    assert values[0] <= 0 and values[1] == 0 and values[4] >= min(limits.max, 2**63) * 0.999
    assert (np.diff(values.astype(float)) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scale_is_not_taken_from_values_that_are_not_finite(bad: float) -> None:
    cube = np.ones((40, 40, 3))
    cube[2, 3, 1] = bad
    with pytest.raises(UserError, match="NaN or infinity in 1 of 3 bands"):
        SCALING.divisor(cube)


@pytest.mark.parametrize("scaling", [Scaling("percentile", 120), Scaling("percentile"), Scaling("constant")])
def test_a_rule_that_cannot_be_is_one_sentence(scaling: Scaling) -> None:
    with pytest.raises(UserError, match=r"--scaling-value .*: expected a (percentile|constant) above 0"):
        scaling.divisor(np.ones((4, 4, 2)))


def test_a_scene_without_light_is_refused() -> None:
    with pytest.raises(UserError, match="values reach 0 only"):
        SCALING.divisor(np.zeros((4, 4, 2)))


def test_constant_and_negative_bands_are_used(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((48, 48, 3)) * 1000
    cube[..., 1], cube[..., 2] = 17, -4
    np.save(tmp_path / "flat.npy", cube)
    regions = load_regions("abu", None, SCALING, 2, cube=str(tmp_path / "flat.npy"))
    item = TrainingPatches(regions["train"], 16, 8, 2, 0)[(0, 0)]
    assert torch.isfinite(item["low"]).all() and item["high"][2].abs().max() == 0


def test_what_is_missing_or_too_small_is_said(abu: Path, tmp_path: Path) -> None:
    regions = load_regions("abu", abu, SCALING, 2)
    with pytest.raises(UserError, match="too few for a crop of 64; lower --crop"):
        TrainingPatches(regions["train"], 64, 32, 2, 0)
    with pytest.raises(ValueError, match="multiple of scale 4"):
        TrainingPatches(regions["train"], 18, 2, 4, 0)
    with pytest.raises(UserError, match="choose one of abu-airport-1"):
        load_regions("abu", abu, SCALING, 2, test_scene="abu-harbour")
    with pytest.raises(UserError, match="choose one of demo, chikusei"):
        load_regions("moon", abu, SCALING, 2)
    with pytest.raises(UserError, match="needs --data-root"):
        load_regions("abu", None, SCALING, 2)
    (abu / "abu-urban-4.mat").unlink()
    with pytest.raises(UserError, match=r"abu-urban-4\.mat not found"):
        load_regions("abu", abu, SCALING, 2)
    np.save(tmp_path / "tiny.npy", np.ones((20, 20, 3)))
    with pytest.raises(UserError, match="expected at least 32 × 32"):
        load_regions("abu", None, SCALING, 2, cube=str(tmp_path / "tiny.npy"))


def test_scenes_of_different_bands_do_not_mix(abu: Path) -> None:
    regions = load_regions("abu", abu, SCALING, 2)["train"]
    odd = Region(narrowed(regions[1]), 0, 0, 40, 36, 1.0)
    with pytest.raises(UserError, match="has 5 bands but"):
        TrainingPatches([regions[0], odd], 16, 8, 2, 0)


def narrowed(region: Region):
    from common.hyperspectral.scene import make_scene

    return make_scene("narrow", region.scene.cube[..., :5])


@pytest.mark.parametrize(("name", "bands"), [("abu", 205), ("jasper_ridge", 198), ("pavia_crop", 102), ("muufl", 64)])
def test_real_scenes_are_read_and_cut(name: str, bands: int) -> None:
    folders = {"abu": "abu_aviris", "jasper_ridge": "jasper_ridge", "pavia_crop": "pavia_centre_crop"}
    root = real_data(folders.get(name, "muufl_crop"))
    regions = load_regions(name, root, SCALING, 4)
    assert_disjoint(regions)
    assert regions["test"][0].scene.cube.shape == (100, 100, bands)
    values = regions["train"][0].values()
    # Neighbouring bands and neighbouring pixels of a real scene agree: a wrong order of axes would show here.
    middle = values[..., bands // 2 - 1 : bands // 2 + 1].reshape(-1, 2)
    assert np.corrcoef(middle.T).min() > 0.9
    brightness = values.mean(axis=2)
    assert np.corrcoef(brightness[:-1].ravel(), brightness[1:].ravel())[0, 1] > 0.6
