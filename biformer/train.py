"""Train BiFormer.

    accelerate launch biformer/train.py                                        the demo, a minute on two cores
    accelerate launch --num_processes 8 biformer/train.py --preset imagenet_small --data-root DIR
    accelerate launch biformer/train.py --preset finetune --data-root DIR --weights biformer_small.pth

The last raw weights are exported to OUTPUT/model (the authors' released weights are raw ones too), their average to
OUTPUT/model_ema, and the weights with the best validation score, raw or averaged, to OUTPUT/model_best. After an
interruption the same command continues exactly.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

from biformer import pictures, scoring
from biformer.augmentation import TrainingPictures, check_image_size, evaluation_transform, training_transform
from biformer.data import Pictures, save_split
from biformer.finetuning import starting_model
from biformer.layouts import open_both
from biformer.photographs import demo_pictures
from biformer.presets import PRESETS, Config
from common import launch
from common.config import from_command_line
from common.errors import UserError, command
from common.figures import curves
from common.networks.cards import publish
from common.results import measured, table
from common.run import Run


@command
def main() -> None:
    """Read the configuration and the data, build and train the network, write the results."""
    config = from_command_line(PRESETS, __doc__)
    training_set, validation_set = datasets(config)
    training = TrainingPictures(
        training_set, training_transform(config), config.seed, repeats=config.repeats, strict=config.strict
    )
    processes = launch.processes()
    global_batch = config.batch_size * config.gradient_accumulation * processes
    updates_per_epoch = max(1, len(training) // global_batch)
    steps = updates_per_epoch * (config.epochs + config.cooldown_epochs)
    run = Run(config, paper="biformer", steps=steps)
    accelerator = run.accelerator
    if run.is_main and (config.split_file or config.holdout):
        save_split(run.folder / "split.json", training_set, validation_set)

    model = starting_model(config, training_set.classes)
    check_image_size(config.image_size, model)
    model.set_grad_checkpointing(config.grad_checkpointing)
    learning_rate = config.learning_rate * global_batch / 512
    optimizer = create_optimizer_v2(
        model, "adamw", lr=learning_rate, weight_decay=config.weight_decay, layer_decay=config.layer_decay
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=config.epochs,
        cooldown_epochs=config.cooldown_epochs,
        warmup_epochs=config.warmup_epochs,
        warmup_lr=config.warmup_learning_rate,
        min_lr=config.final_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    mix, criterion = mixing_and_loss(config, len(training_set.classes))
    if config.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    ema = ModelEmaV3(accelerator.unwrap_model(model), config.ema) if config.ema else None
    run.restore(model=model, optimizer=optimizer, ema=ema)
    schedule.step_update(run.step)  # the learning rate depends only on the step
    run.say(
        f"{config.model}, {len(training):,} training and {len(validation_set):,} validation images of "
        f"{len(training_set.classes)} classes, global batch {global_batch}, learning rate {learning_rate:.3g}, "
        f"{run.total - run.step:,} of {steps:,} updates to go, in {run.folder}"
    )

    scores: dict[str, scoring.Scores] = {}
    for pair in run.batches(training):
        images, targets = pair if mix is None else mix(*pair)
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = criterion(model(images), targets)
            accelerator.backward(loss)
            if accelerator.sync_gradients and config.clip:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, learning_rate=max(group["lr"] for group in optimizer.param_groups))
        schedule.step_update(run.step)
        if ema is not None:
            ema.update(accelerator.unwrap_model(model), run.step)
        if run.due(updates_per_epoch * config.validate_epochs):
            scores = validate(run, model, ema, validation_set)

    scores = scores or score_both(run, model, ema, validation_set)
    finish(run, model, ema, scores, training=training, validation_set=validation_set)


def datasets(config: Config) -> tuple[Pictures, Pictures]:
    """Training and validation images.

    Raises:
        UserError: a folder is missing or cannot be used; this is found before the first step.
    """
    if config.data_root is None and not config.dataset:
        if config.preset != "demo":
            raise UserError(f"--preset {config.preset} needs --data-root DIR; the README describes the folder")
        return demo_pictures()
    return open_both(
        config.data_root or Path("."),
        dataset=config.dataset,
        split_file=config.split_file,
        holdout=config.holdout,
        seed=config.seed,
        upright=config.upright,
    )


def mixing_and_loss(config: Config, classes: int) -> tuple[Mixup | None, nn.Module]:
    """timm's mixup and CutMix, or None if both are off, and the loss."""
    if not config.mixup and not config.cutmix:
        return None, LabelSmoothingCrossEntropy(config.smoothing)
    if config.batch_size % 2:
        raise UserError(f"--batch-size {config.batch_size}: mixup needs pairs of images, expected an even number")
    mix = Mixup(config.mixup, config.cutmix, prob=config.mixing, label_smoothing=config.smoothing, num_classes=classes)
    return mix, SoftTargetCrossEntropy()


