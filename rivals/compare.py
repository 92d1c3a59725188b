"""Score other methods on the splits of this repository's scene classifiers.

    python rivals/compare.py                                                       all methods, on the synthetic scene
    python rivals/compare.py --dataset houston2018_crop --data-root DIR            LSGA-ViT's protocol
    python rivals/compare.py --dataset houston2018_crop --data-root DIR --split disjoint
    python rivals/compare.py --dataset salinas_a --data-root DIR --split per_class --ratio 0.02 --validation 0.02
    python rivals/compare.py --cube FILE:KEY --labels FILE:KEY --methods svm       your own scene

With the same scene, split, --ratio, --validation and --seeds, training and test pixels are those of lsgavit/train.py
(random, disjoint, fixed) and amgcfn/train.py (its random split is per_class here; its seeds are 1330 to 1339). For
disjoint splits, --window must also equal LSGA-ViT's --window or AMGCFN's --distance. Rows are written to
OUTPUT/results.json and replace earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from common.config import AnyNumber, Fraction, Positive, Seed, parse
from common.environment import choose_device
from common.errors import UserError, command
from common.hyperspectral.classification.catalogue import load_fixed_split, load_scene
from common.hyperspectral.classification.disjoint import disjoint_split, overlap
from common.hyperspectral.classification.scores import DEFINITIONS, Scores, over_seeds, score, sizes_over_seeds
from common.hyperspectral.classification.splits import Split, per_class_split, stratified_split
from common.hyperspectral.scene import BandAxis, Scene, open_scene, refuse_without_cube
from common.hyperspectral.synthetic import synthetic_scene
from common.results import SPREAD, Row, measured, table, write_rows
from rivals import hybridsn, spectra

METHODS = {"svm": "SVM, spectra alone", "forest": "random forest, spectra alone", "hybridsn": "HybridSN"}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Flags of this script."""

    dataset: str = "demo"
    """Scene of the catalogue below --data-root, or demo for the synthetic scene; --cube replaces it."""
    data_root: Path = Path("data")
    """Folder that holds the scene."""
    cube: str | None = None
    """FILE[:KEY] of your own scene: MATLAB, NumPy, ENVI or GeoTIFF."""
    labels: str | None = None
    """FILE[:KEY] of its class codes, 0 for unlabelled."""
    band_axis: BandAxis | None = None
    """Axis of the bands of --cube, if the labels' shape does not tell: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data in --cube; by default as its file declares."""
    methods: tuple[Literal["svm", "forest", "hybridsn"], ...] = ("svm", "forest", "hybridsn")
    """Methods to score."""
    split: Literal["random", "per_class", "disjoint", "fixed"] = "random"
    """random: stratified, as in LSGA-ViT. per_class: as in AMGCFN. disjoint: test pixels at least a window away from
    training pixels, as in both. fixed: the scene's published maps."""
    ratio: Fraction[float] = 0.1
    """Share of the labelled pixels for training."""
    validation: Fraction[float] = 0.0
    """Share of the labelled pixels that per_class and disjoint remove from the test, as for AMGCFN's validation."""
    window: Positive[int] = 9
    """Side of HybridSN's windows in pixels, and distance of a disjoint split."""
    components: Positive[int] = 30
    """Number of HybridSN's principal components."""
    epochs: Positive[int] = 100
    """HybridSN's passes over the training pixels."""
    seeds: tuple[Seed[int], ...] = (5, 6, 7)
    """Seeds of splits and methods."""
    device: str = "auto"
    """Device of HybridSN: auto, cpu, cuda or cuda:N."""
    output: Path = Path("runs/rivals")
    """Folder for results.json."""


@command
def main() -> None:
    """Scene, splits, methods, table."""
    config = parse(CompareConfig, __doc__)
    if not config.seeds or not config.methods:
        raise UserError("--seeds and --methods need at least one value each")
    scene = find_scene(config)
    splits = [draw_split(scene, config, seed) for seed in config.seeds]
    rows = []
    for method in config.methods:
        runs = [run(method, scene, split, config, seed) for split, seed in zip(splits, config.seeds, strict=True)]
        rows += describe(METHODS[method], scene, splits, runs, config)
    rows = measured(rows, choose_device(config.device))
    write_rows(config.output / "results.json", rows)
    print(table(rows, {"method": [row.preset for row in rows]}))


def find_scene(config: CompareConfig) -> Scene:
    """Return the scene; with a fixed split, its labels are those of the published maps.

    Raises:
        UserError: the scene cannot be read, or has no published split.
    """
    if config.split == "fixed" and (config.cube or config.dataset == "demo"):
        raise UserError("--split fixed belongs to a published scene; name it with --dataset, or choose another split")
    if config.cube is not None:
        return open_scene(config.cube, config.labels, band_axis=config.band_axis, no_data=config.no_data)
    refuse_without_cube(None, labels=config.labels, band_axis=config.band_axis, no_data=config.no_data)
    scene = synthetic_scene() if config.dataset == "demo" else load_scene(config.dataset, config.data_root)
    if config.split == "fixed":
        return replace(scene, labels=load_fixed_split(config.dataset, config.data_root)[0])
    return scene


def draw_split(scene: Scene, config: CompareConfig, seed: int) -> Split:
    """Return the split that LSGA-ViT's or AMGCFN's trainer draws for the same flags."""
    labels, ratio = scene.require_labels(), config.ratio
    if config.split == "fixed":
        return load_fixed_split(config.dataset, config.data_root)[1]
    if config.split == "disjoint":
        return disjoint_split(labels, ratio, window=config.window, validation=config.validation, seed=seed)
    if config.split == "per_class":
        return per_class_split(labels, ratio=ratio, validation=config.validation, seed=seed)
    return stratified_split(labels, ratio, seed=seed)


def run(method: str, scene: Scene, split: Split, config: CompareConfig, seed: int) -> Scores:
    """Train a method on the training pixels and score it on the test pixels."""
    labels = scene.require_labels().reshape(-1)
    if method == "hybridsn":
        sizes = (config.components, config.window, config.epochs)
        try:
            found = hybridsn.classify(scene, split, *sizes, seed, choose_device(config.device))
        except ValueError as error:
            raise UserError(f"--components, --window: {error}") from None
    else:
        pixels = scene.cube.reshape(-1, scene.bands).astype(np.float64)
        classifier = {"svm": spectra.svm, "forest": spectra.forest}[method]
        found = classifier(pixels[split.train], labels[split.train], pixels[split.test], seed)
    scores = score(labels[split.test], found, scene.num_classes)
    print(f"{METHODS[method]}, seed {seed}: " + ", ".join(f"{name} {x:.2f}" for name, x in scores.metrics.items()))
    return scores


def describe(method: str, scene: Scene, splits: list[Split], runs: list[Scores], config: CompareConfig) -> list[Row]:
    """Return one row per metric over the seeds; the split is described as in lsgavit's rows."""
    sizes = sizes_over_seeds(splits)
    protocol = splits[0].description.partition(", seed")[0]
    seen = np.mean([overlap(split, config.window).contained for split in splits])
    return [
        Row(
            paper="rivals",
            preset=method,
            dataset=scene.name,
            split=f"{protocol}, {sizes} train/validation/test, {seen:.0f} % of test windows hold training pixels",
            metric=metric,
            definition=DEFINITIONS[metric] + (f"; {SPREAD}" if spread is not None else ""),
            value=value,
            std=spread,
            seeds=list(config.seeds),
        )
        for metric, (value, spread) in over_seeds(runs).items()
    ]


if __name__ == "__main__":
    main()
