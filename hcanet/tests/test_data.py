"""Training samples, stages, cut patches, regions, losses and schedules."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from common.errors import UserError
from common.hyperspectral.scene import make_scene
from hcanet import cache
from hcanet.data import Stage, TrainingPatches
from hcanet.losses import gradient_term, objective
from hcanet.noise import corrupt, sample_generator
from hcanet.scenes import icvl_names, icvl_test_region, limits, load_regions, scaled
from hcanet.schedule import factor, stage_starts
from support.data import real_data

RAMP = np.arange(6 * 20 * 24, dtype=np.float32).reshape(6, 20, 24) / 3000


def patches(**keywords) -> TrainingPatches:
    options = {"bands": 4, "crop": 8, "stride": 4, "seed": 3, "batch": 2, "sigma": 0.0} | keywords
    stages = options.pop("stages", [Stage(0, "gaussian", options["crop"])])
    return TrainingPatches(options.pop("sources", [RAMP]), stages, **options)


def test_a_sample_is_a_window_of_the_scene() -> None:
    found = patches(augment=False, reverse_bands=False)
    assert len(found) == 4 * 5
    sample = found[0, 7]
    _, top, left = found.windows[7]
    assert torch.equal(sample["noisy"], sample["clean"]) and sample["clean"].shape == (1, 4, 8, 8)
    starts = {round(float(found[epoch, 7]["clean"][0, 0, 0, 0] * 3000)) // 480 for epoch in range(30)}
    assert starts == {0, 1, 2}, "every start of four of six bands"
    start = round(float(sample["clean"][0, 0, 0, 0] * 3000)) // 480
    np.testing.assert_array_equal(sample["clean"][0], RAMP[start : start + 4, top : top + 8, left : left + 8])


def test_the_eight_symmetries_and_the_reversed_bands_all_come() -> None:
    found = patches(bands=6)
    seen, reversed_bands = set(), 0
    for epoch in range(200):
        clean = found[epoch, 0]["clean"][0].numpy()
        reversed_bands += bool(clean[0].mean() > clean[-1].mean())
        seen.add(tuple(np.round(clean[0][[0, 0, -1, -1], [0, -1, 0, -1]] - clean[0].mean(), 4)))
    assert len(seen) == 8
    assert 70 < reversed_bands < 130


def test_noise_is_what_the_noise_module_gives_and_the_target_is_clean() -> None:
    sample = patches(sigma=50.0, augment=False, reverse_bands=False, bands=6)[2, 5]
    generator = sample_generator(3, 2, 5)
    generator.integers(1)
    generator.integers(2, size=4)
    generator.integers(1, size=2)
    expected = corrupt(sample["clean"][0].numpy(), "gaussian", generator, sigma=50.0)
    np.testing.assert_array_equal(sample["noisy"][0], expected.image)
    assert 40 < 255 * float((sample["noisy"] - sample["clean"]).std()) < 60
    assert any(
        np.array_equal(sample["clean"][0], RAMP[:, t : t + 8, left : left + 8]) for _, t, left in patches().windows
    )


def test_stages_follow_the_stream_of_samples() -> None:
    """Update 10 of the trainer sees the second stage whatever the epoch, and cases 1 to 4 come in turn."""
    stages = [Stage(0, "gaussian", 8), Stage(10, "blind", 4)]
    found = patches(stages=stages, framework="qrnn3d", sigma=0.0)
    for epoch in (0, 1):
        order = np.random.default_rng([3, epoch]).permutation(len(found))
        for offset, index in enumerate(order):
            position = epoch * len(found) + offset
            assert found.position(epoch, int(index)) == position
            sample = found[epoch, int(index)]
            blind = position // 2 >= 10
            assert sample["noisy"].shape == ((4, 4, 4, 4) if blind else (1, 4, 8, 8))
            assert torch.equal(sample["noisy"], sample["clean"]) is not blind


def test_complex_is_cases_1_to_4_in_turn() -> None:
    found = patches(stages=[Stage(0, "complex", 8)], bands=6)
    order = np.random.default_rng([3, 0]).permutation(len(found))
    for offset, index in enumerate(order[:8]):
        zeros = (found[0, int(index)]["noisy"] == 0).flatten(2).sum(-1)
        if offset % 4 == 0:
            assert not zeros.any()
        if offset % 4 == 2:
            assert (zeros == 8).sum() == 2, "one dead column in a third of six bands"


@pytest.mark.parametrize(
    ("keywords", "message"), [({"bands": 7}, "has 6 bands, fewer than"), ({"crop": 21}, "too few for a crop of 21")]
)
def test_scenes_that_are_too_small_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        patches(**keywords)


def test_cut_patches(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((1100, 1030, 3)).astype(np.float32) * 7 + 2
    adjacent = list(cache.patches_of(cube[:300, :260], "mafnet"))
    assert len(adjacent) == 4 and adjacent[0].shape == (3, 128, 128)
    part = cube[:300, :260]
    expected = (part - part.min()) / (part.max() - part.min())
    np.testing.assert_allclose(adjacent[3], np.moveaxis(expected, -1, 0)[:, 128:256, 128:256], atol=1e-6)
    assert len(list(cache.patches_of(cube[..., :1], "qrnn3d"))) == 16**2 + 15**2 + 7**2
    path = tmp_path / "a" / "scene.h5"
    cache.write(path, adjacent)
    opened = cache.CachedScene(path)
    assert opened.shape == (4, 3, 128, 128)
    np.testing.assert_array_equal(opened[2], adjacent[2])
    sample = patches(sources=[cache.CachedScene(path)], bands=3, crop=64)[0, 1]
    assert sample["clean"].shape == (1, 3, 64, 64)
    del opened, sample
    with h5py.File(path, "r+") as file:
        file["patches"][1, 0, 0, 0] += 1
    cache.CachedScene(path)[0]
    with pytest.raises(UserError, match="patch 1 is damaged; delete the file"):
        cache.CachedScene(path)[1]
    path.write_bytes(b"no file")
    with pytest.raises(UserError, match="is not a cache of patches"):
        cache.CachedScene(path)


def test_a_stopped_preparation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def read(root: Path, name: str) -> np.ndarray:
        calls.append(name)
        if name == "b.mat" and len(calls) == 2:
            raise KeyboardInterrupt
        return np.random.default_rng(0).random((128, 256, 2))

    monkeypatch.setattr(cache, "read_icvl", read)
    with pytest.raises(KeyboardInterrupt):
        cache.prepare(tmp_path, ["a.mat", "b.mat"], "mafnet", tmp_path / "cache")
    opened = cache.prepare(tmp_path, ["a.mat", "b.mat"], "mafnet", tmp_path / "cache")
    assert calls == ["a.mat", "b.mat", "b.mat"] and [len(scene) for scene in opened] == [2, 2]


def test_icvl_lists_are_disjoint_and_its_test_scenes_prepared(tmp_path: Path) -> None:
    lists = [icvl_names(name) for name in ("train", "test_gauss", "test_complex")]
    assert [len(names) for names in lists] == [100, 50, 51]
    assert len({name for names in lists for name in names}) == 201
    cube = np.random.default_rng(0).random((31, 600, 1000)).astype(np.float32)
    with h5py.File(tmp_path / "scene.mat", "w") as file:  # MATLAB's order: the axes reversed
        file["rad"] = cube
        file["rad"].attrs["MATLAB_class"] = np.bytes_("single")
    rows_first = cube.T  # (1000, 600, 31)
    centre = icvl_test_region(tmp_path, "scene.mat", "mafnet", complex_noise=False)
    assert (centre.top, centre.left, centre.height, centre.width) == (330, 130, 340, 340)
    shifted = icvl_test_region(tmp_path, "scene.mat", "mafnet", complex_noise=True)
    assert (shifted.top, shifted.left) == (100, 230)
    qrnn3d = icvl_test_region(tmp_path, "scene.mat", "qrnn3d", complex_noise=False).values()
    turned = np.rot90(rows_first)
    cut = turned[44 : 44 + 512, 244 : 244 + 512]
    expected = np.moveaxis((cut - cut.min()) / (cut.max() - cut.min()), -1, 0)
    np.testing.assert_allclose(qrnn3d, expected, atol=1e-6)


def test_regions_of_one_scene_share_no_row_and_the_test_rows_no_scale(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((50, 40, 5))
    cube[45] = 100.0
    np.save(tmp_path / "mine.npy", cube)
    regions = load_regions("demo", None, cube=str(tmp_path / "mine.npy"))
    rows = [range(r.top, r.top + r.height) for split in ("train", "validation", "test") for r in regions[split]]
    assert [row for part in rows for row in part] == list(range(50))
    assert regions["train"][0].divisor == pytest.approx(np.percentile(cube[:32], 99.9), rel=0.01)
    assert regions["test"][0].values().max() == 1.0


def test_scaling() -> None:
    cube = np.linspace(-1, 3, 1000).reshape(10, 10, 10)
    valid = np.ones((10, 10), dtype=bool)
    assert limits(cube, valid, "minmax", "x") == (-1, 4)
    offset, divisor = limits(cube, valid, "percentile", "x")
    assert (offset, divisor) == (0, np.percentile(cube, 99.9))
    values = scaled(cube, offset, divisor)
    assert values.min() == 0 and values.max() == 1 and values.dtype == np.float32
    valid[-1] = False
    assert limits(cube, valid, "minmax", "x")[1] == pytest.approx(4 - 0.4, abs=0.01)
    with pytest.raises(UserError, match="expected positive ones"):
        limits(np.zeros((4, 4, 2)), np.ones((4, 4), dtype=bool), "percentile", "x")


def test_the_real_abu_scenes_are_cut_as_the_protocol_says() -> None:
    regions = load_regions("abu", real_data("abu_aviris"))
    assert [r.name for r in regions["test"]] == ["abu-urban-3_205band"]
    assert [r.scene.bands for split in regions.values() for r in split] == [205] * 6
    noisy = regions["test"][0].values() + np.random.default_rng(0).standard_normal((205, 100, 100)) * 50 / 255
    error = ((noisy - regions["test"][0].values()) ** 2).mean(axis=(1, 2))
    assert (-10 * np.log10(error)).mean() == pytest.approx(14.15, abs=0.01)


def test_the_gradient_term_has_the_stated_weight() -> None:
    """Batch 10 at 128 x 128, white errors of 0.02: 0.0147 beside an L1 of 0.0160."""
    torch.manual_seed(0)
    error = 0.02 * torch.randn(10, 31, 128, 128)
    assert 1e-3 * gradient_term(error).item() == pytest.approx(0.0147, abs=2e-4)
    assert error.abs().mean().item() == pytest.approx(0.0160, abs=1e-4)


def test_the_gradient_term_by_hand() -> None:
    error = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)

    def responses(view: torch.Tensor) -> torch.Tensor:
        windows = view.unfold(1, 3, 1).unfold(2, 3, 1)
        return (windows * kernel).sum((-1, -2))

    mean, rows = error.mean(1), error.sum(2) / 5
    for form, third in (("released", rows), ("spectral", rows.transpose(1, 2))):
        views = [responses(view) for view in (mean, mean.transpose(1, 2), third)]
        norm = sum(view.square().sum().sqrt() for view in views)
        average = sum(view.abs().mean() for view in views)
        torch.testing.assert_close(gradient_term(error, form), norm)  # type: ignore[arg-type]
        torch.testing.assert_close(gradient_term(error, form, "mean"), average)  # type: ignore[arg-type]


def test_the_objective_and_its_gradient_at_zero() -> None:
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    objective(x, torch.zeros_like(x)).backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    error = torch.full((1, 3, 8, 8), 0.5)
    assert objective(error, 0 * error, loss="l2", gradient_weight=0.0).item() == 0.25
    assert objective(error, 0 * error).item() == pytest.approx(0.5, abs=1e-6)


def test_schedules() -> None:
    def rates(schedule, epochs, restart, at, updates):
        return [factor(schedule, int(step), updates, epochs, restart=restart) for step in at]

    # Ten updates per epoch.
    assert rates("halving", (150,), False, (0, 99, 100, 499, 500, 1000, 1499), 1500) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.125,
        0.125,
    ]
    assert rates("halving", (150, 150), False, (1500, 2999), 3000) == [0.0625, 0.0625]
    assert rates("halving", (150, 150), True, (1499, 1500, 1600), 3000) == [0.125, 1, 0.5]
    table = rates("qrnn3d", (30, 20, 50), False, (0, 200, 300, 350, 450, 500, 850, 950), 1000)
    assert table == [1, 0.1, 1, 0.1, 0.01, 1, 0.1, 0.01]
    assert stage_starts((30, 20, 50), 1000) == [0, 300, 500]
    for restart in (True, False):
        cosine = rates("cosine", (1, 1), restart, range(2000), 2000)
        assert 0 < cosine[0] < 0.05 and max(cosine) > 0.99 and cosine[-1] < 1e-5
        assert (cosine[999] < 1e-5) is restart
        assert cosine[1500] == pytest.approx(0.5 if restart else 0.5 + 0.5 * math.cos(0.75 * math.pi), abs=1e-3)


def test_no_data_pixels_take_no_part_in_the_scale() -> None:
    cube = np.random.default_rng(0).random((40, 40, 4)).astype(np.float32)
    cube[:3] = -9999
    scene = make_scene("x", cube, no_data=-9999)
    assert limits(scene.cube, scene.valid, "minmax", "x")[0] >= 0