def validate(
    run: Run[Config], model: nn.Module, ema: ModelEmaV3 | None, validation_set: Pictures
) -> dict[str, scoring.Scores]:
    """Score the raw and the averaged weights; keep the better of both if they are the best so far."""
    scores = score_both(run, model, ema, validation_set)
    raw, better = scores[""], run.accelerator.unwrap_model(model)
    if ema is not None and scores["_ema"].top1 > raw.top1:
        better = ema.module
    best = run.keep_if_best(max(found.top1 for found in scores.values()), better, "model_best")
    run.write(**{f"validation_{name}{suffix}": x for suffix, s in scores.items() for name, x in described(s).items()})
    averaged = f", averaged weights {scores['_ema'].top1:.2f} %" if ema is not None else ""
    run.say(f"step {run.step}: top-1 {raw.top1:.2f} %{averaged} on {raw.pictures:,} images{', best' if best else ''}")
    run.wait()
    return scores


def score_both(
    run: Run[Config], model: nn.Module, ema: ModelEmaV3 | None, validation_set: Pictures
) -> dict[str, scoring.Scores]:
    """Scores of the raw weights (key "") and of the averaged weights (key "_ema")."""
    scores = {"": score(run, model, validation_set)}
    return scores if ema is None else scores | {"_ema": score(run, ema.module, validation_set)}


def described(scores: scoring.Scores) -> dict[str, float]:
    """The values that are written to metrics.jsonl."""
    return {"top1": scores.top1, "loss": scores.loss} | ({} if scores.top5 is None else {"top5": scores.top5})


def score(run: Run[Config], model: nn.Module, validation_set: Pictures) -> scoring.Scores:
    """Score in evaluation mode; the former mode is restored."""
    config = run.config
    with run.scoring(model) as network:
        return scoring.score(
            network,
            validation_set,
            evaluation_transform(config.image_size, config.crop_pct),
            run.accelerator,
            batch_size=config.batch_size,
            workers=config.workers,
            strict=config.strict,
        )


def finish(
    run: Run[Config],
    model: nn.Module,
    ema: ModelEmaV3 | None,
    scores: dict[str, scoring.Scores],
    *,
    training: TrainingPictures,
    validation_set: Pictures,
) -> None:
    """Export the weights, write the result rows, draw the figures."""
    config = run.config
    final = deepcopy(run.accelerator.unwrap_model(model)).eval()
    run.export(final)
    if ema is not None:
        run.export(ema.module, "model_ema")
    crop = scoring.crop_text(config.image_size, config.crop_pct)
    rows = []
    for suffix, found in scores.items():
        rows += scoring.rows(
            found,
            variant=config.model,
            preset=f"{config.preset}{suffix}",
            seeds=[config.seed],
            dataset=scoring.dataset_name(config.data_root, validation_set.classes),
            split="validation",
            crop=crop,
        )
    if run.is_main:
        rows = measured(rows, run.accelerator.device)
        publish(run.folder, rows)
        shown = ["loss", "learning_rate", "validation_top1", "validation_top1_ema"]
        curves(run.folder / "metrics.jsonl", run.folder / "figures" / "curves.png", shown)
        transform = evaluation_transform(config.image_size, config.crop_pct)
        device = run.accelerator.device
        sheet = pictures.prediction_sheet(final, validation_set, transform, device, run.folder / "figures/classes.png")
        run.picture("classes", sheet)
        routes = pictures.routing_sheet(final, validation_set, transform, device, run.folder / "figures/routing.png")
        run.picture("routing", routes)
        print(table(rows, {"weights": [row.preset for row in rows]}))
        skipped = training.skipped()
        unreadable = scores[""].unreadable
        if skipped or unreadable:
            first = f" (first of training: {skipped[0]})" if skipped else ""
            print(f"unreadable images left out: {len(skipped)} of training, {unreadable} of validation{first}")
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")
    run.close()


if __name__ == "__main__":
    main()
