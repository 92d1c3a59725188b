"""Train LSGA-ViT on one scene, once per seed, and print one table.

    accelerate launch lsgavit/train.py                                                     the demo, one minute
    accelerate launch lsgavit/train.py --preset houston2018_crop --data-root DIR           three seeds, one table
    accelerate launch lsgavit/train.py --preset houston2018_crop --data-root DIR --split disjoint --output runs/disjoint
    accelerate launch lsgavit/train.py --preset salinas --cube FILE:KEY --labels FILE:KEY --output runs/mine
    accelerate launch --num_processes 3 lsgavit/train.py --preset salinas --data-root DIR  a seed per process

The fourth command trains on your own scene with the recipe of Salinas.

Every seed has its own split and weights and trains in OUTPUT/seed_N; several processes share the seeds, or the batches
of a single seed. The weights of the last epoch are scored, because without validation pixels no others can be chosen.
After an interruption the same command continues.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import launch
from common.config import build, from_command_line
from common.errors import UserError, command
from common.figures import curves, save
from common.hyperspectral.classification.disjoint import overlap
from common.hyperspectral.classification.drawing import confusion_figure, sheet
from common.hyperspectral.classification.scores import class_table
from common.hyperspectral.classification.seeds import read_scores, refuse_mixed, seed_folder, write_scores
from common.hyperspectral.scene import Scene
from common.networks.cards import publish
from common.results import measured, table
from common.run import Run
from lsgavit import scoring
from lsgavit.checkpoints import load_model
from lsgavit.data import PreparedScene, TrainingPixels, find_scene, turned
from lsgavit.model import LSGAViT, create_model
from lsgavit.presets import PRESETS, Config
from lsgavit.windows import SceneWindows


@command
def main() -> None:
    """Configuration, scene, one run per seed, results."""
    config = from_command_line(PRESETS, __doc__)
    if len(config.seeds) > 1 and config.resume not in ("auto", "none"):
        raise UserError(f"--resume {config.resume} names one seed's checkpoint; pass that seed with --seeds")
    # Processes train different seeds; the fastest waits here for the rest.
    processes = launch.accelerator(mixed_precision=config.mixed_precision, patience=timedelta(days=30))
    folder = config.output or Path("runs") / f"lsgavit_{config.preset}"
    refuse_mixed(folder, config)
    seeds = config.seeds or (config.seed,)
    alone = len(seeds) > 1
    scene = find_scene(config)

    for seed in seeds[processes.process_index :: processes.num_processes] if alone else seeds:
        train(replace(config, seed=seed, seeds=(), output=seed_folder(folder, config.seeds, seed)), scene, alone=alone)

    processes.wait_for_everyone()
    if processes.is_main_process:
        report(config, scene, folder, seeds)


def train(config: Config, scene: Scene, *, alone: bool) -> None:
    """Train and test one seed."""
    prepared = PreparedScene.draw(scene, config, config.seed)
    training = TrainingPixels(prepared, config.seed, augmentation=config.augmentation)
    processes = 1 if alone else launch.processes()
    per_update = config.batch_size * config.gradient_accumulation * processes
    run = Run(config, paper="lsgavit", steps=config.epochs * -(-len(training) // per_update), alone=alone)
    accelerator = run.accelerator
    windows = prepared.windows((config.window, config.window)).to(accelerator.device)

    sizes = {"image_size": config.window, "bands": config.components, "num_classes": scene.num_classes}
    model = build(create_model, config.model, config.network, **sizes).to(accelerator.device)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = Adam(trained, lr=config.learning_rate, fused=True)
    schedule = CosineAnnealingLR(optimizer, run.steps) if config.schedule == "cosine" else None
    patience = Patience(config.patience)
    # The release trains on one GPU, where BatchNorms normalise over the whole batch.
    model = launch.sync_batch_norm(model, run.processes, accelerator.device)
    if config.compile:
        model.compile()
    model = model if alone else accelerator.prepare(model)
    optimizer = accelerator.prepare(optimizer)
    run.restore(model=model, optimizer=optimizer, schedule=schedule, ema=ema, patience=patience)
    if run.is_main:
        prepared.save(run.folder / "model")
    run.say(
        f"{scene.name}, seed {config.seed}: {sum(p.numel() for p in trained):,} parameters, "
        f"{prepared.split.description}: train/validation/test {prepared.split.sizes}, "
        f"{overlap(prepared.split, config.window)}; "
        f"{run.total - run.step:,} of {run.steps:,} updates to go, in {run.folder}"
    )
    for note in (*scene.notes, *prepared.split.notes):
        run.say(f"note: {note}")

    model.train()
    for batch in run.batches(training):
        with accelerator.accumulate(model), accelerator.autocast():
            inputs = windows[batch["pixel"]].to(accelerator.device)
            if config.augmentation:
                inputs = turned(inputs, batch["symmetry"])
            loss = F.cross_entropy(model(inputs), batch["class"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if not run.updated:
            continue
        run.log(loss=loss, learning_rate=optimizer.param_groups[0]["lr"])
        if schedule is not None:
            schedule.step()
        if ema is not None:
            ema.update_parameters(accelerator.unwrap_model(model))
        if config.patience and run.due(run.steps // config.epochs):
            validate(run, weights_to_score(run, model, ema), windows, prepared, patience)
            if patience.exhausted:
                run.say(f"step {run.step}: no better validation accuracy for {config.patience} epochs")
                break

    if not config.patience:
        run.export(weights_to_score(run, model, ema))
    run.wait()
    if run.is_main and (run.step == run.total or patience.exhausted):
        test(run, windows, prepared, draw_map=config.draw_map)
    run.close()


class Patience:
    """Counts epochs without a better validation accuracy; part of the checkpoints."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.waited = epochs, 0

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self.epochs > 0 and self.waited >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        """Return the values that a checkpoint stores."""
        return {"waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        self.waited = state["waited"]


def weights_to_score(run: Run, model: nn.Module, ema: AveragedModel | None) -> LSGAViT:
    """Return a copy in evaluation mode of the averaged network if there is one, else of the trained network."""
    return deepcopy(ema.module if ema is not None else run.accelerator.unwrap_model(model)).eval()


def validate(run: Run, model: LSGAViT, windows: SceneWindows, prepared: PreparedScene, patience: Patience) -> None:
    """Keep the weights with the best overall accuracy on the validation pixels."""
    pixels = prepared.split.validation
    accuracy = scoring.score_pixels(scoring.classify(model, windows, pixels), prepared, pixels).overall
    if run.processes > 1:  # BatchNorm statistics differ between processes, but all must stop together
        accuracy = broadcast(torch.tensor(accuracy, device=run.accelerator.device)).item()
    run.write(validation_oa=accuracy)
    patience.waited = 0 if run.keep_if_best(accuracy, model) else patience.waited + 1


def test(run: Run, windows: SceneWindows, prepared: PreparedScene, *, draw_map: bool) -> None:
    """Score the exported weights on the test pixels and draw the seed's figures."""
    model = load_model(run.folder / "model").to(windows.padded.device)
    found = scoring.classify(model, windows, None if draw_map else prepared.split.test)
    scores = scoring.score_pixels(found, prepared, prepared.split.test)
    write_scores(run.folder / "scores.json", scores)
    figures = run.folder / "figures"
    if draw_map:
        title = f"LSGA-ViT, seed {run.config.seed}: OA {scores.overall:.2f} %"
        save(sheet(prepared.scene, found, title=title), figures / "map.png")
    save(confusion_figure(scores.confusion, prepared.scene.class_names), figures / "confusion.png")
    if (run.folder / "metrics.jsonl").exists():  # absent after fewer updates than --log-every
        curves(run.folder / "metrics.jsonl", figures / "curves.png", ("loss", "validation_oa"))
    run.say(f"seed {run.config.seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.metrics.items()))


def report(config: Config, scene: Scene, folder: Path, seeds: tuple[int, ...]) -> None:
    """Write the rows over all seeds and print the tables."""
    folders = [seed_folder(folder, config.seeds, seed) for seed in seeds]
    runs = [read_scores(one / "scores.json") for one in folders]
    scenes = [PreparedScene.load(one / "model", scene) for one in folders]
    device = launch.accelerator(mixed_precision=config.mixed_precision).device
    found = measured(scoring.rows(runs, scenes, config.preset, seeds, config.window), device)
    publish(folder, found)
    print(class_table(runs, [prepared.split for prepared in scenes], scenes[0].scene))
    print(table(found))
    print(f"models: {folders[0] / 'model'}{' and so on' if len(folders) > 1 else ''}; rows: {folder / 'results.json'}")


if __name__ == "__main__":
    main()
