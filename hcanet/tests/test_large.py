"""A scene larger than memory, processed by windows, gives the result of the scene in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from common.errors import UserError
from common.hyperspectral.raster import boxes
from common.hyperspectral.readers import read_array
from common.hyperspectral.streaming import around, halo
from conftest import Verb
from hcanet import HCANet
from hcanet.checkpoints import Preparation, save_preparation
from hcanet.eigen import EigenSpace, eigen_images
from support.rasters import only_windows, smooth_scene, write_raster

__all__ = ["only_windows"]


@pytest.fixture(scope="module", params=["released", "pixel"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights for four bands, on tiles of 16 pixels."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_preparation(Preparation("percentile", 16), folder)
    torch.manual_seed(0)
    HCANet(4, 4, num_blocks=(1, 0, 0), num_refinement_blocks=0, local_mix=request.param).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("only_windows")
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_windows_equal_the_scene_in_memory(dtype: str, checkpoint: Path, verb: Verb, tmp_path: Path) -> None:
    cube = smooth_scene(80, 100, 6, dtype=dtype)
    cube[50:54, 90:93] = cube[4, 5] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", checkpoint, "--input", source, "--tile", 16, "--output"]
    verb("predict", *flags, tmp_path / "whole.tif", "--memory", "4G")
    assert (tmp_path / "whole_before_after.png").exists()
    done = verb("predict", *flags, tmp_path / "windows.tif", "--memory", "1600K")
    assert "window/s" in done.stderr and "/1 [" not in done.stderr.rpartition("\r")[2]
    assert not (tmp_path / "windows_before_after.png").exists()
    whole, windows = (read_array(tmp_path / name, (3,)) for name in ("whole.tif", "windows.tif"))
    assert windows.no_data == whole.no_data == 0
    # Convolutions round differently in batches of other sizes.
    np.testing.assert_allclose(windows.values, whole.values.astype(float), rtol=1e-5, atol=dtype == "uint16")
    hole = (cube == 0).all(axis=2)
    assert (windows.values[hole] == 0).all() and (windows.values[~hole] != cube[~hole]).any()
    with rasterio.open(tmp_path / "windows.tif") as file, rasterio.open(source) as given:
        assert file.crs == given.crs and file.transform == given.transform


@pytest.mark.usefixtures("only_windows")
def test_outputs_of_large_scenes_are_geotiffs(checkpoint: Path, verb: Verb, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth_scene(80, 100, 6))
    flags = ["--checkpoint", checkpoint, "--input", source, "--tile", 16, "--output"]
    done = verb("predict", *flags, tmp_path / "x.npy", "--memory", "1600K", status=2)
    assert "x.npy: a scene larger than --memory becomes a GeoTIFF; name it .tif" in done.stderr
    done = verb("predict", *flags, tmp_path / "x.npy", "--cog", status=2)
    assert "x.npy: --cog makes a cloud-optimised GeoTIFF" in done.stderr
    done = verb("predict", *flags, tmp_path / "x.tif", "--memory", "100K", status=2)
    assert "--memory is too small for windows of this scene; add at least" in done.stderr
    verb("predict", *flags, tmp_path / "x.tif", "--cog")
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.usefixtures("only_windows")
def test_eigen_images_come_from_one_pass_over_the_scene(verb: Verb, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HCANet(2, 4, num_blocks=(1, 0, 0), num_refinement_blocks=0, local_mix="pixel")
    model.save_pretrained(tmp_path / "model")
    save_preparation(Preparation("percentile", 16, eigen_images=2), tmp_path / "model")
    cube = smooth_scene(140, 100, 6, dtype="float32")
    cube[50:54, 90:93] = cube[4, 5] = cube[:, 95:] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", tmp_path / "model", "--input", source, "--tile", 16, "--output"]
    verb("predict", *flags, tmp_path / "whole.tif", "--memory", "4G")
    done = verb("predict", *flags, tmp_path / "windows.tif", "--memory", "2500K")
    assert "eigen-images: 100%" in done.stderr
    whole, windows = (read_array(tmp_path / name, (3,)).values for name in ("whole.tif", "windows.tif"))
    # Only the noise levels differ, by up to half a bin of 0.3 %.
    valid = (cube != 0).any(axis=2)
    assert np.abs(windows - whole)[valid].max() < 0.002 * np.abs(whole - cube)[valid].max()
    assert (windows[~valid] == 0).all()
    save_preparation(Preparation("percentile", 16, eigen_images=2, outliers=True), tmp_path / "model")
    done = verb("predict", *flags, tmp_path / "x.tif", "--memory", "2500K", status=2)
    assert "scene must fit in memory; raise --memory" in done.stderr


def test_pieces_give_the_space_of_the_whole_scene() -> None:
    image = np.moveaxis(smooth_scene(70, 90, 6, dtype="float32"), -1, 0) / 2000
    valid = np.ones((70, 90), dtype=bool)
    valid[20:30, 60:] = False
    image[:, ~valid] = 40  # where it must not count
    pieces = []
    for part in boxes((70, 90), 32):
        box, inner = around(halo(1), part, (70, 90))
        pieces.append((image[:, *box], valid[box], inner))
    found, expected = EigenSpace.of_pieces(pieces, 6, 2), eigen_images(image, 2, outliers=False, valid=valid)[1]
    np.testing.assert_allclose(found.scale, expected.scale, rtol=0.0016)
    np.testing.assert_allclose(found.mean * found.scale, expected.mean * expected.scale, rtol=1e-6)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=0.003)
    with pytest.raises(UserError, match="no pixel of the scene holds data"):
        EigenSpace.of_pieces([], 6, 2)
