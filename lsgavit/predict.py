"""Classify every pixel of a scene.

    python lsgavit/predict.py --checkpoint runs/lsgavit_demo/seed_5/model --output maps     the scene it was trained on
    python lsgavit/predict.py --checkpoint DIR --input OTHER.tif --output maps              another scene, same sensor

Writes OUTPUT/classes.npy and classes.mat (H, W) in the codes of the training labels,
probabilities.npy (H, W, K) float32, map.png with legend, and classes.tif if the input has a georeference. Pixels
without data get code 0 and probabilities NaN. Another scene is transformed by the training scene's principal
components.

A GeoTIFF or ENVI scene (--input) that needs more than half of --memory is read and written by windows, in one or
several processes, into classes.tif and probabilities.tif, with the same classes and without a figure. This needs
fullpaper-common[raster]. After an interruption the same command continues.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io
import torch
from tqdm.auto import tqdm

from common import memory
from common.config import AnyNumber, BatchSize, parse
from common.environment import choose_device
from common.errors import command
from common.figures import save
from common.files import atomic_path, make_room
from common.hyperspectral.classification.drawing import sheet
from common.hyperspectral.classification.seeds import one_model, recorded_config
from common.hyperspectral.classification.transforms import SpectralTransform
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.labels import in_codes
from common.hyperspectral.layers import make_cog
from common.hyperspectral.raster import larger_than
from common.hyperspectral.scene import BandAxis, open_scene
from lsgavit.checkpoints import load_model
from lsgavit.data import COMPONENTS, find_scene, recorded_classes
from lsgavit.fast.prediction import predict_pixels
from lsgavit.large import classify_raster
from lsgavit.model import LSGAViT
from lsgavit.presets import Config
from lsgavit.windows import SceneWindows


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """One exported model folder of a run."""
    output: Path
    """Folder for maps and figures."""
    input: str | None = None
    """FILE[:KEY] of another cube with the same bands; by default the scene of the run."""
    band_axis: BandAxis | None = None
    """Axis of the cube's bands, first or last; for the run's scene by default as in the run."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data; by default as the cube's file declares. NaN always means no data."""
    data_root: Path | None = None
    """Folder that holds the run's scene, if it has moved."""
    batch_size: BatchSize[int] = 64
    """Windows per forward pass."""
    memory: str | None = None
    """Memory for the process, such as 800M or 4G; by default a quarter of the device's."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do if OUTPUT already holds a map: refuse, skip (do nothing), or replace it."""
    cog: bool = False
    """Write cloud-optimised GeoTIFFs with overviews."""


@command
def main() -> None:
    """Load, classify, write, draw."""
    options = parse(PredictConfig, __doc__)
    device = choose_device(options.device)
    budget = memory.budget(options.memory, device)
    large = options.input is not None and larger_than(budget, options.input, 8)
    by_windows = large or (options.output / "probabilities.tif").exists()  # now or in an earlier command
    target = options.output / ("classes.tif" if by_windows else "classes.npy")
    if not make_room(target, options.existing, windows=large):
        return
    folder = one_model(options.checkpoint, "no principal components")
    if options.input is not None and large:
        classify_raster(folder, options.input, options.output, options, batch_size=options.batch_size)
        return
    if options.input is not None:
        scene = open_scene(options.input, band_axis=options.band_axis, no_data=options.no_data)
    else:
        config = recorded_config(folder, Config)
        given = {name: getattr(options, name) for name in ("data_root", "band_axis", "no_data")}
        scene = find_scene(replace(config, **{name: value for name, value in given.items() if value is not None}))
    if scene.note:
        print(scene.note)
    components = SpectralTransform.load(folder / COMPONENTS)
    model = load_model(folder).to(device)
    names, codes = recorded_classes(folder, model.num_classes)

    windows = SceneWindows(components.apply(scene.cube), model.image_size).to(device)
    probabilities = classify(model, windows, options.batch_size)
    classes = np.where(scene.valid, probabilities.argmax(axis=2) + 1, 0)
    probabilities[~scene.valid] = np.nan
    coded = in_codes(classes, codes)
    with atomic_path(options.output / "probabilities.npy") as temporary:
        np.save(temporary, probabilities)
    with atomic_path(options.output / "classes.mat") as temporary:
        scipy.io.savemat(temporary, {"classes": coded}, do_compression=True)
    if scene.georeference is not None:
        write_geotiff(options.output / "classes.tif", coded, scene.georeference, no_data=0)
        if options.cog:
            make_cog(options.output / "classes.tif", classes=True)
    save(sheet(replace(scene, class_names=names), classes, title="LSGA-ViT"), options.output / "map.png")
    # Comes last, because --existing skip regards the map as finished if this file exists.
    with atomic_path(options.output / "classes.npy") as temporary:
        np.save(temporary, coded)
    found = classes[scene.valid]
    print(f"{found.size:,} pixels, {len(np.unique(found))} of {len(names)} classes; see {options.output}")


def classify(model: LSGAViT, windows: SceneWindows, batch_size: int) -> np.ndarray:
    """Return the class probabilities of every pixel, `(H, W, K)` float32."""
    result = torch.empty(len(windows), model.num_classes)
    seconds_between_lines = 0.5 if sys.stderr.isatty() else 20
    with tqdm(total=len(windows), unit="pixel", dynamic_ncols=True, mininterval=seconds_between_lines) as bar:
        for pixels, logits in predict_pixels(model, windows, batch_size=batch_size):
            result[pixels.cpu()] = logits.softmax(dim=1).float().cpu()
            bar.update(len(pixels))
    return result.view(*windows.shape, -1).numpy()


if __name__ == "__main__":
    main()
