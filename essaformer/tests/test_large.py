"""A scene larger than memory, processed by windows, gives the result of the scene in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from common.hyperspectral.readers import read_array
from conftest import Verb
from essaformer import create_model, tiling
from essaformer.checkpoints import save_scaling
from essaformer.scaling import Scaling
from support.rasters import only_windows, smooth_scene, write_raster

__all__ = ["only_windows"]


def checkpoint(folder: Path, scaling: Scaling) -> Path:
    """A network of random weights for four bands, which doubles the size."""
    save_scaling(scaling, folder / "model")
    torch.manual_seed(0)
    create_model("essaformer_small", bands=4, dim=8, scale=2, global_residual=False).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.usefixtures("only_windows")
@pytest.mark.parametrize("scaling", [Scaling("percentile", 99.5), Scaling("maximum"), Scaling("constant", 2500)])
def test_windows_equal_the_scene_in_memory(scaling: Scaling, verb: Verb, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tiling, "fixed_bytes", lambda model: 0)
    cube = smooth_scene(50, 70, 4)
    cube[30:34, 60:63] = cube[4, 5] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    flags = ["--checkpoint", checkpoint(tmp_path, scaling), "--input", source, "--tile", 16, "--output"]
    verb("predict", *flags, tmp_path / "whole.tif", "--memory", "4G")
    done = verb("predict", *flags, tmp_path / "windows.tif", "--memory", "1M")
    assert "/20 [" in done.stderr and not (tmp_path / "windows_before_after.png").exists()
    whole, windows = (read_array(tmp_path / name, (3,)) for name in ("whole.tif", "windows.tif"))
    assert windows.no_data == whole.no_data == 0 and windows.values.shape == (100, 140, 4)
    np.testing.assert_array_equal(windows.values, whole.values)
    assert windows.values.std() > 10
    hole = (cube == 0).all(axis=2).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal((windows.values == 0).all(axis=2), hole)
    with rasterio.open(tmp_path / "windows.tif") as file, rasterio.open(source) as given:
        assert file.crs == given.crs and file.bounds == given.bounds and file.descriptions == given.descriptions


@pytest.mark.usefixtures("only_windows")
def test_what_needs_the_scene_in_memory_is_named(verb: Verb, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth_scene(50, 70, 4))
    flags = ["--checkpoint", checkpoint(tmp_path, Scaling("maximum")), "--input", source, "--tile", 16, "--output"]
    for output, others, sentence in (
        ("x.tif", ("--reduce", "--memory", "1M"), "--reduce and --truth need the scene in memory; raise --memory"),
        ("x.npy", ("--memory", "1M"), "x.npy: a scene larger than --memory becomes a GeoTIFF; name it .tif"),
        ("scene.tif", ("--memory", "1M", "--existing", "replace"), "scene.tif: would replace a file of the input"),
        ("x.npy", ("--cog",), "x.npy: --cog makes a cloud-optimised GeoTIFF"),
        ("x.tif", ("--memory", "50K"), "--memory is too small for windows of this scene; add at least"),
    ):
        done = verb("predict", *flags, tmp_path / output, *others, status=2)
        assert sentence in done.stderr
    verb("predict", *flags, tmp_path / "x.tif", "--cog")
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
