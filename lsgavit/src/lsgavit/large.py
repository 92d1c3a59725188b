"""Scenes larger than memory: read, classified and written window by window, with the result of the whole scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.hyperspectral.classification.transforms import SpectralTransform
from common.hyperspectral.labels import in_codes
from common.hyperspectral.layers import class_layers
from common.hyperspectral.raster import Box
from common.hyperspectral.scene import Scene
from common.hyperspectral.streaming import Stream, halo, window_side
from lsgavit.checkpoints import load_model
from lsgavit.data import COMPONENTS, recorded_classes
from lsgavit.fast.prediction import predict_pixels
from lsgavit.windows import SceneWindows

BYTES_OF_ROWS = 16 * 40_000
"""Bytes per column for the tokens of a strip of 16 rows and the maps from which they are computed."""


def classify_raster(folder: Path, input_: str, output: Path, flags: Any, *, batch_size: int) -> None:
    """Classify a GeoTIFF or ENVI scene of any size into OUTPUT/classes.tif and OUTPUT/probabilities.tif.

    Args:
        folder: the model folder, with components and classes.
        flags: see `Stream`.

    Raises:
        UserError: the scene has another number of bands, the memory is too small, or windows or output belong to
            another command.
    """
    model, components = load_model(folder), SpectralTransform.load(folder / COMPONENTS)
    names, codes = recorded_classes(folder, model.num_classes)
    layers = class_layers(output, codes, names)
    stream = Stream(input_, layers[-1].path, model, flags)
    source, around = stream.source, max(model.image_size)
    if source.bands != len(components.offset):
        raise UserError(f"{input_}: has {source.bands} bands, but the model needs {len(components.offset)}")

    def needed(side: int) -> float:
        read = side + 2 * around
        pixel = source.bands * 2 * source.dtype.itemsize + 12 * components.weight.shape[1] + 8 * model.num_classes
        return read**2 * pixel + read * BYTES_OF_ROWS

    side = window_side(stream.left, needed)
    if not stream.begin(windows=side, batch_size=batch_size, codes=codes, components=components.weight.tolist()):
        return

    def compute(scene: Scene, box: Box, inner: Box) -> Sequence[np.ndarray]:
        windows = SceneWindows(components.apply(scene.cube), model.image_size).to(stream.device)
        valid = scene.valid[inner]
        pixels = np.arange(scene.valid.size).reshape(scene.shape)[inner][valid]
        batches = predict_pixels(model, windows, pixels, batch_size=batch_size)
        probabilities = np.zeros((*valid.shape, model.num_classes), dtype=np.float32)
        probabilities[valid] = torch.cat([logits.softmax(dim=1).float().cpu() for _, logits in batches])
        return [probabilities, in_codes(probabilities.argmax(axis=2) + 1, codes)[..., None]]

    stream.run(layers, compute, halo(around), side)
