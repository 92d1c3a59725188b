"""Train HCANet.

    accelerate launch hcanet/train.py                                        the demo, on a synthetic scene
    accelerate launch hcanet/train.py --preset abu --data-root DIR           four small scenes, tested on a fifth
    accelerate launch hcanet/train.py --preset scene --cube SCENE.hdr        your own clean scene
    accelerate launch --num_processes 8 hcanet/train.py --preset qrnn3d --data-root DIR   ICVL

Stages (for example blind noise, then complex noise) follow each other in one command. The last weights are exported
to OUTPUT/model and tested, those with the best validation PSNR to OUTPUT/model_best. OUTPUT/regions.json lists the
pixels of training, validation and test. After an interruption the same command continues exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from common import launch
from common.config import build, from_command_line
from common.errors import UserError, command
from common.figures import comparison_sheet, curves
from common.files import write_json
from common.hyperspectral.display import shown_bands
from common.memory import parse_size
from common.networks.cards import publish
from common.results import measured
from common.run import Run
from hcanet import scoring
from hcanet.checkpoints import Preparation, load_model, save_preparation
from hcanet.data import Stage
from hcanet.denoising import denoise_scene, released_mix, tile_for_memory
from hcanet.eigen import OUTLIERS
from hcanet.losses import objective
from hcanet.model import HCANet, create_model, narrow
from hcanet.noise import Noisy, check
from hcanet.pictures import colours, difference, stretch
from hcanet.presets import PRESETS, Config
from hcanet.scenes import TITLES, Region
from hcanet.schedule import factor, stage_starts
from hcanet.training_data import load_data, training_patches


@command
def main() -> None:
    """Configuration, data, network, loop, results."""
    config = from_command_line(PRESETS, __doc__)
    check_stages(config)
    sources, regions = load_data(config)
    per_update = config.batch_size * config.gradient_accumulation * launch.processes()
    windows = training_patches(config, sources, [Stage(0, config.order[0], config.crop)], per_update)
    updates = config.iterations or math.ceil(sum(config.epochs) * len(windows) / per_update)
    starts = stage_starts(config.epochs, updates)
    crops = config.crops or (config.crop,) * len(config.order)
    stages = [Stage(start, case, crop) for start, case, crop in zip(starts, config.order, crops, strict=True)]
    patches = training_patches(config, sources, stages, per_update)
    run = Run(config, paper="hcanet", steps=updates)
    accelerator = run.accelerator
    if run.is_main:
        write_json(run.folder / "regions.json", regions["describe"])
        for name in ("model", "model_best"):
            save_preparation(preparation(config), run.folder / name)

    model = build_model(config)
    if model.dim < model.bands:
        run.say(f"warning: {narrow(model.bands, model.dim)}")
    optimizer = Adam(model.parameters(), lr=config.learning_rate)
    schedule = LambdaLR(
        optimizer, lambda step: factor(config.schedule, step, updates, config.epochs, restart=config.restart)
    )
    if config.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    run.restore(model=model, optimizer=optimizer, schedule=schedule)
    seen = f"{config.eigen_images} eigen-images" if config.eigen_images else f"{config.bands} bands"
    run.say(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(patches):,} patches of {config.crop} pixels "
        f"and {seen}, {' then '.join(config.order)} from updates {', '.join(map(str, starts))}, "
        f"{per_update} patches per update, {run.total - run.step:,} of {updates:,} updates to go, in {run.folder}"
    )

    for batch in run.batches(patches):
        with accelerator.accumulate(model):
            denoised = model(batch["noisy"].flatten(0, 1))
            loss = objective(
                denoised, batch["clean"].flatten(0, 1), loss=config.loss, gradient_weight=config.gradient_weight,
                gradient_form=config.gradient_form, gradient_reduction=config.gradient_reduction,
            )  # fmt: skip
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, learning_rate=schedule.get_last_lr()[0])
        schedule.step()
        if run.due(config.validate_every):
            validate(run, model, regions["validation"], patches.stage(run.step - 1).case)

    run.export(model)
    test(run, model, regions["test"])
    run.close()


def check_stages(config: Config) -> None:
    """Refuse stages whose flags do not fit together.

    Raises:
        UserError: numbers of values differ, a crop is too small or no divisor, or a kind of noise is unknown.
    """
    if not config.order or len(config.epochs) != len(config.order):
        raise UserError(
            f"--order has {len(config.order)} stages but --epochs {len(config.epochs)} numbers; give as many of each"
        )
    if config.crops and (len(config.crops) != len(config.order) or any(config.crop % crop for crop in config.crops)):
        raise UserError(
            f"--crops {' '.join(map(str, config.crops))}: expected a divisor of --crop {config.crop} for each stage"
        )
    if config.eigen_images and config.crops:
        raise UserError("--crops cannot be combined with --eigen-images; give one --crop")
    for case in (*config.order, *config.test_cases):
        check("case1" if case == "complex" else case, config.framework, config.sigma)
    if min(config.crops or (config.crop,)) < 8:
        raise UserError(f"--crop {config.crop}: patches need at least 8 pixels")


def preparation(config: Config) -> Preparation:
    """Return what the model folder stores besides the weights."""
    tile = (config.crops or (config.crop,))[-1]
    return Preparation(config.scaling, tile, config.eigen_images, bool(OUTLIERS & set(config.order)))


def build_model(config: Config) -> HCANet:
    """Build the network of the configuration, or load the one of --weights.

    Raises:
        UserError: sizes do not fit together, or --weights has another number of bands.
    """
    bands = config.eigen_images or config.bands
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the run prints this warning itself, once and on one line
        if config.weights:
            model = load_model(config.weights)
            if model.bands != bands:
                raise UserError(f"{config.weights}: has {model.bands} bands, this training needs {bands}")
        else:
            overrides = {} if config.dim is None else {"dim": config.dim}
            keywords = {"bands": bands, "local_mix": config.local_mix, **overrides}
            model = build(create_model, config.model, config.network, **keywords)
    return model


def validate(run: Run[Config], model: Any, regions: Sequence[Region], case: str) -> None:
    """Score the validation regions with the stage's noise, keep the best weights, draw the first regions."""
    scores = score_and_draw(run, model, regions, scoring.cases_to_test((case,)), f"step_{run.step:08d}.png")
    psnr, noisy = (scoring.mean(scores, method, "PSNR (dB)") for method in (scoring.NETWORK, scoring.NOISY))
    with run.scoring(model) as network:
        best = run.keep_if_best(psnr, network, "model_best")
    run.write(validation_psnr=psnr)
    run.say(f"step {run.step}: {psnr:.2f} dB on the validation regions, noisy {noisy:.2f} dB{', best' if best else ''}")


