"""Train ESSAformer.

    accelerate launch essaformer/train.py                                       the demo, half a minute on two cores
    accelerate launch essaformer/train.py --preset abu_x2 --data-root DIR --test-scene abu-airport-1
    accelerate launch essaformer/train.py --preset jasper_ridge_x2 --cube SCENE.hdr   your own scene, x2
    accelerate launch --num_processes 8 essaformer/train.py --preset chikusei_x4 --data-root DIR --batch-size 4

The last weights are exported to OUTPUT/model and tested; those with the best validation PSNR to
OUTPUT/model_best. OUTPUT/regions.json lists the pixels of training, validation and test. After an
interruption the same command continues exactly.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from common import launch
from common.config import build, from_command_line
from common.errors import UserError, command
from common.figures import comparison_sheet, curves
from common.files import write_json
from common.hyperspectral.regions import describe
from common.networks.cards import publish
from common.results import measured
from common.run import Run
from essaformer import scoring
from essaformer.checkpoints import load_model, save_scaling
from essaformer.data import EvaluationPictures, TrainingPatches
from essaformer.losses import sspsr_loss
from essaformer.model import SCALES, ESSAformer, create_model
from essaformer.pictures import captions, picture_row
from essaformer.presets import PRESETS, Config
from essaformer.scaling import Scaling
from essaformer.scenes import TITLES, load_regions
from essaformer.tiling import check_bands, enlarge_tiled, tile_for_memory

WARM_UP = 20
"""Updates in which the cosine schedule's learning rate rises linearly. Adam's first steps have full length; without the
rise they make a network that starts with bicubic's result 10 dB worse."""


@command
def main() -> None:
    """Configuration, data, network, loop, results."""
    config = from_command_line(PRESETS, __doc__)
    if config.scale not in SCALES:
        raise UserError(f"--scale {config.scale}: expected one of {', '.join(map(str, SCALES))}")
    scaling = Scaling(config.scaling, config.scaling_value)
    regions = load_regions(
        config.dataset, config.data_root, scaling, config.scale, test_scene=config.test_scene, cube=config.cube,
        band_axis=config.band_axis, no_data=config.no_data,
    )  # fmt: skip
    patches = training_patches(config, regions["train"])
    validation = EvaluationPictures(regions["validation"], config.scale)
    updates = config.iterations or updates_of(config.epochs, len(patches), config)
    run = Run(config, paper="essaformer", steps=updates)
    accelerator = run.accelerator
    if run.is_main:
        write_json(run.folder / "regions.json", describe(regions))
        for name in ("model", "model_best"):
            save_scaling(scaling, run.folder / name)

    model = build_model(config, patches.bands)
    model.set_grad_checkpointing(config.gradient_checkpointing)
    optimizer = Adam(model.parameters(), lr=config.learning_rate)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(config.schedule, step, updates))
    if config.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    run.restore(model=model, optimizer=optimizer, schedule=schedule)
    run.say(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(patches):,} patches of {config.crop} pixels "
        f"and {patches.bands} bands, x{config.scale}, "
        f"global batch {config.batch_size * config.gradient_accumulation * run.processes}, "
        f"{run.total - run.step:,} of {updates:,} updates to go, in {run.folder}"
    )
    for note in regions["train"][0].scene.notes:
        run.say(f"note: {note}")

    for batch in run.batches(patches):
        with accelerator.accumulate(model):
            enlarged = model(batch["low"])
            loss = sspsr_loss(enlarged, batch["high"], config.spatial_tv, config.spectral_tv)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, learning_rate=schedule.get_last_lr()[0])
        schedule.step()
        if run.due(config.validate_every):
            validate(run, weights_to_score(run, model), validation)

    final = weights_to_score(run, model)
    run.export(final)
    title = run_title(config, regions["test"][0].scene.name)
    scores = show_and_score(run, final, EvaluationPictures(regions["test"], config.scale), "test.png")
    if run.is_main:
        split = f"test {regions['test'][0].name}" if len(regions["test"]) == 1 else "test"
        found = scoring.rows(scores, title, config.scale, split, config.preset, [config.seed])
        publish(run.folder, measured(found, accelerator.device))
        curves(run.folder / "metrics.jsonl", run.folder / "figures" / "curves.png")
        print(scoring.comparison(scores, title, config.scale))
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")
    run.close()


