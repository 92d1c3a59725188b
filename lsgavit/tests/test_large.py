"""A scene larger than memory, processed by windows, gives the result of the scene in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from common.files import write_json
from common.hyperspectral.classification.transforms import fit_pca
from lsgavit import create_model, large
from lsgavit.data import CLASSES, COMPONENTS
from support.rasters import only_windows, smooth_scene, write_raster
from support.scripts import call_script

__all__ = ["only_windows"]
PREDICT = Path(__file__).parents[1] / "predict.py"


@pytest.fixture
def small(only_windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens of strips are not counted, which would take twenty megabytes."""
    monkeypatch.setattr(large, "BYTES_OF_ROWS", 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights, for windows of 5 × 7 pixels of 6 of 8 bands' components and four classes."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = create_model(image_size=(5, 7), bands=6, num_classes=4, embed_dim=12, num_heads=(3,))
    torch.nn.init.normal_(model.head.weight)
    model.save_pretrained(folder)
    fit_pca(smooth_scene(40, 40, 8), 6).save(folder / COMPONENTS)
    write_json(folder / CLASSES, {"names": ["water", "road", "tree", "roof"], "codes": [1, 5, 7, 300]})
    return folder


@pytest.mark.usefixtures("small")
def test_windows_equal_the_scene_in_memory(checkpoint: Path, tmp_path: Path) -> None:
    cube = smooth_scene(50, 67, 8)
    cube[30:34, 60:63] = cube[4, 5] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", checkpoint, "--input", source, "--output"]
    call_script(PREDICT, *flags, tmp_path / "whole", "--cog")
    done = call_script(PREDICT, *flags, tmp_path / "windows", "--memory", "500K", "--cog")
    assert "/6 [" in done.stderr
    assert sorted(path.name for path in (tmp_path / "windows").iterdir()) == ["classes.tif", "probabilities.tif"]
    with rasterio.open(tmp_path / "windows" / "classes.tif") as file, rasterio.open(source) as given:
        assert file.nodata == 0 and file.crs == given.crs and file.transform == given.transform
        classes = file.read(1)
    with rasterio.open(tmp_path / "whole" / "classes.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(classes, file.read(1))
    assert len(np.unique(classes)) > 2, "more than one class and no data"
    with rasterio.open(tmp_path / "windows" / "probabilities.tif") as file:
        assert file.descriptions == ("water", "road", "tree", "roof") and np.isnan(file.nodata)
        found = np.moveaxis(file.read(), 0, -1)
    np.testing.assert_allclose(found, np.load(tmp_path / "whole" / "probabilities.npy"), atol=1e-6)
    for size in ("500K", "4G"):  # the scene in memory does not replace it either
        again = call_script(PREDICT, *flags, tmp_path / "windows", "--memory", size, status=2)
        assert "classes.tif: exists; add --existing replace" in again.stderr
    call_script(PREDICT, *flags, tmp_path / "windows", "--memory", "4G", "--existing", "replace")
    np.testing.assert_array_equal(np.load(tmp_path / "windows" / "classes.npy"), classes)


@pytest.mark.usefixtures("small")
def test_another_sensor_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth_scene(60, 67, 7))
    flags = ["--checkpoint", checkpoint, "--input", source, "--output", tmp_path / "maps", "--memory", "500K"]
    assert "has 7 bands, but the model needs 8" in call_script(PREDICT, *flags, status=2).stderr
