"""Train FFTformer.

    accelerate launch fftformer/train.py                                        the demo, two minutes on two cores
    accelerate launch fftformer/train.py --preset gopro_released --data-root DIR
    accelerate launch --num_machines 2 ... fftformer/train.py --preset gopro_paper --data-root DIR

The last weights are exported to OUTPUT/model; the published protocol scores these. With --validation held_out the
weights with the best PSNR on the held-out pairs are exported to OUTPUT/model_best. OUTPUT/splits.json lists the
training and validation pairs. After an interruption the same command continues exactly.
"""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.config import build, from_command_line
from common.errors import UserError, command
from common.figures import comparison_sheet, curves
from common.files import write_json
from common.networks.cards import publish
from common.photographs.images import printable
from common.results import measured, table
from common.run import Run
from fftformer import scoring
from fftformer.checkpoints import load_model
from fftformer.data import EvaluationPairs, TrainingPairs
from fftformer.layouts import find_layout, find_pairs
from fftformer.losses import fourier_l1
from fftformer.model import create_model, list_models
from fftformer.presets import PRESETS, Config
from fftformer.shake import TRAINING_PHOTOGRAPHS, ShakenPhotographs, held_out_photographs


@command
def main() -> None:
    """Read the configuration and the data, build and train the network, write the results."""
    config = from_command_line(PRESETS, __doc__)
    run = Run(config, paper="fftformer", steps=config.iterations)
    accelerator = run.accelerator
    if config.model not in list_models():
        raise UserError(f"--model {config.model}: no such variant; choose one of {', '.join(list_models())}")
    layout, training, validation, names = datasets(config)
    if run.is_main:
        write_json(run.folder / "splits.json", names)

    if config.weights:
        model = load_model(config.weights)
    else:
        model = build(create_model, config.model, config.network, conjugate=config.conjugate)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = {"adamw": AdamW, "adam": Adam}[config.optimizer]
    optimizer = kind(trained, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)
    schedule = CosineAnnealingLR(optimizer, config.iterations, eta_min=config.final_learning_rate)
    if config.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    if ema is not None:
        ema.to(accelerator.device)
    run.restore(model=model, optimizer=optimizer, schedule=schedule, ema=ema)
    run.say(
        f"{sum(p.numel() for p in trained):,} parameters, {len(training):,} {layout} crops of {config.crop} pixels, "
        f"global batch {config.batch_size * config.gradient_accumulation * run.processes}, "
        f"{run.total - run.step:,} of {config.iterations:,} updates to go, in {run.folder}"
    )

    for batch in run.batches(training):
        with accelerator.accumulate(model):
            restored = model(batch["blurred"])
            pixel_loss = F.l1_loss(restored, batch["sharp"])
            loss = pixel_loss + config.frequency_weight * fourier_l1(restored, batch["sharp"])
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, config.clip)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, pixel_loss=pixel_loss, learning_rate=schedule.get_last_lr()[0])
        schedule.step()
        if ema is not None:
            ema.update_parameters(accelerator.unwrap_model(model))
        if run.due(config.validate_every):
            validate(run, weights_to_score(run, model, ema), validation, layout)

    final = weights_to_score(run, model, ema)
    run.export(final)
    scores = validate(run, final, validation, layout, sheet="restored.png")
    if run.is_main:
        dataset = scoring.DATASETS.get(layout, printable(config.data_root.name) if config.data_root else layout)
        rows = measured(
            scoring.rows(scores, layout, dataset, "validation", config.preset, [config.seed]), accelerator.device
        )
        publish(run.folder, rows)
        curves(run.folder / "metrics.jsonl", run.folder / "figures" / "curves.png")
        blurred = [f"{scoring.mean(scores, row.metric, 'blurred'):.4f}" for row in rows]
        print(table(rows, {"blurred input": blurred}))
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")
    run.close()


