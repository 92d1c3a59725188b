"""Score a network on whole test regions, beside bicubic interpolation and published values.

    python essaformer/evaluate.py --checkpoint runs/essaformer_demo/model             the test regions of the run
    python essaformer/evaluate.py --checkpoint runs/essaformer_abu_x2/model --data-root DIR
    python essaformer/evaluate.py --checkpoint RELEASED.pth --dataset chikusei --data-root DIR   the authors' file
    accelerate launch --num_processes 8 essaformer/evaluate.py ...                    images shared between GPUs

Prints and writes PSNR, SSIM, SAM, CC, RMSE and ERGAS under both protocols (sspsr and mcnet), images with
error maps, and spectra of a few pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch import Tensor

from common import config, launch, memory
from common.config import AnyNumber, Positive
from common.environment import choose_device
from common.errors import command
from common.figures import comparison_sheet
from common.hyperspectral.scene import BandAxis
from common.networks.weights import beside, locate
from common.results import measured, write_rows
from essaformer import scoring
from essaformer.checkpoints import load_model, load_scaling
from essaformer.data import EvaluationPictures
from essaformer.metrics import DEFINITIONS
from essaformer.pictures import captions, draw_spectra, picture_row
from essaformer.resize import imresize
from essaformer.scenes import TITLES, load_regions
from essaformer.tiling import check_bands, enlarge_tiled, tile_for_memory


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    data_root: Path | None = None
    """Folder that holds the data set; by default the run's."""
    dataset: str | None = None
    """chikusei, pavia_centre, cave, harvard, abu, jasper_ridge, pavia_crop, muufl or demo; by default the run's."""
    cube: str | None = None
    """FILE[:KEY] of your own scene; its lower 40 % is the test region."""
    band_axis: BandAxis | None = None
    """Axis of the scene's bands, first or last; by default as in the run."""
    no_data: AnyNumber[float] | None = None
    """Value of the scene's pixels without data; by default as in the run, or as the file declares."""
    test_scene: str | None = None
    """The scene of abu to test on; by default the run's."""
    memory: str | None = None
    """Memory for the network on one tile, such as 800M or 4G; by default a quarter of the device's. Larger images are
    processed in tiles, without seams."""
    tile: Positive[int] | None = None
    """Side of the tiles in input pixels; replaces --memory."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; with auto, each of several processes takes its own GPU."""
    output: Path | None = None
    """Folder for results.json and figures; by default evaluation beside the checkpoint."""


@command
def main() -> None:
    """Load, score, print, write."""
    options = config.parse(EvaluateConfig, __doc__)
    options = replace(options, checkpoint=locate(options.checkpoint))
    chosen = choose_device(options.device)
    budget = memory.budget(options.memory, chosen)
    accelerator = launch.accelerator()
    device = accelerator.device if options.device == "auto" else chosen
    model = load_model(options.checkpoint).float().to(device)
    trained = config.recorded(options.checkpoint)
    dataset = options.dataset or trained.get("dataset", "demo")
    cube = options.cube or (None if options.dataset else trained.get("cube"))
    recorded = trained if cube and options.cube is None else {}  # flags of the run for its own scene
    root = options.data_root or (Path(trained["data_root"]) if trained.get("data_root") else None)
    test_scene = options.test_scene or trained.get("test_scene")
    scaling = load_scaling(options.checkpoint)
    regions = load_regions(
        dataset, root, scaling, model.scale, test_scene=test_scene, cube=cube,
        band_axis=options.band_axis or recorded.get("band_axis"),
        no_data=recorded.get("no_data") if options.no_data is None else options.no_data,
    )["test"]  # fmt: skip
    if regions[0].scene.note and accelerator.is_main_process:
        print(regions[0].scene.note)
    check_bands(model, regions[0].scene.bands, regions[0].scene.source)
    items = EvaluationPictures(regions, model.scale)
    title = regions[0].scene.name if cube else TITLES[dataset]
    output = options.output or beside(options.checkpoint) / "evaluation"
    rows: list[list[np.ndarray]] = []
    below: list[list[str]] = []

    tiles: list[int] = []  # sides of tiles, for images that were too large for --memory

    def enlarge(low: Tensor) -> Tensor:
        tile = options.tile or tile_for_memory(model, budget, low.shape[1], low.shape[2])
        if tile < max(low.shape[1:]):
            tiles.append(tile)
        return enlarge_tiled(model, low, tile)

    def show(item: dict[str, Any], result: Tensor, score: scoring.PictureScore) -> None:
        if len(rows) >= 4:
            return
        if not rows and accelerator.is_main_process:
            truth = item["high"].permute(1, 2, 0).numpy()
            bicubic = imresize(item["low"], size=(truth.shape[0], truth.shape[1])).permute(1, 2, 0).numpy()
            drawn = {"bicubic": bicubic, "ESSAformer": result.permute(1, 2, 0).numpy()}
            draw_spectra(output / "spectra.png", item["region"].scene, drawn, truth=truth)
        rows.append(picture_row(item, result))
        below.append(captions(score))

    rank, processes = accelerator.process_index, accelerator.num_processes
    scores = scoring.score_pictures(items, enlarge, model.scale, rank=rank, processes=processes, show=show)
    tiles = gather_object(tiles)
    if accelerator.is_main_process:
        split = f"test {regions[0].name}" if len(regions) == 1 else "test"
        split += f" in tiles of {min(tiles)}" if tiles else ""
        seeds = [trained["seed"]] if "seed" in trained else []
        found = measured(scoring.rows(scores, title, model.scale, split, trained["preset"], seeds), device)
        write_rows(output / "results.json", found)
        titles = ["bicubic", "ESSAformer", "truth", "error of bicubic", "error of ESSAformer"]
        comparison_sheet(rows, titles, output / "pictures.png", below)
        print(scoring.comparison(scores, title, model.scale))
        print("\n".join(f"{metric}: {text}" for metric, text in DEFINITIONS["sspsr"].items()))
        print(f"rows: {output / 'results.json'}; figures: {output}")


if __name__ == "__main__":
    main()
