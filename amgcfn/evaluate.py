"""Score trained networks on their test pixels, beside published values.

    python amgcfn/evaluate.py --checkpoint runs/amgcfn_demo                               all seeds of a run, one table
    python amgcfn/evaluate.py --checkpoint runs/amgcfn_demo/seed_1330/model               one seed
    python amgcfn/evaluate.py --checkpoint runs/amgcfn_salinas_a --data-root DIR          the scene has moved
    python amgcfn/evaluate.py --checkpoint DIR --cube FILE:KEY --labels FILE:KEY          your own scene has moved
    python amgcfn/evaluate.py --checkpoint FILE.pt --preset indian_pines --data-root DIR  weights of the authors' code

A run's model folder contains its split and its superpixel graph. A file of the authors' code does not (none is
published): both then follow from the preset and --seed. Since the authors' split cannot be repeated, some of their
training pixels are then test pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from amgcfn import scoring
from amgcfn.checkpoints import load_model
from amgcfn.data import PreparedScene, find_scene
from amgcfn.presets import PRESETS, Config
from amgcfn.strips import classify_scene, rows_for_memory
from common import memory
from common.config import AnyNumber, Seed, parse
from common.environment import choose_device
from common.errors import UserError, command
from common.hyperspectral.classification.scores import class_table
from common.hyperspectral.classification.seeds import model_folders, recorded_config
from common.hyperspectral.scene import BandAxis
from common.networks.weights import locate
from common.results import measured, table, write_rows


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder, one exported model folder, or the authors' released file."""
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
    seed: Seed[int] = 1330
    """Split and graph for a released file."""
    memory: str | None = None
    """Memory for feature maps, such as 800M or 4G; by default a quarter of the device's. Larger scenes are processed in
    strips, with the same result."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    output: Path | None = None
    """File for the rows; by default evaluation.json in the checkpoint's folder."""


@command
def main() -> None:
    """Load, score, print, write."""
    options = parse(EvaluateConfig, __doc__)
    if options.output is not None and options.output.suffix.lower() != ".json":
        raise UserError(f"--output {options.output}: expected the name of a file for the rows, ending in .json")
    device = choose_device(options.device)
    budget = memory.budget(options.memory, device)
    checkpoint = locate(options.checkpoint)
    released = checkpoint.is_file()
    if released:
        if options.preset not in PRESETS:
            raise UserError(f"{checkpoint}: a released file needs --preset, one of {', '.join(PRESETS)}")
        config = replace(PRESETS[options.preset](), preset=options.preset, seed=options.seed)
        folders = [checkpoint]
    else:
        folders = model_folders(checkpoint)
        config = recorded_config(folders[0], Config)
    given = {name: getattr(options, name) for name in ("data_root", "cube", "labels", "band_axis", "no_data")}
    recorded = config if options.cube is None else replace(config, band_axis=None, no_data=None)
    scene = find_scene(replace(recorded, **{name: value for name, value in given.items() if value is not None}))
    for note in scene.notes:
        print(f"note: {note}")

    runs, splits, seeds = [], [], []
    for folder in folders:
        model = load_model(folder).float().to(device)
        if model.bands != scene.bands or model.num_classes != scene.num_classes:
            raise UserError(
                f"{folder}: is for {model.bands} bands and {model.num_classes} classes, but {scene.name} has "
                f"{scene.bands} and {scene.num_classes}; pass the scene it was trained on"
            )
        seed = options.seed if released else recorded_config(folder, Config).seed
        prepared = PreparedScene.draw(scene, config, seed) if released else PreparedScene.load(folder, scene)
        strip = rows_for_memory(model, scene.shape[1], budget)
        logits = classify_scene(model, scene.cube, prepared.graph, rows=strip, extent=scene.extent)[0]
        runs.append(scoring.score_map((logits.argmax(dim=1) + 1).numpy().reshape(scene.shape), prepared))
        splits.append(prepared.split)
        seeds.append(seed)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in runs[-1].metrics.items()))

    rows = measured(scoring.rows(runs, splits, scene.name, config.preset, seeds), device)
    output = options.output or (checkpoint.parent if released else options.checkpoint) / "evaluation.json"
    write_rows(output, rows)
    print(class_table(runs, splits, scene))
    print(table(rows))
    print("\n".join(f"{row.metric}: {row.definition}" for row in rows))
    print(f"rows: {output}")


if __name__ == "__main__":
    main()
