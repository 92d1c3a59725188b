"""Train BiFormer for semantic segmentation.

    accelerate launch biformer/segmentation/train.py                           the demo, less than a minute on one core
    accelerate launch --num_processes 8 biformer/segmentation/train.py --preset sfpn_small \\
        --data-root ADEChallengeData2016 --weights biformer_small.pth

The last weights are exported to OUTPUT/model, the weights with the best validation score to OUTPUT/model_best. After
an interruption the same command continues exactly.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from biformer.dense import parameter_groups
from biformer.segmentation import pictures, scoring
from biformer.segmentation.augmentation import Augmentation, TrainingScenes
from biformer.segmentation.data import Scenes, open_both
from biformer.segmentation.inference import Protocol
from biformer.segmentation.model import Segmenter
from biformer.segmentation.photographs import write_demo
from biformer.segmentation.presets import PRESETS, Config, learning_rate
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
    augmentation = Augmentation(
        config.image_size, config.scale, config.category_share, flip=config.flip, distort=config.distort
    )
    training = TrainingScenes(training_set, augmentation, config.seed)
    run = Run(config, paper="biformer_segmentation", steps=config.iterations)
    accelerator = run.accelerator
    global_batch = config.batch_size * config.gradient_accumulation * run.processes

    model = starting_model(config, training_set.classes)
    model.set_grad_checkpointing(config.grad_checkpointing)
    spared = () if config.decay_norms else ("norm",)
    groups = parameter_groups(model, config.weight_decay, without_decay=spared)
    optimizer = AdamW(groups, lr=config.learning_rate)
    model = launch.sync_batch_norm(model, run.processes, accelerator.device)  # of backbone and heads, as in the release
    if config.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    if isinstance(model, DistributedDataParallel):
        model.broadcast_buffers = False  # as in the release
    run.restore(model=model, optimizer=optimizer)
    run.say(
        f"{config.model} with {config.head}, {len(training):,} training and {len(validation_set):,} validation "
        f"images of {len(training_set.classes)} classes, global batch {global_batch}, learning rate "
        f"{config.learning_rate:.3g}, {run.total - run.step:,} of {run.steps:,} updates to go, in {run.folder}"
    )

    scores: scoring.Scores | None = None
    for images, labels in run.batches(training):
        rate = learning_rate(config, run.step - run.updated)  # depends only on the number of finished updates
        for group in optimizer.param_groups:
            group["lr"] = rate
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = model(images, labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients and config.clip:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, learning_rate=max(group["lr"] for group in optimizer.param_groups))
        if run.due(config.validate_every):
            scores = validate(run, model, validation_set)

    finish(run, model, scores or score(run, model, validation_set), validation_set)


def datasets(config: Config) -> tuple[Scenes, Scenes]:
    """Training and validation images.

    Raises:
        UserError: a folder is missing or cannot be used; this is found before the first step.
    """
    root = config.data_root
    if root is None:
        if config.preset != "demo":
            raise UserError(f"--preset {config.preset} needs --data-root DIR; the README describes the folder")
        root = write_demo((config.output or Path("runs/biformer_segmentation_demo")) / "data")
    return open_both(root)


def starting_model(config: Config, classes: list[str]) -> Segmenter:
    """Build the network for `classes`, with ImageNet weights if `config.weights` is given.

    Raises:
        UserError: flags or weights contradict each other.
    """
    try:
        model = Segmenter(
            config.model,
            config.head,
            num_classes=len(classes),
            num_regions=config.num_regions,
            head_width=config.head_width,
            dropout=config.dropout,
            drop_path_rate=config.drop_path,
            freeze_batch_norm=config.freeze_batch_norm,
            class_names=list(classes),
            image_size=config.image_size,
            size_divisor=config.size_divisor,
        )
    except ValueError as error:
        raise UserError(f"--model {config.model} --head {config.head}: {error}") from None
    if config.image_size < model.least_size:
        raise UserError(
            f"--image-size {config.image_size}: is smaller than the region grid of {config.num_regions}x"
            f"{config.num_regions} regions; expected {model.least_size} pixels or more, or fewer --num-regions"
        )
    if config.head == "upernet" and config.batch_size < 2:
        raise UserError("--batch-size 1: upernet normalises pooled 1x1 maps over the batch, expected 2 or more")
    if config.weights is not None:
        model.backbone.load_classifier(config.weights)
    return model


def validate(run: Run[Config], model: nn.Module, validation_set: Scenes) -> scoring.Scores:
    """Score the weights and keep them if they are the best so far."""
    scores = score(run, model, validation_set)
    values = scores.values()
    best = run.keep_if_best(values["mIoU"], model, "model_best")
    run.write(**{f"validation_{name}": value for name, value in values.items()})
    run.say(f"step {run.step}: mIoU {values['mIoU']:.2f} % on {scores.pictures:,} images{', best' if best else ''}")
    run.wait()
    return scores


def score(run: Run[Config], model: nn.Module, validation_set: Scenes) -> scoring.Scores:
    """Score in evaluation mode; the former mode is restored."""
    config = run.config
    with run.scoring(model) as network:
        return scoring.score(
            network, validation_set, run.accelerator, evaluation_protocol(network), workers=config.workers
        )


def evaluation_protocol(model: Segmenter) -> Protocol:
    """One view of each image, with the size of the training."""
    return Protocol(model.image_size, model.size_divisor)


def finish(run: Run[Config], model: nn.Module, scores: scoring.Scores, validation_set: Scenes) -> None:
    """Export the weights, write the result rows, draw the figures."""
    config = run.config
    final = deepcopy(run.accelerator.unwrap_model(model)).eval()
    run.export(final)
    if run.is_main:
        protocol, device = evaluation_protocol(final), run.accelerator.device
        found = scoring.rows(
            scores,
            final,
            preset=config.preset,
            seeds=[config.seed],
            dataset=scoring.dataset_name(validation_set, demo=config.data_root is None),
            split="validation",
            protocol=protocol,
        )
        rows = measured(found, device)
        publish(run.folder, rows)
        scoring.write_classes(run.folder / "classes.csv", scores, final.class_names)
        curves(
            run.folder / "metrics.jsonl",
            run.folder / "figures" / "curves.png",
            ["loss", "learning_rate", "validation_mIoU"],
        )
        sheet = run.folder / "figures" / "predictions.png"
        run.picture("predictions", pictures.prediction_sheet(final, validation_set, protocol, device, sheet))
        print(table(rows))
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")
    run.close()


if __name__ == "__main__":
    main()
