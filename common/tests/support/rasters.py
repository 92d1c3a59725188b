"""Small GeoTIFF and ENVI scenes, and a fixture by which they count as large."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from common.hyperspectral import streaming


def write_raster(path: Path, cube: np.ndarray, *, driver: str = "GTiff", **profile: Any) -> Path:
    """Write a scene with a georeference, names and wavelengths of its bands; `profile` has further creation options."""
    size = {"height": cube.shape[0], "width": cube.shape[1], "count": cube.shape[2], "dtype": cube.dtype}
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 4, 4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=driver, **size, **place, **profile) as file:
            file.write(np.moveaxis(cube, -1, 0))
            for band in file.indexes:
                file.set_band_description(band, f"band {band}")
                file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{0.4 + band / 10:g}")
    return path


def smooth_scene(rows: int, columns: int, bands: int, *, dtype: str = "uint16") -> np.ndarray:
    """Return waves with noise, values of about 100 to 2,000."""
    down, across, band = np.ogrid[:rows, :columns, :bands]
    waves = np.sin(down / 9 + band) * np.cos(across / 7) + np.random.default_rng(0).normal(
        0, 0.1, (rows, columns, bands)
    )
    return (1000 + 500 * waves).clip(100, 2000).astype(dtype)


@pytest.fixture
def only_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subtract no memory for libraries from `--memory`, so that a few megabytes suffice for small scenes by windows."""
    monkeypatch.setattr(streaming, "LIBRARIES", {"cpu": 0})
    monkeypatch.setattr(streaming, "CACHE", 0)