def test(run: Run[Config], model: Any, regions: Sequence[Region]) -> None:
    """Score the test regions; write rows and figures."""
    config = run.config
    cases = scoring.cases_to_test(config.order, config.test_cases)
    scores = score_and_draw(run, model, regions, cases, "test.png", others=(scoring.SUBSPACE,))
    if run.is_main:
        found = scoring.rows([scores], title(config, regions), "test", config.preset, [config.seed])
        publish(run.folder, measured(found, run.accelerator.device))
        curves(run.folder / "metrics.jsonl", run.folder / "figures" / "curves.png")
        print(scoring.comparison(scores))
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")


def title(config: Config, regions: Sequence[Region]) -> str:
    """The data set's name in results."""
    return regions[0].scene.name if config.cube else TITLES[config.dataset]


def score_and_draw(
    run: Run[Config],
    model: Any,
    regions: Sequence[Region],
    cases: Sequence[str],
    sheet: str,
    *,
    others: Sequence[str] = (),
) -> list[scoring.SceneScore]:
    """Score whole regions; the main process draws the first of its regions."""
    config = run.config
    panels: list[list[np.ndarray]] = []
    below: list[list[str]] = []
    prepared = preparation(config)
    noise = scoring.SceneNoise(config.framework, config.sigma, config.noise_seed, config.test_noise)

    def show(region: Region, noisy: Noisy, clean: np.ndarray, restored: np.ndarray, score: scoring.SceneScore) -> None:
        if len(panels) < 4:
            bands = shown_bands(region.scene)
            limits = stretch(clean, bands)
            panels.append([colours(image, bands, limits) for image in (noisy.image, restored, clean)])
            panels[-1].append(difference(restored, clean))
            captions = [scoring.caption(score.values[method]) for method in (scoring.NOISY, scoring.NETWORK)]
            below.append([f"{score.noise}: {captions[0]}", captions[1], region.name, "white: 0.1"])

    with run.scoring(model) as network:

        def restore(image: Tensor) -> Tensor:
            with run.accelerator.autocast():
                tile = prepared.tile if released_mix(network) else None
                limit = tile_for_memory(network, parse_size("4G"), *image.shape[1:])
                batch = max(1, limit**2 // (tile or limit) ** 2)
                return denoise_scene(network, image, prepared, tile or limit, batch=batch)

        scores = scoring.score_scenes(
            regions, restore, cases, noise, others=others, rank=run.rank, processes=run.processes, show=show
        )
    if run.is_main:
        path = comparison_sheet(
            panels, ["noisy", "HCANet", "clean", "error of HCANet"], run.folder / "figures" / sheet, below
        )
        run.picture("denoised", path)
    run.wait()
    return scores


if __name__ == "__main__":
    main()
