"""Score a network on whole test scenes, beside the noisy input, methods without training and published values.

    python hcanet/evaluate.py --checkpoint runs/hcanet_demo                           the test regions of the run
    python hcanet/evaluate.py --checkpoint runs/abu_0 runs/abu_1 runs/abu_2 --data-root DIR     mean over three seeds
    python hcanet/evaluate.py --checkpoint FILE.pth --dataset icvl --data-root DIR --cases case1 case5
    accelerate launch --num_processes 8 hcanet/evaluate.py ...                        scenes shared between GPUs

Prints and writes PSNR, SSIM and SAM in both families of definitions, the median-band PSNR, images with error maps, and
spectra of a few pixels. All networks get the same noise: it follows from --noise-seed and the scene's name, or, if the
network was trained with --test-noise plain (as the abu presets are), from --noise-seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from common import config, launch, memory
from common.config import AnyNumber, Positive, Seed
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import comparison_sheet
from common.hyperspectral.display import shown_bands
from common.hyperspectral.scene import BandAxis
from common.networks.weights import beside, locate
from common.results import markdown, measured, write_rows
from hcanet import scoring
from hcanet.checkpoints import Preparation, load_model, load_preparation
from hcanet.denoising import denoise_scene, released_mix, tile_for_memory
from hcanet.metrics import DEFINITIONS
from hcanet.model import HCANet
from hcanet.noise import Noisy
from hcanet.pictures import colours, difference, draw_spectra, stretch
from hcanet.published import published_lines
from hcanet.scenes import TITLES, IcvlPreparation, Region, icvl_names, icvl_test_region, load_regions, require_root

METHODS = {"variation": scoring.VARIATION, "subspace": scoring.SUBSPACE, "outliers": scoring.OUTLIERS}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Flags of this script."""

    checkpoint: tuple[Path, ...]
    """A run's folder, its model folder, or a file in the published form; several for the mean over seeds."""
    data_root: Path | None = None
    """Folder that holds the data set; by default the run's."""
    dataset: str | None = None
    """icvl, pavia, abu, jasper_ridge or demo; by default the run's."""
    cube: str | None = None
    """FILE[:KEY] of your own clean scene; its lower 40 % is the test region."""
    band_axis: BandAxis | None = None
    """Axis of the bands of --cube: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data in --cube; by default as its file declares."""
    preparation: IcvlPreparation | None = None
    """How ICVL's test scenes are cut: mafnet or qrnn3d; by default the run's."""
    cases: tuple[str, ...] = ()
    """gaussian, blind, case1 to case5 or complex; by default the cases of the run's test."""
    sigma: float | None = None
    """Noise level of gaussian on the scale of 0 to 255; by default the run's, else 50."""
    framework: str | None = None
    """Source of the noise parameters: mafnet, qrnn3d or sert; by default the run's."""
    noise_seed: Seed[int] | None = None
    """Seed of the noise; by default the run's."""
    test_noise: Literal["scene", "plain"] | None = None
    """The noise depends on the seed and the scene's name, or on the seed alone; by default as in the run."""
    methods: tuple[Literal["variation", "subspace", "outliers"], ...] = ("variation", "subspace")
    """Methods to compare: total variation per band, SVD with non-local means, the latter after removal of outliers."""
    tile: Positive[int] | None = None
    """Side of the tiles in pixels; by default the training size with local_mix released, else as --memory allows."""
    whole: bool = False
    """Process each scene at once, without tiles."""
    memory: str | None = None
    """Memory for a forward pass, such as 800M or 4G; by default a quarter of the device's."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto uses a GPU if there is one."""
    output: Path | None = None
    """Folder for results.json and figures; by default evaluation beside the first checkpoint."""


