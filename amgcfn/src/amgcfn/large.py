"""Scenes larger than memory: overlapping windows, each with its own superpixel graph.

For a scene in memory the network has one graph of the whole scene and computes averages and a softmax over all pixels.
Here these are limited to a window, so the result differs from that of the whole scene and depends on the size of the
windows, which follows from the memory. The larger the windows, the smaller the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from amgcfn.checkpoints import load_model
from amgcfn.data import COMPONENTS, recorded_classes
from amgcfn.graph import SuperpixelGraph, build_graph
from amgcfn.model import HOPS
from amgcfn.presets import Config
from amgcfn.strips import classify_scene, rows_for_memory
from common.errors import UserError
from common.hyperspectral.classification.transforms import SpectralTransform
from common.hyperspectral.labels import in_codes
from common.hyperspectral.layers import class_layers
from common.hyperspectral.raster import Box
from common.hyperspectral.scene import Scene
from common.hyperspectral.streaming import Stream, halo, window_side
from common.networks.weights import finite

AROUND = 32
"""Pixels around a window that are also part of its graph: about three superpixels."""
BYTES_PER_PIXEL = 300
"""Bytes of superpixels and small maps, without those that depend on the number of classes."""


def classify_raster(
    folder: Path, input_: str, output: Path, config: Config, flags: Any, *, rows: int | None = None
) -> None:
    """Classify a GeoTIFF or ENVI scene of any size into OUTPUT/classes.tif and OUTPUT/probabilities.tif.

    Args:
        folder: the model folder, with components and classes.
        config: the run's configuration, for the superpixels.
        flags: see `Stream`; half of `--memory` is for the network and half for a window.
        rows: rows of a strip within a window.

    Raises:
        UserError: the scene has another number of bands, the memory is too small, or windows or output belong to
            another command.
    """
    model, components = load_model(folder).float(), SpectralTransform.load(folder / COMPONENTS)
    names, codes = recorded_classes(folder)
    layers = class_layers(output, codes, names)
    stream = Stream(input_, layers[-1].path, model, flags)
    source = stream.source
    if source.bands != model.bands:
        raise UserError(f"{input_}: has {source.bands} bands, but the model needs {model.bands}")
    pixel = source.bands * 2 * source.dtype.itemsize + BYTES_PER_PIXEL + 24 * model.num_classes
    side = window_side(stream.left / 2, lambda side: (side + 2 * AROUND) ** 2 * pixel)
    strip = rows or rows_for_memory(model, side + 2 * AROUND, stream.left / 2)
    if not stream.begin(windows=side, rows=strip, codes=codes, components=components.weight.tolist()):
        return

    def compute(scene: Scene, box: Box, inner: Box) -> Sequence[np.ndarray]:
        graph = window_graph(scene, components, config)
        logits = classify_scene(model, scene.cube, graph, rows=strip, extent=scene.extent)[0]
        finite(logits[scene.valid.reshape(-1)])
        probabilities = logits.softmax(dim=1).numpy().reshape(*scene.shape, -1)[inner].copy()
        return [probabilities, in_codes(probabilities.argmax(axis=2) + 1, codes)[..., None]]

    stream.run(layers, compute, halo(AROUND), side)


def window_graph(scene: Scene, components: SpectralTransform, config: Config) -> SuperpixelGraph:
    """Return the graph of a window; it has one node if the pixels with data do not give two superpixels."""
    try:
        return build_graph(
            scene.cube, components, valid=scene.valid, sigma=config.sigma, rescale=config.rescale,
            pixels_per_superpixel=config.pixels_per_superpixel,
        )  # fmt: skip
    except UserError:
        alone = sparse.csr_array(np.ones((1, 1)))
        features = np.zeros((1, components.weight.shape[1]))  # the mean of standardised components
        empty = sparse.csr_array((1, 1))
        return SuperpixelGraph(np.zeros(scene.shape, dtype=np.int64), features, empty, (alone,) * HOPS)
