"""Prepare a scene for the network (split, components, windows), and restore it from a model's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from common.files import write_json
from common.hyperspectral.classification.catalogue import load_fixed_split, load_scene
from common.hyperspectral.classification.disjoint import disjoint_split
from common.hyperspectral.classification.splits import Split, make_split, stratified_split
from common.hyperspectral.classification.transforms import SpectralTransform, fit_pca
from common.hyperspectral.scene import Scene, open_scene, refuse_without_cube
from common.hyperspectral.synthetic import synthetic_scene
from lsgavit.presets import Config
from lsgavit.windows import SceneWindows

SPLIT, COMPONENTS, CLASSES = "split.npz", "components.npz", "classes.json"


@dataclass(frozen=True, eq=False)
class PreparedScene:
    """A scene with the split of one seed.

    Attributes:
        scene: cube and labels.
        split: training, validation and test pixels.
        components: principal components of all pixels with data, as released.
    """

    scene: Scene
    split: Split
    components: SpectralTransform

    @classmethod
    def draw(cls, scene: Scene, config: Config, seed: int) -> PreparedScene:
        """Draw the configuration's split and fit the principal components.

        Raises:
            UserError: the split leaves a class without training or test pixels, the window is larger
                than the scene, or there are fewer bands than components.
        """
        labels = scene.require_labels()
        if config.window > min(scene.shape):
            raise UserError(
                f"--window {config.window} is larger than the scene {scene.name} of {scene.shape[0]} × "
                f"{scene.shape[1]} pixels; choose a smaller one"
            )
        if config.split_file is not None:
            split = Split.load(config.split_file, labels)
        elif config.split == "fixed":
            split = load_fixed_split(config.dataset, data_root(config))[1]
        elif config.split == "disjoint":
            split = disjoint_split(labels, config.ratio, window=config.window, seed=seed, validation=config.validation)
        else:
            split = _hold_out(labels, stratified_split(labels, config.ratio, seed=seed), config.validation, seed)
        if config.patience and not len(split.validation):
            raise UserError("--patience needs validation pixels; pass --validation, for example 0.05")
        return cls(scene, split, fit_pca(scene.cube, config.components, pixels=scene.data_pixels))

    def save(self, folder: Path) -> None:
        """Write split, components and class names beside a model."""
        self.split.save(folder / SPLIT)
        self.components.save(folder / COMPONENTS)
        write_json(folder / CLASSES, {"names": self.scene.class_names, "codes": self.scene.codes})

    @classmethod
    def load(cls, folder: Path, scene: Scene) -> PreparedScene:
        """Read what `save` wrote, for the same scene.

        Raises:
            UserError: files are missing, or belong to another scene.
        """
        split = Split.load(folder / SPLIT, scene.require_labels())
        return cls(scene, split, SpectralTransform.load(folder / COMPONENTS))

    def windows(self, size: tuple[int, int]) -> SceneWindows:
        """Return the windows of the scene's principal components."""
        return SceneWindows(self.components.apply(self.scene.cube), size)


class TrainingPixels(Dataset[dict[str, Tensor]]):
    """Training pixels with their classes; windows are cut for a whole batch, on the device.

    Args:
        prepared: scene and split.
        seed: of the augmentation.
        augmentation: apply one of the eight symmetries of a square to every sample, at random.
    """

    def __init__(self, prepared: PreparedScene, seed: int, *, augmentation: bool) -> None:
        self.pixels = torch.from_numpy(prepared.split.train)
        self.classes = torch.from_numpy(prepared.scene.require_labels().reshape(-1)[prepared.split.train] - 1)
        self.seed, self.augmentation = seed, augmentation

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        symmetry = np.random.default_rng([self.seed, epoch, index]).integers(8) if self.augmentation else 0
        return {"pixel": self.pixels[index], "class": self.classes[index], "symmetry": torch.tensor(symmetry)}


def turned(windows: Tensor, symmetry: Tensor) -> Tensor:
    """Apply one of the eight symmetries of a square to each window `(B, bands, s, s)`.

    Args:
        symmetry: `(B,)`, 0 to 7: number of quarter turns; from 4 on, the window is mirrored first.
    """
    result = torch.empty_like(windows)
    for kind in range(8):
        chosen = symmetry == kind
        some = windows[chosen]
        result[chosen] = torch.rot90(some.flip(-1) if kind >= 4 else some, kind % 4, (-2, -1))
    return result


def find_scene(config: Config) -> Scene:
    """Return the scene of a configuration: a user's own, the demo's, or one of the catalogue.

    Raises:
        UserError: the scene does not exist, or its files are not as published.
    """
    if config.cube is not None:
        if config.split == "fixed":
            raise UserError("--split fixed belongs to a published scene; with --cube pass --split-file")
        return open_scene(config.cube, config.labels, band_axis=config.band_axis, no_data=config.no_data)
    refuse_without_cube(None, labels=config.labels, band_axis=config.band_axis, no_data=config.no_data)
    if config.dataset == "demo":
        return synthetic_scene()
    scene = load_scene(config.dataset, data_root(config))
    if config.split != "fixed" or config.split_file is not None:
        return scene
    # The published maps define their own labels: some follow an older ground truth.
    return replace(scene, labels=load_fixed_split(config.dataset, data_root(config))[0])


def data_root(config: Config) -> Path:
    """Return the folder of a published scene's files.

    Raises:
        UserError: --data-root was not given.
    """
    if config.data_root is None:
        raise UserError(f"--data-root is missing: {config.dataset} is read from files; pass the folder that holds them")
    return config.data_root


def recorded_classes(model_folder: Path, count: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and codes of the `count` classes that a model was trained on.

    Raises:
        UserError: the model folder does not contain them, or they are damaged.
    """
    path = model_folder / CLASSES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names, codes = tuple(found["names"]), tuple(found["codes"])
        if len(names) != count or len(codes) != count or not all(type(code) is int and code > 0 for code in codes):
            raise ValueError(f"{len(names)} names and the codes {found['codes']} for {count} classes")
        return names, codes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: does not hold class names ({error}); keep a model's folder together") from None


def _hold_out(labels: np.ndarray, split: Split, share: float, seed: int) -> Split:
    """Move a random share of the labelled pixels from the test to the validation part."""
    count = int(share * (labels > 0).sum())
    if not count:
        return split
    if count >= len(split.test):
        raise UserError(f"--validation {share:g} asks for {count} pixels; {len(split.test)} are left beside training")
    shuffled = np.random.default_rng(seed).permutation(split.test)
    return make_split(labels, ([split.train], [shuffled[:count]], [shuffled[count:]]), split.description, split.notes)