@command
def main() -> None:
    """Load, score, print, write."""
    options = config.parse(EvaluateConfig, __doc__)
    checkpoints = [locate(checkpoint) for checkpoint in options.checkpoint]
    if not checkpoints:
        raise UserError("--checkpoint needs at least one folder or file")
    if len({checkpoint.resolve() for checkpoint in checkpoints}) < len(checkpoints):
        raise UserError("--checkpoint names a model twice, which would count twice in the mean; name each once")
    accelerator = launch.accelerator()
    device = accelerator.device if options.device == "auto" else choose_device(options.device)
    budget = memory.budget(options.memory, device)
    models = [load_model(checkpoint) for checkpoint in checkpoints]  # refuses those of another project
    trained = config.recorded(checkpoints[0])
    regions, title = test_regions(options, trained, checkpoints[0])
    cases = scoring.cases_to_test(
        trained.get("order", ("gaussian",)), options.cases or tuple(trained.get("test_cases", ()))
    )
    noise = scoring.SceneNoise(
        options.framework or trained.get("framework", "mafnet"),
        trained.get("sigma", 50.0) if options.sigma is None else options.sigma,
        trained.get("noise_seed", 0) if options.noise_seed is None else options.noise_seed,
        options.test_noise or trained.get("test_noise", "scene"),
    )
    output = options.output or beside(checkpoints[0]) / "evaluation"
    drawn = Drawing(output)
    runs, seeds, said = [], [], ""
    for number, (checkpoint, loaded) in enumerate(zip(checkpoints, models, strict=True)):
        model = loaded.float().to(device)
        preparation = load_preparation(checkpoint)
        tile = tile_of(model, options, preparation.tile)
        said = f"{model.bands} eigen-images, " if preparation.eigen_images else f"groups of {model.bands} bands, "
        said += "whole scenes" if tile is None else f"tiles of {tile}"
        runs.append(
            scoring.score_scenes(
                regions, restorer(model, preparation, tile, budget, quiet=not accelerator.is_main_process),
                cases, noise,
                others=[METHODS[name] for name in options.methods] if number == 0 else (),
                rank=accelerator.process_index, processes=accelerator.num_processes,
                show=drawn.show if number == 0 else None,
            )
        )  # fmt: skip
        seeds += [config.recorded(checkpoint)["seed"]] if "seed" in config.recorded(checkpoint) else []
    if accelerator.is_main_process:
        name = f"test {regions[0].name}" if len(regions) == 1 else "test"
        found = scoring.rows(runs, title, f"{name}, network in {said}", trained["preset"], seeds)
        write_rows(output / "results.json", measured(found, device))
        drawn.save()
        print(scoring.comparison(runs[0]))
        if len(runs) > 1:
            for row in found:
                if row.std is not None:
                    print(f"{row.dataset}: {row.metric} {row.value:.4f} ± {row.std:.4f} over {len(runs)} seeds")
        if title == TITLES["icvl"]:
            lines = [[kind, *line] for kind in map(noise.title, cases) for line in published_lines(kind)]
            if lines:
                print(markdown(["noise", "published by", "method", "PSNR (dB)", "SSIM", "SAM"], lines))
        print(f"network in {said}")
        print("\n".join(f"{metric}: {text}" for metric, text in DEFINITIONS.items()))
        print(f"rows: {output / 'results.json'}; figures: {output}")


def test_regions(options: EvaluateConfig, trained: dict[str, Any], checkpoint: Path) -> tuple[list[Region], str]:
    """Return the test scenes and the data set's name."""
    cube = options.cube or (None if options.dataset else trained.get("cube"))
    dataset = options.dataset or trained.get("dataset", "demo")
    root = options.data_root or (Path(trained["data_root"]) if trained.get("data_root") else None)
    if dataset == "icvl" and cube is None:
        root = require_root("icvl", root)
        cases = options.cases or tuple(trained.get("test_cases", ())) or tuple(trained.get("order", ("gaussian",)))[-1:]
        complex_noise = any(case not in ("gaussian", "blind") for case in cases)
        prepared: Any = options.preparation or trained.get("preparation", "mafnet")
        names = icvl_names("test_complex" if complex_noise else "test_gauss")
        regions = [icvl_test_region(root, name, prepared, complex_noise=complex_noise) for name in tqdm(names)]
        return regions, TITLES["icvl"]
    recorded = trained if cube and options.cube is None else {}  # flags of the run for its own scene
    regions = load_regions(
        dataset, root, load_preparation(checkpoint).scaling, cube=cube,
        band_axis=options.band_axis or recorded.get("band_axis"),
        no_data=recorded.get("no_data") if options.no_data is None else options.no_data,
    )["test"]  # fmt: skip
    return regions, regions[0].scene.name if cube else TITLES[dataset]


def tile_of(model: HCANet, options: EvaluateConfig, trained: int) -> int | None:
    """Return the side of the tiles, or None for whole scenes."""
    if options.whole:
        return None
    return options.tile or (trained if released_mix(model) else None)


def restorer(model: HCANet, preparation: Preparation, tile: int | None, budget: int, *, quiet: bool) -> Any:
    """Return a function that denoises one scene in `budget` bytes."""

    def restore(image: Tensor) -> Tensor:
        limit = tile_for_memory(model, budget, *image.shape[1:])
        side = tile or limit
        with tqdm(unit="px", unit_scale=True, leave=False, disable=quiet) as bar:
            batch = max(1, limit**2 // side**2)
            return denoise_scene(model, image, preparation, side, batch=batch, progress=bar.update)

    return restore


class Drawing:
    """The images of the first scenes.

    Args:
        folder: for `pictures.png` and `spectra.png`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[list[np.ndarray]] = []
        self.below: list[list[str]] = []

    def show(self, region: Region, noisy: Noisy, clean: np.ndarray, restored: np.ndarray, score: Any) -> None:
        """Store the images of a scene; draw the spectra of the first scene."""
        if len(self.rows) >= 4:
            return
        if not self.rows:
            images = {"noisy": noisy.image, "HCANet": restored, "clean": clean}
            draw_spectra(self.folder / "spectra.png", region.scene, images)
        bands = shown_bands(region.scene)
        limits = stretch(clean, bands)
        row = [colours(image, bands, limits) for image in (noisy.image, restored, clean)]
        self.rows.append([*row, difference(restored, clean)])
        captions = [scoring.caption(score.values[method]) for method in (scoring.NOISY, scoring.NETWORK)]
        self.below.append([f"{score.noise}: {captions[0]}", captions[1], region.name, "white: 0.1"])

    def save(self) -> None:
        """Write the before/after sheet."""
        if self.rows:
            titles = ["noisy", "HCANet", "clean", "error of HCANet"]
            comparison_sheet(self.rows, titles, self.folder / "pictures.png", self.below)


if __name__ == "__main__":
    main()
