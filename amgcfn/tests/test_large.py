"""A scene larger than memory is processed in windows with their own graphs; one window equals the scene in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from amgcfn import create_model
from amgcfn.data import PreparedScene
from amgcfn.presets import Config
from common.config import to_json
from common.files import write_json
from common.hyperspectral import raster
from common.hyperspectral.scene import make_scene
from support.rasters import only_windows, smooth_scene, write_raster
from support.scripts import call_script

__all__ = ["only_windows"]
PREDICT = Path(__file__).parents[1] / "predict.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights, with the graph and components of another scene."""
    folder = tmp_path_factory.mktemp("run") / "model"
    config = Config(pixels_per_superpixel=40, ratio=0.05, validation=0.05)
    rows, columns = np.mgrid[:40, :40] // 20
    labels = 1 + (rows + columns) % 3
    scene = make_scene("other", smooth_scene(40, 40, 6), labels * 10)
    write_json(folder.parent / "config.json", {"config": to_json(config)})
    PreparedScene.draw(scene, config, seed=1).save(folder)
    torch.manual_seed(0)
    model = create_model(bands=6, num_classes=3, graph_dim=16, conv_dim=16)
    torch.nn.init.normal_(model.fused_classifier.weight, std=0.002)  # no probability of exactly 0 or 1
    model.save_pretrained(folder)
    return folder


def maps(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(folder / "classes.tif") as first, rasterio.open(folder / "probabilities.tif") as second:
        assert first.nodata == 0 and np.isnan(second.nodata) and second.descriptions[0] == "class 10"
        return first.read(1), np.moveaxis(second.read(), 0, -1)


@pytest.mark.usefixtures("only_windows")
def test_one_window_is_the_scene_in_memory(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = smooth_scene(50, 67, 6)
    cube[:, 60:] = cube[4, 5] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", checkpoint, "--input", source, "--output"]
    call_script(PREDICT, *flags, tmp_path / "whole", "--memory", "4G")
    monkeypatch.setattr(raster, "larger_than", lambda *_: True)
    done = call_script(PREDICT, *flags, tmp_path / "windows", "--memory", "4G")
    assert "/1 [" in done.stderr and not (tmp_path / "windows" / "map.png").exists()
    classes, probabilities = maps(tmp_path / "windows")
    np.testing.assert_array_equal(classes, np.load(tmp_path / "whole" / "classes.npy"))
    np.testing.assert_allclose(probabilities, np.load(tmp_path / "whole" / "probabilities.npy"), atol=1e-6)
    assert set(np.unique(classes)) <= {0, 10, 20, 30} and np.nanstd(probabilities[..., 0]) > 0.001


@pytest.mark.usefixtures("only_windows")
def test_windows_have_graphs_of_their_own(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of which only a corner holds data, or that are constant."""
    monkeypatch.setattr(raster, "larger_than", lambda *_: True)
    cube = smooth_scene(150, 140, 6)
    cube[90:, 90:] = 500
    cube[:, 100:] = 0
    cube[0, 100] = 600
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", checkpoint, "--input", source, "--output"]
    done = call_script(PREDICT, *flags, tmp_path / "windows", "--memory", "14M")
    assert "/9 [" in done.stderr
    classes, probabilities = maps(tmp_path / "windows")
    hole = (cube == 0).all(axis=2)
    np.testing.assert_array_equal(classes == 0, hole)
    np.testing.assert_array_equal(np.isnan(probabilities).all(axis=2), hole)
    np.testing.assert_allclose(probabilities[~hole].sum(axis=1), 1, atol=1e-5)
