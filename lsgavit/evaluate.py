"""Score trained networks on their test pixels, beside published values.

    python lsgavit/evaluate.py --checkpoint runs/lsgavit_demo                              all seeds of a run, one table
    python lsgavit/evaluate.py --checkpoint runs/random runs/disjoint --data-root DIR      two protocols side by side
    python lsgavit/evaluate.py --checkpoint FILE.pt --preset indian_pines --data-root DIR  weights of the authors' code

A run's model folder contains its split and its principal components. A file of the authors' code does not (none is
published): both then follow from the preset and --seed. Since the authors' split cannot be repeated, some of their
training pixels are then test pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.config import AnyNumber, Seed, parse
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import save
from common.hyperspectral.classification.drawing import confusion_figure
from common.hyperspectral.classification.scores import class_table
from common.hyperspectral.classification.seeds import model_folders, recorded_config
from common.hyperspectral.scene import BandAxis
from common.networks.weights import locate
from common.results import Row, measured, table, write_rows
from lsgavit import scoring
from lsgavit.checkpoints import load_model
from lsgavit.data import PreparedScene, find_scene
from lsgavit.presets import PRESETS, Config


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Flags of this script."""

    checkpoint: tuple[Path, ...]
    """Folders of runs, exported model folders, or the authors' released file; each one gives its own rows."""
    data_root: Path | None = None
    """Folder that holds the scene, if it has moved since the run."""
    cube: str | None = None
    """FILE[:KEY] of your own scene, if it has moved since the run."""
    labels: str | None = None
    """FILE[:KEY] of its class codes."""
    band_axis: BandAxis | None = None
    """Axis of the cube's bands, first or last; by default as in the run."""
    no_data: AnyNumber[float] | None = None
    """Value of the cube's pixels without data; by default as in the run, or as the file declares."""
    preset: str | None = None
    """Scene and protocol for a released file."""
    seed: Seed[int] = 5
    """Split for a released file."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    output: Path | None = None
    """Folder for rows and confusion matrix; by default the (first) checkpoint's folder."""


@command
def main() -> None:
    """Load, score, print, write."""
    options = parse(EvaluateConfig, __doc__)
    device = choose_device(options.device)
    if not options.checkpoint:
        raise UserError("--checkpoint names nothing; expected folders of runs or models, or the authors' released file")
    first = options.checkpoint[0]
    output = options.output or (first.parent if first.is_file() else first)
    rows = [row for checkpoint in options.checkpoint for row in evaluate(checkpoint, options, output, device)]
    rows = measured(rows, device)
    write_rows(output / "evaluation.json", rows)
    print(table(rows))
    print("\n".join(dict.fromkeys(f"{row.metric}: {row.definition}" for row in rows)))
    print(f"rows: {output / 'evaluation.json'}; confusion matrices: {output / 'figures'}")


def evaluate(checkpoint: Path, options: EvaluateConfig, output: Path, device: torch.device) -> list[Row]:
    """Score one run over its seeds, print its classes, draw its confusion matrix (summed over seeds)."""
    located = locate(checkpoint)
    if located.is_file():
        if options.preset not in PRESETS:
            raise UserError(f"{checkpoint}: a released file needs --preset, one of {', '.join(PRESETS)}")
        configs = [replace(PRESETS[options.preset](), preset=options.preset, seed=options.seed)]
        folders = [located]
    else:
        folders = model_folders(located)
        configs = [recorded_config(folder, Config) for folder in folders]
    given = {name: getattr(options, name) for name in ("data_root", "cube", "labels", "band_axis", "no_data")}
    recorded = configs[0] if options.cube is None else replace(configs[0], band_axis=None, no_data=None)
    scene = find_scene(replace(recorded, **{name: value for name, value in given.items() if value is not None}))
    if scene.note:
        print(scene.note)

    runs, scenes = [], []
    for folder, config in zip(folders, configs, strict=True):
        model = load_model(folder).to(device)
        config = replace(config, components=model.bands, window=model.image_size[0])  # noqa: PLW2901
        prepared = (
            PreparedScene.draw(scene, config, config.seed) if folder.is_file() else PreparedScene.load(folder, scene)
        )
        if len(prepared.components.offset) != scene.bands or model.num_classes != scene.num_classes:
            raise UserError(
                f"{folder}: is for {len(prepared.components.offset)} bands and {model.num_classes} classes, but "
                f"{scene.name} has {scene.bands} and {scene.num_classes}; pass the scene it was trained on"
            )
        windows = prepared.windows(model.image_size).to(device)
        found = scoring.classify(model, windows, prepared.split.test)
        runs.append(scoring.score_pixels(found, prepared, prepared.split.test))
        scenes.append(prepared)
        print(f"seed {config.seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in runs[-1].metrics.items()))
    print(class_table(runs, [prepared.split for prepared in scenes], scenes[0].scene))
    confusion = sum(run.confusion for run in runs)
    name = "confusion.png" if len(options.checkpoint) == 1 else f"confusion_{checkpoint.name}.png"
    save(confusion_figure(confusion, scene.class_names, title=scene.name), output / "figures" / name)
    seeds = [config.seed for config in configs]
    return scoring.rows(runs, scenes, configs[0].preset, seeds, configs[0].window)


if __name__ == "__main__":
    main()
