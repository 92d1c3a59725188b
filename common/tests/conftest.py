"""Fixtures that several test files use."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from scipy.io import savemat

from common.hyperspectral.geotiff import write_geotiff
from support.scenes import CODES, CUBE


@pytest.fixture
def files(tmp_path):
    savemat(tmp_path / "cube.mat", {"cube": CUBE, "labels": CODES, "names": np.array(["a", "b"], dtype=object)})
    savemat(tmp_path / "labels.mat", {"gt": CODES.astype(float)})
    savemat(tmp_path / "packed.mat", {"cube": CUBE}, do_compression=True)
    savemat(tmp_path / "alone.mat", {"cube": CUBE})
    with h5py.File(tmp_path / "new.mat", "w") as file:  # MATLAB v7.3 reverses the axes
        file["cube"], file["labels"] = CUBE.T, CODES.T
        file["cube"].attrs["MATLAB_class"] = file["labels"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["cube"] = CUBE
    np.save(tmp_path / "cube.npy", CUBE)
    np.save(tmp_path / "first.npy", np.moveaxis(CUBE, -1, 0))
    np.savez(tmp_path / "cube.npz", cube=CUBE, labels=CODES)
    tifffile.imwrite(
        tmp_path / "bands.tif", np.moveaxis(CUBE, -1, 0), photometric="minisblack", planarconfig="separate"
    )
    write_geotiff(tmp_path / "pixels.tif", CUBE)
    return tmp_path