def datasets(config: Config) -> tuple[str, Any, Any, dict[str, list[str]]]:
    """The layout of the data, the training crops, the validation images, and the names of both.

    Raises:
        UserError: --data-root is missing for a preset or flag that needs it, or a pair is in both splits.
    """
    if config.data_root is None:
        demo = PRESETS["demo"]()
        asked = [
            name for name in ("layout", "saturation_jitter", "validation") if vars(config)[name] != vars(demo)[name]
        ]
        if config.preset != "demo" or asked:
            flag = f"--{asked[0].replace('_', '-')}" if config.preset == "demo" else f"--preset {config.preset}"
            raise UserError(f"{flag}: needs a data set; pass its folder as --data-root")
        held_out = held_out_photographs()[: config.validation_pictures]
        names = {"train": list(TRAINING_PHOTOGRAPHS), "validation": [item["name"] for item in held_out]}
        return "demo", ShakenPhotographs(config.crop, config.seed), held_out, names
    layout = find_layout(config.data_root, "train") if config.layout == "auto" else config.layout
    pairs = find_pairs(config.data_root, "train", layout)
    candidates = pairs if config.validation == "held_out" else find_pairs(config.data_root, "test", layout)
    validation = candidates[:: -(-len(candidates) // config.validation_pictures)]
    if config.validation == "held_out":
        sharp = {os.path.realpath(pair.sharp) for pair in validation}
        pairs = [pair for pair in pairs if os.path.realpath(pair.sharp) not in sharp]
    both = {os.path.realpath(pair.sharp) for pair in pairs} & {os.path.realpath(pair.sharp) for pair in validation}
    if not pairs or both:
        found = (
            f"{len(both)} sharp images are used for training and for validation (first: {min(both)})"
            if both
            else "no pair is left for training"
        )
        raise UserError(
            f"{config.data_root}: {found}; use --validation held_out, fewer --validation-pictures or separate splits"
        )
    training = TrainingPairs(pairs, config.crop, config.seed, saturation_jitter=config.saturation_jitter)
    names = {
        "train": [printable(pair.name) for pair in pairs],
        "validation": [printable(pair.name) for pair in validation],
    }
    return layout, training, EvaluationPairs(validation), names


def weights_to_score(run: Run[Config], model: nn.Module, ema: AveragedModel | None) -> nn.Module:
    """A copy of the network in evaluation mode, with the averaged weights if there are any."""
    return deepcopy(ema.module if ema is not None else run.accelerator.unwrap_model(model)).eval()


def validate(run: Run[Config], model: nn.Module, images: Any, layout: str, sheet: str | None = None) -> list[Any]:
    """Score whole images, keep the best weights, and draw the first images of the main process."""
    rows: list[list[Any]] = []
    captions: list[list[str]] = []

    def restore(blurred: Tensor) -> Tensor:
        with torch.inference_mode(), run.accelerator.autocast():
            return model(blurred[None].to(run.accelerator.device))[0].float().cpu()

    def show(item: dict[str, Any], restored: Tensor, score: scoring.PictureScore) -> None:
        if len(rows) < 4:
            rows.append([p.permute(1, 2, 0).numpy() for p in (item["blurred"], restored, item["sharp"])])
            psnr = [f"{of['PSNR (dB)']:.2f} dB" for of in (score.blurred, score.restored)]
            captions.append([f"{printable(item['name'])}: {psnr[0]}", psnr[1], ""])

    scores = scoring.score_pictures(images, restore, layout, rank=run.rank, processes=run.processes, show=show)
    psnr, before = (scoring.mean(scores, "PSNR (dB)", of) for of in ("restored", "blurred"))
    if sheet is None:
        # Weights must not be selected with images of the test split.
        best = run.config.validation == "held_out" and run.keep_if_best(psnr, model, "model_best")
        run.write(validation_psnr=psnr)
        note = ", best" if best else ""
        run.say(f"step {run.step}: {psnr:.2f} dB on {len(scores)} images, blurred {before:.2f} dB{note}")
    if run.is_main:
        name = sheet or f"step_{run.step:08d}.png"
        path = comparison_sheet(rows, ["blurred", "restored", "sharp"], run.folder / "figures" / name, captions)
        run.picture("validation", path)
    run.wait()
    return scores


if __name__ == "__main__":
    main()
