"""A scene with a border without data gives the split, graph, weights and map of the scene without the border."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from amgcfn.data import PreparedScene, find_scene
from amgcfn.presets import Config
from common.errors import UserError
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import open_scene
from common.hyperspectral.stored import Georeference
from support.scripts import call_script

PROJECT = Path(__file__).parents[1]
PLACE = Georeference({33550: (2.0, 2.0, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 3e6, 0.0)})
TOP, LEFT, RIGHT = 6, 3, 2
SHORT = ["--pixels-per-superpixel", "40", "--ratio", "0.05", "--validation", "0.05", "--epochs", "4", "--seeds", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :26]
    labels = 1 + (rows // 10 + columns // 13) % 3
    cube = generator.uniform(500, 3000, (4, 6))[labels] + 60 * generator.standard_normal((30, 26, 6))
    labels[:2] = 0
    np.savez(folder / "plain.npz", cube=cube.astype(np.float32), labels=labels)
    border = ((TOP, 0), (LEFT, RIGHT))
    wide = np.pad(cube.astype(np.float32), (*border, (0, 0)), constant_values=-9999)
    write_geotiff(folder / "wide.tif", wide, PLACE, no_data=-9999)
    np.savez(folder / "wide.npz", labels=np.pad(labels, border))
    return folder


def scenes(files: Path):
    plain = open_scene(f"{files}/plain.npz:cube", f"{files}/plain.npz:labels")
    return plain, open_scene(files / "wide.tif", f"{files}/wide.npz:labels")


def test_split_components_and_graph_are_the_same(files: Path) -> None:
    config = Config(pixels_per_superpixel=40, ratio=0.05, validation=0.05)
    plain, wide = (PreparedScene.draw(scene, config, seed=3) for scene in scenes(files))
    for part in ("train", "validation", "test"):
        row, column = np.divmod(getattr(plain.split, part), 26)
        expected = (row + TOP) * (26 + LEFT + RIGHT) + column + LEFT
        np.testing.assert_array_equal(getattr(wide.split, part), expected)
        assert wide.positions(expected).tolist() == getattr(plain.split, part).tolist()
    np.testing.assert_array_equal(wide.components.weight, plain.components.weight)
    np.testing.assert_array_equal(wide.graph.features, plain.graph.features)
    np.testing.assert_array_equal(wide.graph.segments[wide.scene.extent], plain.graph.segments)
    arguments, classes = plain.tensors(torch.device("cpu"))
    others, again = wide.tensors(torch.device("cpu"))
    assert torch.equal(classes, again) and torch.equal(arguments[0], others[0])
    assert torch.equal(arguments[2], others[2])
    for hop, other in zip(arguments[3], others[3], strict=True):
        assert torch.equal(hop.to_dense(), other.to_dense())


def test_weights_map_and_scores_are_the_same(files: Path, tmp_path: Path) -> None:
    for name, cube in (("plain", f"{files}/plain.npz:cube"), ("wide", files / "wide.tif")):
        source = ["--cube", cube, "--labels", f"{files}/{name}.npz:labels"]
        call_script(PROJECT / "train.py", *source, *SHORT, "--output", tmp_path / name)
    plain, wide = (tmp_path / name / "seed_1" / "model" for name in ("plain", "wide"))
    assert (plain / "model.safetensors").read_bytes() == (wide / "model.safetensors").read_bytes()
    scores = [json.loads((tmp_path / name / "seed_1" / "scores.json").read_text()) for name in ("plain", "wide")]
    assert scores[0] == scores[1]
    for name, model in (("plain", plain), ("wide", wide)):
        call_script(
            PROJECT / "predict.py", "--checkpoint", model, "--output", tmp_path / f"{name}_maps", "--rows", "11"
        )
    maps = [np.load(tmp_path / f"{name}_maps" / "probabilities.npy") for name in ("plain", "wide")]
    np.testing.assert_array_equal(maps[1], np.pad(maps[0], ((TOP, 0), (LEFT, RIGHT), (0, 0)), constant_values=np.nan))
    classes = [np.load(tmp_path / f"{name}_maps" / "classes.npy") for name in ("plain", "wide")]
    np.testing.assert_array_equal(classes[1], np.pad(classes[0], ((TOP, 0), (LEFT, RIGHT))))
    assert not (tmp_path / "plain_maps" / "classes.tif").exists()
    stored = read_array(tmp_path / "wide_maps" / "classes.tif", (2,))
    assert stored.no_data == 0 and stored.georeference == PLACE
    np.testing.assert_array_equal(stored.values, classes[1])
    done = call_script(PROJECT / "evaluate.py", "--checkpoint", tmp_path / "wide")
    assert "hold no data and are left out" in done.stdout
    rows = [json.loads((tmp_path / "wide" / name).read_text()) for name in ("results.json", "evaluation.json")]
    assert [row["value"] for row in rows[0]] == [row["value"] for row in rows[1]]


@pytest.mark.parametrize("flag", [{"no_data": 0.0}, {"labels": "gt.mat"}, {"band_axis": "first"}])
def test_flags_of_an_own_scene_need_one(flag) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(flag)).replace('_', '-')} is only for your own scene"):
        find_scene(Config(**flag))
