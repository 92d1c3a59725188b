"""Classify every pixel of a scene.

    python amgcfn/predict.py --checkpoint runs/amgcfn_demo/seed_1330/model --output maps     the scene of the run
    python amgcfn/predict.py --checkpoint DIR --input OTHER.mat:KEY --output maps --memory 2G another scene

Writes OUTPUT/classes.npy (H, W) in the codes of the training labels, probabilities.npy (H, W, K) float32 in
the order of the codes, classes.tif if the input has a georeference, and the images map.png, confidence.png and
graph.png. Pixels without data get class 0 and probabilities NaN. For the training scene the superpixel graph is
read from the model folder; another scene gets a new graph, with the principal components of the training pixels.

A GeoTIFF or ENVI scene (--input) that needs more than half of --memory is read and written in overlapping windows
(this needs fullpaper-common[raster]), each with its own superpixel graph, so classes differ from those of one graph
of the whole scene and depend on the size of the windows, that is on --memory. The output is classes.tif and
probabilities.tif, without images. Several processes can share the work; after an interruption the same command
continues.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from amgcfn.checkpoints import load_model
from amgcfn.data import find_scene, load_graph
from amgcfn.large import classify_raster
from amgcfn.pictures import draw_confidence, draw_graph
from amgcfn.presets import Config
from amgcfn.strips import HALO, classify_scene, rows_for_memory
from common import memory
from common.config import AnyNumber, Positive, parse
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import save
from common.files import atomic_path, make_room
from common.hyperspectral.classification.drawing import composite, sheet
from common.hyperspectral.classification.seeds import one_model, recorded_config
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.labels import in_codes
from common.hyperspectral.layers import make_cog
from common.hyperspectral.raster import larger_than
from common.hyperspectral.scene import BandAxis, open_scene
from common.networks.weights import finite


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
    memory: str | None = None
    """Memory such as 800M or 4G; by default a quarter of the device's. For feature maps, which are computed in strips
    if they are larger, with the same result; for the whole process if a scene is read by windows."""
    rows: Positive[int] | None = None
    """Rows of a strip; replaces --memory."""
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
    large = options.input is not None and larger_than(budget, options.input, 6)
    by_windows = large or (options.output / "probabilities.tif").exists()  # now or in an earlier command
    target = options.output / ("classes.tif" if by_windows else "classes.npy")
    if not make_room(target, options.existing, windows=large):
        return
    folder = one_model(options.checkpoint, "no graph and no components")
    config = recorded_config(folder, Config)
    if options.input is not None and large:
        classify_raster(folder, options.input, options.output, config, options, rows=options.rows)
        return
    if options.input is not None:
        scene = open_scene(options.input, band_axis=options.band_axis, no_data=options.no_data)
    else:
        given = {name: getattr(options, name) for name in ("data_root", "band_axis", "no_data")}
        scene = find_scene(replace(config, **{name: value for name, value in given.items() if value is not None}))
    model = load_model(folder).float().to(device)
    if model.bands != scene.bands:
        raise UserError(f"{scene.source}: has {scene.bands} bands, but the model needs {model.bands}")
    _, graph, names, codes = load_graph(folder, scene)
    scene = replace(scene, class_names=names)

    for note in scene.notes:
        print(f"note: {note}")
    rows = options.rows or rows_for_memory(model, scene.shape[1], budget)
    strips = -(-scene.shape[0] // rows)
    if strips > 1:
        print(f"{strips} strips of {rows} rows with {HALO} rows around")
    logits = classify_scene(model, scene.cube, graph, rows=rows, extent=scene.extent)[0]
    finite(logits[scene.valid.reshape(-1)])
    probabilities = logits.softmax(dim=1).numpy().reshape(*scene.shape, -1)
    found = np.where(scene.valid, probabilities.argmax(axis=2) + 1, 0)
    probabilities[~scene.valid] = np.nan
    classes = in_codes(found, codes)
    for name, array in (("classes", classes), ("probabilities", probabilities)):
        with atomic_path(options.output / f"{name}.npy") as temporary:
            np.save(temporary, array)
    if scene.georeference is not None:
        write_geotiff(options.output / "classes.tif", classes, scene.georeference, no_data=0)
        if options.cog:
            make_cog(options.output / "classes.tif", classes=True)
    save(sheet(scene, found), options.output / "map.png")
    draw_confidence(probabilities, options.output / "confidence.png")
    draw_graph(composite(scene), graph, options.output / "graph.png", title=scene.name)
    classified = classes[scene.valid]
    print(
        f"{classified.size:,} pixels, {len(np.unique(classified))} of {model.num_classes} classes; see {options.output}"
    )


if __name__ == "__main__":
    main()
