"""Train a detector with BiFormer as backbone: RetinaNet for boxes, or Mask R-CNN for boxes and masks.

    accelerate launch biformer/detection/train.py                              the demo, a minute and a half
    accelerate launch --num_processes 8 biformer/detection/train.py --preset mask_rcnn_small --data-root COCO \\
        --weights biformer_small.pth

The last weights are exported to OUTPUT/model, the weights with the best validation box AP to OUTPUT/model_best. After
an interruption the same command continues exactly.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from biformer.dense import parameter_groups
from biformer.detection import pictures, scoring
from biformer.detection.annotations import check_categories
from biformer.detection.data import CocoPictures, open_split
from biformer.detection.demo import write_demo
from biformer.detection.model import Detector
from biformer.detection.presets import PRESETS, Config
from biformer.detection.transforms import TrainingPictures, unstacked
from common import launch
from common.config import from_command_line
from common.errors import UserError, command
from common.figures import curves
from common.networks.cards import publish
from common.photographs.images import refuse_shared
from common.results import measured, table
from common.run import Run


@command
def main() -> None:
    """Read the configuration and the data, build and train the network, write the results."""
    config = from_command_line(PRESETS, __doc__)
    check(config)
    training_set, validation_set = datasets(config)
    masks = config.method == "mask_rcnn"
    training = TrainingPictures(training_set, seed=config.seed, flip=config.flip, masks=masks)
    # Read from the launcher: if accelerate's state were created before the Accelerator, processes on a CPU would not be
    # connected.
    processes = launch.processes()
    global_batch = config.batch_size * config.gradient_accumulation * processes
    updates_per_epoch = max(1, len(training) // global_batch)
    steps = updates_per_epoch * config.epochs
    run = Run(config, paper="biformer_detection", steps=steps)
    assert run.processes == processes
    accelerator = run.accelerator

    model = starting_model(config, training_set)
    model.set_grad_checkpointing(config.grad_checkpointing)
    learning_rate = config.learning_rate * global_batch / 16
    spared = () if config.decay_norms else ("norm",)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay, without_decay=spared), lr=learning_rate)
    if config.compile:
        model.body.compile(dynamic=True)  # batches differ in size
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    if isinstance(model, DistributedDataParallel):
        # As in mmdetection. The authors' RetinaNet also sets find_unused_parameters; here no parameter is unused.
        model.broadcast_buffers = False
    run.restore(model=model, optimizer=optimizer)
    run.say(
        f"{config.method} on {config.model}, {len(training):,} training and {len(validation_set):,} validation "
        f"images of {len(training_set.classes)} classes ({training_set.crowds:,} crowd regions and "
        f"{training_set.degenerate:,} boxes without area left out), global batch {global_batch}, learning rate "
        f"{learning_rate:.3g}, {run.total - run.step:,} of {steps:,} updates to go, in {run.folder}"
    )
    if config.weights is None and config.preset != "demo":
        run.say("note: no --weights, the backbone starts from random weights; published values need ImageNet weights")

    scores: scoring.Scores | None = None
    for batch in run.batches(training):
        # The learning rate depends on the number of finished updates; `run.step` also counts the current one.
        done = run.step - run.updated
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share_of_rate(config, done, updates_per_epoch)
        with accelerator.accumulate(model):
            with accelerator.autocast():
                losses = model(*unstacked(batch))
                loss = torch.stack(list(losses.values())).sum()
            accelerator.backward(loss)
            if accelerator.sync_gradients and config.clip:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, **losses, learning_rate=max(group["lr"] for group in optimizer.param_groups))
        scores = None
        if run.due(updates_per_epoch * config.validate_epochs):
            scores = validate(run, model, validation_set)

    finish(run, model, scores or score(run, model, validation_set), validation_set)


def check(config: Config) -> None:
    """Refuse flags that contradict each other, before anything is loaded."""
    if config.data_root is None and config.preset != "demo":
        raise UserError(f"--preset {config.preset} needs --data-root DIR; the README describes the folder")


def datasets(config: Config) -> tuple[CocoPictures, CocoPictures]:
    """Training and validation images.

    Raises:
        UserError: a file is missing or cannot be used; this is found before the first step.
    """
    folder = config.data_root
    if folder is None:  # every process writes the same files; each file is written atomically
        folder = write_demo((config.output or Path("runs/biformer_detection_demo")) / "data")
    masks = config.method == "mask_rcnn"
    training_set, validation_set = (open_split(folder, split, masks=masks) for split in ("train", "validation"))
    refuse_shared(*([split.folder / name for name in split.names] for split in (training_set, validation_set)))
    check_categories(
        validation_set.classes,
        validation_set.category_ids,
        training_set.classes,
        training_set.category_ids,
        whose=f"{validation_set.annotation_file}",
    )
    return training_set.for_training(), validation_set


def starting_model(config: Config, training_set: CocoPictures) -> Detector:
    """Build a detector, with ImageNet weights in its backbone if `config.weights` is given."""
    try:
        model = Detector(
            class_names=training_set.classes,
            category_ids=training_set.category_ids,
            method=config.method,
            backbone=config.model,
            num_regions=config.num_regions,
            depths=config.depths,
            drop_path_rate=config.drop_path,
            freeze_batch_norm=config.freeze_batch_norm,
            channels=config.channels,
            proposals=config.proposals,
            regions_per_picture=config.regions_per_picture,
            short_side=config.short_side,
            long_side=config.long_side,
        )
    except ValueError as error:
        raise UserError(f"--model {config.model}: {error}") from None
    if config.weights is not None:
        model.body.load_classifier(config.weights)
    return model


def share_of_rate(config: Config, done: int, updates_per_epoch: int) -> float:
    """Factor of the learning rate after `done` updates: warm-up, then a tenth after each epoch in `steps_after`."""
    rising = min(1.0, 0.001 + 0.999 * done / config.warmup_steps) if config.warmup_steps else 1.0
    return rising * 0.1 ** sum(done >= epoch * updates_per_epoch for epoch in config.steps_after)


def validate(run: Run[Config], model: nn.Module, validation_set: CocoPictures) -> scoring.Scores:
    """Score the weights and keep them if they are the best so far."""
    scores = score(run, model, validation_set)
    best = run.keep_if_best(scores.box.get("AP", 0.0), run.accelerator.unwrap_model(model), "model_best")
    named = scores.named()
    run.write(**{f"validation_{name.replace(' ', '_')}": value for name, value in named.items()})
    shown = ", ".join(f"{name} {value:.2f}" for name, value in named.items() if name.endswith(("AP", "AP50")))
    run.say(f"step {run.step}: {shown} on {scores.pictures:,} images{', best' if best else ''}")
    run.wait()
    return scores


def score(run: Run[Config], model: nn.Module, validation_set: CocoPictures) -> scoring.Scores:
    """Score in evaluation mode; the former mode is restored."""
    config = run.config
    with run.scoring(model) as detector:
        return scoring.score(detector, validation_set, run.accelerator, workers=config.workers)


def finish(run: Run[Config], model: nn.Module, scores: scoring.Scores, validation_set: CocoPictures) -> None:
    """Export the weights, write the result rows, draw the figures."""
    config = run.config
    final = deepcopy(run.accelerator.unwrap_model(model)).eval()
    run.export(final)
    if run.is_main:
        rows = scoring.rows(
            scores,
            detector=final,
            preset=config.preset,
            seeds=[config.seed],
            dataset=scoring.dataset_name(config.data_root, validation_set),
            split="validation",
        )
        rows = measured(rows, run.accelerator.device)
        publish(run.folder, rows)
        shown = ["loss", "learning_rate", "validation_box_AP", "validation_mask_AP"]
        curves(run.folder / "metrics.jsonl", run.folder / "figures" / "curves.png", shown)
        path = run.folder / "figures" / "detections.png"
        run.picture("detections", pictures.detection_sheet(final, validation_set, run.accelerator.device, path))
        print(table(rows, {"published in": [row.source or "" for row in rows]}))
        print(f"model: {run.folder / 'model'}; figures: {run.folder / 'figures'}")
    run.close()


if __name__ == "__main__":
    main()
