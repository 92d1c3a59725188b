"""Score a network on whole images and print the published scores beside the measured ones.

    python fftformer/evaluate.py --checkpoint runs/fftformer_demo/model              the demo's held-out photographs
    python fftformer/evaluate.py --checkpoint runs/fftformer_gopro_released/model --data-root GOPRO
    python fftformer/evaluate.py --checkpoint fftformer_GoPro.pth --data-root GOPRO  the authors' released file
    accelerate launch --num_processes 8 fftformer/evaluate.py ...                    several GPUs share the images

Prints and writes the mean PSNR and both SSIMs of images that are clipped and rounded to 8 bits. RealBlur's images are
aligned as its authors do it; Levin's are shifted by whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor

from common import config, launch, memory
from common.config import Positive
from common.errors import command
from common.files import atomic_path
from common.networks.weights import beside, locate
from common.photographs.images import printable
from common.results import measured, table, write_rows
from fftformer import scoring
from fftformer.checkpoints import load_model
from fftformer.data import EvaluationPairs
from fftformer.layouts import find_layout, find_pairs
from fftformer.metrics import quantise
from fftformer.shake import held_out_photographs
from fftformer.tiling import restore_tiled, tile_for_memory


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, owner/name on the Hugging Face hub, or a name
    that docs/weights.md marks as fetched by name."""
    data_root: Path | None = None
    """Folder of the data set in its published layout; by default the demo's held-out photographs are scored."""
    layout: str = "auto"
    """Layout of --data-root: auto, gopro, hide, realblur_j, realblur_r, input_target, pairs or levin."""
    split: str = "test"
    """Which split to score."""
    pictures: Positive[int] | None = None
    """Score only this number of images, evenly spread; the rows state the number."""
    memory: str | None = None
    """Memory for the network and one image, for example 4G; by default a quarter of the device's memory. Images that
    need more are processed in tiles without seams."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto uses a GPU if there is one."""
    save_pictures: bool = False
    """Also write every blurred and restored image to the output folder, as 8-bit PNG."""
    output: Path | None = None
    """Folder for results.json and pictures.csv; by default evaluation_<data set> beside the checkpoint."""


@command
def main() -> None:
    """Load the network, score the images, print and write the scores."""
    options = config.parse(EvaluateConfig, __doc__)
    accelerator, device = launch.on_device(options.device, patience=timedelta(days=30))
    options = replace(options, checkpoint=locate(options.checkpoint))
    budget = memory.budget(options.memory, device)
    model = load_model(options.checkpoint).to(device)
    if options.data_root is None:
        layout, items = "demo", held_out_photographs()
    else:
        layout = find_layout(options.data_root, options.split) if options.layout == "auto" else options.layout
        pairs = find_pairs(options.data_root, options.split, layout)
        items = EvaluationPairs(pairs[:: -(-len(pairs) // (options.pictures or len(pairs)))])
    dataset = scoring.DATASETS.get(layout, printable(options.data_root.name) if options.data_root else layout)

    tiles: list[tuple[int, int]] = []  # of the images that did not fit into the memory as a whole

    def restore(blurred: Tensor) -> Tensor:
        tile = tile_for_memory(model, budget, *blurred.shape[1:])
        if tile[0] < blurred.shape[1] or tile[1] < blurred.shape[2]:
            tiles.append(tile)
        return restore_tiled(model, blurred, tile, device=device)

    output = options.output or beside(options.checkpoint) / f"evaluation_{dataset.replace(' ', '_')}"

    def save(item: dict[str, Any], restored: Tensor, _: scoring.PictureScore) -> None:
        for folder, image in (("blurred", item["blurred"]), ("restored", restored)):
            pixels = (quantise(image) * 255).byte().permute(1, 2, 0).numpy()
            with atomic_path(output / folder / f"{item['name']}.png") as temporary:
                Image.fromarray(pixels).save(temporary)

    with torch.inference_mode():
        rank, processes = accelerator.process_index, accelerator.num_processes
        show = save if options.save_pictures else None
        scores = scoring.score_pictures(items, restore, layout, rank=rank, processes=processes, show=show)
    tiles = gather_object(tiles)
    if accelerator.is_main_process:
        trained = config.recorded(options.checkpoint)
        seeds = [trained["seed"]] if "seed" in trained else []
        named = scores, layout, dataset, options.split
        tile = min(tiles, default=None)
        found = scoring.rows(*named, trained["preset"], seeds, tile=tile)
        baseline = scoring.rows(*named, "blurred input", seeds, of="blurred", tile=tile)
        rows = measured(found, device)
        write_rows(output / "results.json", rows + measured(baseline, device))
        scoring.write_csv(output / "pictures.csv", scores)
        for score in scores if len(scores) <= 40 else ():
            print(
                f"{printable(score.name)}: "
                + ", ".join(f"{k} {score.blurred[k]:.4g} -> {v:.4g}" for k, v in score.restored.items())
            )
        print(table(rows, {"blurred input": [f"{scoring.mean(scores, row.metric, 'blurred'):.4f}" for row in rows]}))
        print("\n".join(f"{row.metric}: {row.definition}" for row in rows))
        print(f"rows: {output / 'results.json'}; every image: {output / 'pictures.csv'}")


if __name__ == "__main__":
    main()
