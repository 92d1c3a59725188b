"""Splits of the published protocols, wrong input in one sentence, windows and augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from common.errors import UserError
from common.hyperspectral.classification.disjoint import overlap
from common.hyperspectral.synthetic import synthetic_scene
from lsgavit.data import CLASSES, PreparedScene, TrainingPixels, find_scene, recorded_classes, turned
from lsgavit.presets import PRESETS, Config
from support.data import real_data

RNG = np.random.default_rng(0)
CUBE = RNG.random((20, 18, 6), dtype=np.float32)
LABELS = np.repeat(np.arange(1, 4), 120).reshape(20, 18)


def draw(
    tmp_path: Path, *, cube: np.ndarray = CUBE, labels: np.ndarray = LABELS, key: str = "cube", **changes: object
) -> PreparedScene:
    file = tmp_path / "own.mat"
    scipy.io.savemat(file, {"cube": cube, "labels": labels})
    defaults = {"cube": f"{file}:{key}", "labels": f"{file}:labels", "components": 4, "window": 5}
    config = Config(**defaults | changes)
    return PreparedScene.draw(find_scene(config), config, seed=0)


def with_nan() -> np.ndarray:
    cube = CUBE.copy()
    cube[..., 2] = np.nan
    return cube


def one_pixel_class() -> np.ndarray:
    labels = LABELS.copy()
    labels[0, 0] = 4
    return labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:-1]}, "labels are 19 × 18 pixels but the cube"),
        ({"labels": LABELS.T}, "look transposed"),
        ({"key": "nothing"}, "has no key 'nothing'; it holds"),
        ({"cube": CUBE + 1j}, "holds complex numbers; expected real numbers"),
        ({"cube": np.array([[[{}]]], dtype=object)}, "cube: "),
        ({"cube": with_nan()}, r"no pixel holds data \(bands 2, counted from 0, hold NaN"),
        ({"labels": one_pixel_class()}, "class 4 has 1 labelled pixel"),
        ({"labels": np.zeros((20, 18))}, "every label is 0"),
        ({"components": 7}, "7 principal components asked for; expected 1 to 6"),
        ({"window": 19}, "--window 19 is larger than the scene own of 20 × 18 pixels"),
        ({"ratio": 1.5}, "a training ratio of 1.5 was asked for"),
        ({"validation": 0.95}, "--validation 0.95 asks for 342 pixels"),
        ({"patience": 3}, "--patience needs validation pixels"),
        ({"split": "fixed"}, "--split fixed belongs to a published scene"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        draw(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_the_released_split_and_components(tmp_path: Path) -> None:
    sample = draw(tmp_path, ratio=0.1)
    assert sample.split.sizes == (36, 0, 324)
    classes = LABELS.reshape(-1)[sample.split.train]
    assert np.bincount(classes).tolist() == [0, 12, 12, 12]
    whitened = sample.components.apply(sample.scene.cube).reshape(-1, 4)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=1e-5)
    assert sample.components.fitted_on == "all pixels"


def test_a_disjoint_split_shares_no_pixel_between_windows() -> None:
    scene = synthetic_scene(96, 96, bands=12, num_classes=4)
    sample = PreparedScene.draw(scene, Config(split="disjoint", components=4), seed=3)
    assert overlap(sample.split, 9).shared == 0
    random = PreparedScene.draw(scene, Config(components=4), seed=3)
    assert overlap(random.split, 9).contained > 90


def test_validation_pixels_come_from_the_test_part(tmp_path: Path) -> None:
    plain, held = draw(tmp_path), draw(tmp_path, validation=0.05)
    assert held.split.sizes == (36, 18, 306)
    assert np.array_equal(plain.split.train, held.split.train)
    assert set(held.split.validation) | set(held.split.test) == set(plain.split.test)


def test_a_saved_split_is_used_again(tmp_path: Path) -> None:
    sample = draw(tmp_path)
    sample.save(tmp_path / "model")
    again = draw(tmp_path, split_file=str(tmp_path / "model" / "split.npz"), ratio=0.5)
    assert np.array_equal(again.split.train, sample.split.train)
    with pytest.raises(UserError, match="other labels"):
        draw(tmp_path, labels=LABELS[::-1], split_file=str(tmp_path / "model" / "split.npz"))


def test_samples_depend_on_seed_epoch_and_index_only(tmp_path: Path) -> None:
    sample = draw(tmp_path)
    first, again = (TrainingPixels(sample, 7, augmentation=True) for _ in range(2))
    keys = [(epoch, index) for epoch in range(2) for index in range(len(first))]
    ours = [first[key] for key in keys]
    assert [item["symmetry"].item() for item in ours] == [again[key]["symmetry"].item() for key in keys[::-1]][::-1]
    assert {item["symmetry"].item() for item in ours} == set(range(8))
    pixels = [item["pixel"].item() for item in ours[: len(first)]]
    assert pixels == sample.split.train.tolist()
    assert all(LABELS.reshape(-1)[p] - 1 == item["class"].item() for p, item in zip(pixels, ours, strict=False))
    assert {TrainingPixels(sample, 7, augmentation=False)[key]["symmetry"].item() for key in keys} == {0}


def test_the_eight_symmetries() -> None:
    window = torch.arange(9.0).view(1, 1, 3, 3)
    results = turned(window.expand(8, 1, 3, 3), torch.arange(8))
    assert torch.equal(results[0], window[0])
    assert len({tuple(result.flatten().tolist()) for result in results}) == 8
    assert (results[:, 0, 1, 1] == 4).all()  # the classified pixel stays in the centre


def test_presets_name_scenes_and_say_what_to_expect() -> None:
    for name, make in PRESETS.items():
        config = make()
        assert name in ("demo", config.dataset, f"{config.dataset}_fixed")
        assert (config.components, config.window, config.learning_rate, config.batch_size) == (36, 9, 5e-4, 128)
        assert "accelerate launch" in make.__doc__
    assert PRESETS["indian_pines"]().epochs == 70
    with pytest.raises(UserError, match="--data-root is missing: salinas"):
        find_scene(PRESETS["salinas"]())


@pytest.mark.parametrize(("name", "sizes"), [("houston2018_crop", (414, 0, 3729)), ("salinas_a", (534, 0, 4814))])
def test_published_sizes_of_the_real_scenes(name: str, sizes: tuple[int, ...]) -> None:
    root = real_data(name).parent
    config = replace(PRESETS[name](), data_root=root)
    sample = PreparedScene.draw(find_scene(config), config, seed=5)
    assert sample.split.sizes == sizes


def test_the_fixed_split_defines_its_labels() -> None:
    root = real_data("ground_truth_only").parent
    config = replace(PRESETS["pavia_university_fixed"](), data_root=root)
    with pytest.raises(UserError, match=r"PaviaU.mat of pavia_university was not found"):
        find_scene(config)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "{}",
        '{"names": 3, "codes": "x"}',
        '{"names": ["a"], "codes": [1, 2]}',
        '{"names": ["a", "b"], "codes": [1, -1]}',
        '{"names": ["a"], "codes": [1]}',
        '{"names": ["a", "b"], "codes": [1, 1.5]}',
    ],
)
def test_damaged_class_names_of_a_model_are_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / CLASSES).write_text(text)
    with pytest.raises(UserError, match=r"classes\.json: does not hold class names .*keep a model's folder together"):
        recorded_classes(tmp_path, 2)
