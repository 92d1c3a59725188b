"""Train AMGCFN on one scene, once per seed, and print one table.

    accelerate launch amgcfn/train.py                                                      the demo, one minute
    accelerate launch amgcfn/train.py --preset houston2018_crop --data-root DIR            ten seeds, one table
    accelerate launch amgcfn/train.py --preset houston2018_crop --data-root DIR --split disjoint --output runs/disjoint
    accelerate launch --num_processes 4 amgcfn/train.py --preset pavia_university --data-root DIR
    accelerate launch amgcfn/train.py --preset indian_pines --cube FILE:KEY --labels FILE:KEY --output runs/mine

The last command trains on your own scene with the recipe of Indian Pines.
Every seed has its own split, graph and weights and trains in OUTPUT/seed_N; several processes share the seeds. After an
interruption the same command continues, between seeds and within a seed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from amgcfn import scoring
from amgcfn.checkpoints import create_model, load_model
from amgcfn.data import SPLIT, PreparedScene, find_scene
from amgcfn.model import AMGCFN
from amgcfn.pictures import draw_graph
from amgcfn.presets import PRESETS, Config
from amgcfn.strips import classify_scene
from common import launch
from common.config import build, from_command_line
from common.errors import UserError, command
from common.figures import curves, save
from common.hyperspectral.classification.drawing import composite, confusion_figure, sheet
from common.hyperspectral.classification.scores import class_table
from common.hyperspectral.classification.seeds import read_scores, refuse_mixed, seed_folder, write_scores
from common.hyperspectral.classification.splits import Split
from common.hyperspectral.scene import Scene
from common.networks.cards import publish
from common.results import measured, table
from common.run import Run


@command
def main() -> None:
    """Configuration, scene, one run per seed, results."""
    config = from_command_line(PRESETS, __doc__)
    if len(config.seeds) > 1 and config.resume not in ("auto", "none"):
        raise UserError(f"--resume {config.resume} names one seed's checkpoint; pass that seed with --seeds")
    # Processes train different seeds; the fastest waits here for the rest.
    processes = launch.accelerator(patience=timedelta(days=30))
    folder = config.output or Path("runs") / f"amgcfn_{config.preset}"
    refuse_mixed(folder, config)
    seeds = config.seeds or (config.seed,)
    scene = find_scene(config)
    for note in scene.notes if processes.is_main_process else ():
        print(f"note: {note}")

    for seed in seeds[processes.process_index :: processes.num_processes]:
        train(replace(config, seed=seed, seeds=(), output=seed_folder(folder, config.seeds, seed)), scene)

    processes.wait_for_everyone()
    if processes.is_main_process:
        report(config, scene, folder, seeds)


def train(config: Config, scene: Scene) -> None:
    """Train, validate and test one seed."""
    run = Run(config, paper="amgcfn", steps=config.epochs, alone=True)
    device = run.accelerator.device
    prepared = PreparedScene.draw(scene, config, config.seed)
    arguments, classes = prepared.tensors(device)
    training, validation = (
        prepared.positions(pixels).to(device) for pixels in (prepared.split.train, prepared.split.validation)
    )

    sizes = {"bands": scene.bands, "num_classes": scene.num_classes, "node_features": config.components}
    model = build(create_model, "amgcfn", config.network, **sizes).to(device)
    optimizer = Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    if config.compile:
        # Compilers do not support sparse tensors; they fuse operations themselves instead of using fast/.
        cube, features, segments, hops = arguments
        arguments = cube, features, segments, [hop.to_dense() for hop in hops]
        model.compile(fullgraph=True)
    run.restore(model=model, optimizer=optimizer)
    prepared.save(run.folder / "model")
    run.say(
        f"{scene.name}, seed {config.seed}: {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{len(prepared.graph.features):,} superpixels, train/validation/test {prepared.split.sizes}, "
        f"{run.total - run.step} of {config.epochs} epochs to go, in {run.folder}"
    )

    for _ in run.updates():
        model.train()
        logits = model(*arguments)
        loss = sum_of_losses(logits, classes, training)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        if run.due(config.validate_every):
            validate(run, model, arguments, classes, validation)

    if run.step == run.total:
        test(run, prepared)
    run.close()


def sum_of_losses(logits: tuple[Tensor, ...], classes: Tensor, pixels: Tensor) -> Tensor:
    """Return the cross-entropy of all classifiers, summed over pixels, not averaged."""
    losses = [F.cross_entropy(one[pixels], classes[pixels], reduction="sum") for one in logits]
    return torch.stack(losses).sum()


@torch.inference_mode()
def validate(
    run: Run, model: AMGCFN, arguments: tuple[Tensor, Tensor, Tensor, list[Tensor]], classes: Tensor, pixels: Tensor
) -> None:
    """Keep the weights with the least validation loss of the fused classifier."""
    fused = model.eval()(*arguments)[0][pixels]
    loss = F.cross_entropy(fused, classes[pixels], reduction="sum").item()
    right = (fused.argmax(dim=1) == classes[pixels]).float().mean().item()
    run.write(validation_loss=loss, validation_oa=100 * right)
    run.keep_if_best(-loss, model)


def test(run: Run, prepared: PreparedScene) -> None:
    """Score the best weights on the test pixels and draw the seed's figures."""
    model = load_model(run.folder / "model").to(run.accelerator.device)
    logits = classify_scene(model, prepared.scene.cube, prepared.graph, extent=prepared.scene.extent)[0]
    found = (logits.argmax(dim=1) + 1).numpy().reshape(prepared.scene.shape) * prepared.scene.valid
    scores = scoring.score_map(found, prepared)
    write_scores(run.folder / "scores.json", scores)
    figures = run.folder / "figures"
    title = f"seed {run.config.seed}: OA {scores.overall:.2f} %"
    save(sheet(prepared.scene, found, title=title), figures / "map.png")
    save(confusion_figure(scores.confusion, prepared.scene.class_names), figures / "confusion.png")
    draw_graph(composite(prepared.scene), prepared.graph, figures / "graph.png", title=prepared.scene.name)
    curves(run.folder / "metrics.jsonl", figures / "curves.png")
    run.say(f"seed {run.config.seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.metrics.items()))


def report(config: Config, scene: Scene, folder: Path, seeds: tuple[int, ...]) -> None:
    """Write the rows over all seeds and print the tables."""
    folders = [seed_folder(folder, config.seeds, seed) for seed in seeds]
    runs = [read_scores(one / "scores.json") for one in folders]
    splits = [Split.load(one / "model" / SPLIT, scene.require_labels()) for one in folders]
    found = measured(scoring.rows(runs, splits, scene.name, config.preset, seeds), launch.accelerator().device)
    publish(folder, found)
    print(class_table(runs, splits, scene))
    print(table(found))
    print(f"models: {folders[0] / 'model'}{' and so on' if len(folders) > 1 else ''}; rows: {folder / 'results.json'}")


if __name__ == "__main__":
    main()