def training_patches(config: Config, regions: list[Any]) -> TrainingPatches:
    """Return the training patches.

    Raises:
        UserError: crop, stride and scale do not fit together, or a region is too small.
    """
    try:
        return TrainingPatches(regions, config.crop, config.stride, config.scale, config.seed)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"--crop {config.crop} --stride {config.stride}: {error}") from None


def updates_of(epochs: int, patches: int, config: Config) -> int:
    """Return the optimiser updates in `epochs` passes over the patches, which all processes share."""
    processes = launch.processes()
    return math.ceil(epochs * patches / (config.batch_size * config.gradient_accumulation * processes))


def build_model(config: Config, bands: int) -> ESSAformer:
    """Build the network of the configuration, or load the one of --weights.

    Raises:
        UserError: sizes do not fit together, or the network of --weights differs from the flags.
    """
    chosen = {"dim": config.dim, "dropout": config.dropout, "global_residual": config.global_residual}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    if config.weights:
        model = load_model(config.weights)
        check_bands(model, bands, "the training scene")
        found = model.settings
        for name, wanted in {"scale": config.scale, "order": config.order, **overrides}.items():
            if found[name] != wanted:
                flag = name.replace("_", "-")
                raise UserError(f"{config.weights}: has {name} {found[name]} but --{flag} or the preset says {wanted}")
        return model
    keywords = {"bands": bands, "scale": config.scale, "order": config.order, **overrides}
    return build(create_model, config.model, config.network, **keywords)


def learning_rate_factor(schedule: str, step: int, updates: int) -> float:
    """Return the factor of the learning rate for update `step`, counted from 0."""
    if schedule == "cosine":
        warm_up = min((step + 1) / WARM_UP, 1)
        return warm_up * (0.5 + 0.5 * math.cos(math.pi * min(step / updates, 1)))
    return 0.1 if step >= 0.75 * updates else 1.0


def run_title(config: Config, scene: str) -> str:
    """The data set's name in results."""
    return scene if config.cube else TITLES[config.dataset]


def weights_to_score(run: Run[Config], model: nn.Module) -> ESSAformer:
    """Return a copy of the network in evaluation mode."""
    return deepcopy(run.accelerator.unwrap_model(model)).eval()


def validate(run: Run[Config], model: ESSAformer, pictures: EvaluationPictures) -> None:
    """Score the validation regions, keep the best weights, draw the first images."""
    scores = show_and_score(run, model, pictures, f"step_{run.step:08d}.png", protocols=("sspsr",))
    psnr, bicubic = (scoring.mean(scores, "PSNR (dB)", of) for of in ("network", "bicubic"))
    best = run.keep_if_best(psnr, model, "model_best")
    run.write(validation_psnr=psnr)
    run.say(
        f"step {run.step}: {psnr:.2f} dB on the validation regions, bicubic {bicubic:.2f} dB{', best' if best else ''}"
    )


def show_and_score(
    run: Run[Config], model: ESSAformer, pictures: EvaluationPictures, sheet: str, **options: Any
) -> list[scoring.PictureScore]:
    """Score whole regions and draw the first ones of the main process."""
    rows: list[list[Any]] = []
    below: list[list[str]] = []

    def enlarge(low: Tensor) -> Tensor:
        with run.accelerator.autocast():
            tile = tile_for_memory(model, 4 << 30, low.shape[1], low.shape[2])
            return enlarge_tiled(model, low, tile)

    def show(item: dict[str, Any], result: Tensor, score: scoring.PictureScore) -> None:
        if len(rows) < 4:
            rows.append(picture_row(item, result))
            below.append(captions(score))

    scores = scoring.score_pictures(
        pictures, enlarge, model.scale, rank=run.rank, processes=run.processes, show=show, **options
    )
    if run.is_main:
        titles = ["bicubic", "ESSAformer", "truth", "error of bicubic", "error of ESSAformer"]
        path = comparison_sheet(rows, titles, run.folder / "figures" / sheet, below)
        run.picture("enlarged", path)
    run.wait()
    return scores


if __name__ == "__main__":
    main()
