"""Write GeoTIFFs larger than memory through rasterio: tiled, window by window, and as cloud-optimised files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import extra
from common.files import sync
from common.hyperspectral.labels import in_codes
from common.hyperspectral.raster import Box, Raster

BLOCK = 256
"""Rows and columns of a block of the file."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Description of a GeoTIFF that is written window by window.

    Attributes:
        path: the finished file.
        bands, dtype: number of bands and type of the values.
        no_data: the value of pixels without data; None if there can be no such pixels.
        scale: pixels of the layer along one pixel of the scene.
        names: names of the bands; if empty, the scene's names and wavelengths.
    """

    path: Path
    bands: int
    dtype: np.dtype
    no_data: float | int | None
    scale: int = 1
    names: tuple[str, ...] = ()


def class_layers(folder: Path, codes: Sequence[int], names: tuple[str, ...]) -> list[Layer]:
    """Return the two files of a classification: probabilities.tif, a band per class, and classes.tif with class codes.

    Args:
        codes, names: code and name of each class.
    """
    kind = in_codes(np.zeros(1, dtype=np.int64), codes).dtype
    return [
        Layer(folder / "probabilities.tif", len(codes), np.dtype(np.float32), float("nan"), names=names),
        Layer(folder / "classes.tif", 1, kind, 0, names=("class",)),
    ]


def write_layer(path: Path, layer: Layer, source: Raster, windows: Iterable[tuple[Box, np.ndarray]]) -> None:
    """Write a tiled GeoTIFF with deflate compression, as BigTIFF if it may become larger than 4 GB.

    Blocks without data are not stored; readers return the no-data value for them.

    Args:
        path: the file to write; it may differ from `layer.path`.
        windows: rectangles of whole blocks, in pixels of the layer, with their values `(rows, columns, bands)`.
    """
    import rasterio  # noqa: PLC0415 - an extra
    from rasterio.windows import Window  # noqa: PLC0415

    height, width = (length * layer.scale for length in source.shape)
    place: dict[str, Any] = {"crs": source.file.crs}
    if not source.file.transform.is_identity:
        a, b, left, d, e, top = source.file.transform[:6]
        across, down = (a / layer.scale, d / layer.scale), (b / layer.scale, e / layer.scale)
        place["transform"] = rasterio.Affine(across[0], down[0], left, across[1], down[1], top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=layer.bands, dtype=layer.dtype.name, **place,
            nodata=layer.no_data, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, interleave="band",
            compress="deflate", bigtiff="IF_SAFER", sparse_ok=True,
        ) as file:  # fmt: skip
            for band in range(1, layer.bands + 1):
                name = layer.names[band - 1] if layer.names else source.file.descriptions[band - 1]
                if name:
                    file.set_band_description(band, name)
                if source.wavelengths is not None and not layer.names:
                    file.update_tags(
                        band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{source.wavelengths[band - 1] / 1e3:.9g}"
                    )
            for box, values in windows:
                file.write(np.moveaxis(values, -1, 0), window=Window.from_slices(*box))


def make_cog(path: Path, *, classes: bool = False) -> None:
    """Rewrite a GeoTIFF, in place, as a cloud-optimised GeoTIFF with overviews.

    Args:
        classes: the file holds class codes, so an overview pixel is one of the pixels instead of their mean.
    """
    with extra("fullpaper-common[raster]"):
        import rasterio.shutil  # noqa: PLC0415 - an extra

    temporary = path.with_name(f".{path.stem}.cog{path.suffix}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            rasterio.shutil.copy(
                path, temporary, driver="COG", compress="deflate", bigtiff="IF_SAFER", blocksize=BLOCK, sparse_ok=True,
                overview_resampling="nearest" if classes else "average",
            )  # fmt: skip
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
