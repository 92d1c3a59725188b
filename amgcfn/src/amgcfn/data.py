"""Prepare a scene for the network (split, components, graph, tensors), and restore it from a model's folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amgcfn.graph import SuperpixelGraph, build_graph
from amgcfn.presets import Config
from common.errors import UserError
from common.hyperspectral.classification.catalogue import load_scene
from common.hyperspectral.classification.disjoint import disjoint_split
from common.hyperspectral.classification.seeds import recorded_config
from common.hyperspectral.classification.splits import Split, per_class_split
from common.hyperspectral.classification.transforms import SpectralTransform, fit_pca
from common.hyperspectral.scene import Scene, open_scene, refuse_without_cube
from common.hyperspectral.synthetic import synthetic_scene

GRAPH, SPLIT, COMPONENTS = "graph.safetensors", "split.npz", "components.npz"


@dataclass(frozen=True, eq=False)
class PreparedScene:
    """A scene with the split and graph of one seed.

    Attributes:
        scene: cube and labels.
        split: training, validation and test pixels.
        components: principal components of the training pixels.
        graph: superpixels and hop graphs.
    """

    scene: Scene
    split: Split
    components: SpectralTransform
    graph: SuperpixelGraph

    @classmethod
    def draw(cls, scene: Scene, config: Config, seed: int) -> PreparedScene:
        """Draw the published split, or a disjoint one, and build the published graph.

        Raises:
            UserError: the ratio leaves a class without a training or test pixel, no validation pixel is left, or
                the scene gives no graph.
        """
        labels = scene.require_labels()
        if config.split == "disjoint":
            split = disjoint_split(
                labels, config.ratio, window=config.distance, validation=config.validation, seed=seed
            )
        else:
            split = per_class_split(labels, ratio=config.ratio, validation=config.validation, seed=seed)
        if not len(split.validation):
            raise UserError(
                f"--validation {config.validation:g} of {int((labels > 0).sum())} labelled pixels is no pixel, "
                "but validation chooses the checkpoint; raise it"
            )
        components = fit_pca(scene.cube, config.components, pixels=split.train)
        graph = build_graph(
            scene.cube,
            components,
            valid=scene.valid,
            sigma=config.sigma,
            pixels_per_superpixel=config.pixels_per_superpixel,
            rescale=config.rescale,
        )
        return cls(scene, split, components, graph)

    def save(self, folder: Path) -> None:
        """Write split, components, graph, class names and class codes beside a model."""
        self.split.save(folder / SPLIT)
        self.components.save(folder / COMPONENTS)
        self.graph.save(
            folder / GRAPH,
            cube_sha256=cube_sha256(self.scene.cube),
            class_names=json.dumps(self.scene.class_names),
            class_codes=json.dumps(self.scene.codes),
        )

    @classmethod
    def load(cls, folder: Path, scene: Scene) -> PreparedScene:
        """Read what `save` wrote, for the same scene.

        Raises:
            UserError: files are missing, or belong to another scene.
        """
        split = Split.load(folder / SPLIT, scene.require_labels())
        components, graph, _, _ = load_graph(folder, scene)
        return cls(scene, split, components, graph)

    def tensors(self, device: torch.device) -> tuple[tuple[Tensor, Tensor, Tensor, list[Tensor]], Tensor]:
        """Return the network's arguments, and the flat classes of their pixels, from 0, with −1 for unlabelled.

        A border without data is left out, because the network computes averages and a softmax over all pixels.
        """
        extent = self.scene.extent
        cube = torch.from_numpy(self.scene.cube[extent].astype(np.float32)).to(device)
        classes = torch.from_numpy(self.scene.require_labels()[extent].reshape(-1) - 1).to(device)
        features, segments, hops = self.graph.tensors(device)
        return (cube, features, segments[extent].contiguous(), hops), classes

    def positions(self, pixels: np.ndarray) -> Tensor:
        """Convert flat pixel indices of the scene to flat indices of the pixels of `tensors`."""
        rows, columns = self.scene.extent
        row, column = np.divmod(pixels, self.scene.shape[1])
        return torch.from_numpy((row - rows.start) * (columns.stop - columns.start) + column - columns.start)


def find_scene(config: Config) -> Scene:
    """Return the scene of a configuration: a user's own, the demo's, or one of the catalogue.

    Raises:
        UserError: the scene does not exist, or its files are not as published.
    """
    if config.cube is not None:
        return open_scene(config.cube, config.labels, band_axis=config.band_axis, no_data=config.no_data)
    refuse_without_cube(None, labels=config.labels, band_axis=config.band_axis, no_data=config.no_data)
    if config.dataset == "demo":
        return synthetic_scene()
    if config.data_root is None:
        raise UserError(f"--data-root is missing: {config.dataset} is read from files; pass the folder that holds them")
    return load_scene(config.dataset, config.data_root)


def load_graph(
    folder: Path, scene: Scene
) -> tuple[SpectralTransform, SuperpixelGraph, tuple[str, ...], tuple[int, ...]]:
    """Return a model's components, its graph (a new graph for another scene), class names and codes.

    For another scene the components are still those of the training pixels; superpixels and standardisation are those
    of the new scene.

    Raises:
        UserError: files are missing or damaged, or the scene has another number of bands.
    """
    components = SpectralTransform.load(folder / COMPONENTS)
    graph, metadata = SuperpixelGraph.load(folder / GRAPH)
    if metadata.get("cube_sha256") != cube_sha256(scene.cube):
        config = recorded_config(folder, Config)
        graph = build_graph(
            scene.cube,
            components,
            valid=scene.valid,
            sigma=config.sigma,
            pixels_per_superpixel=config.pixels_per_superpixel,
            rescale=config.rescale,
        )
    return components, graph, *_classes(metadata, scene.codes)


def recorded_classes(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and codes of the classes that a model was trained on.

    Raises:
        UserError: the graph in the model folder, which contains them, is missing or damaged.
    """
    return _classes(SuperpixelGraph.load(folder / GRAPH)[1])


def _classes(metadata: dict[str, str], codes: tuple[int, ...] = ()) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = tuple(json.loads(metadata.get("class_names", "[]")))
    # Older models have no codes: use those of the training scene, else 1..K.
    return names, tuple(json.loads(metadata.get("class_codes", "[]"))) or codes or tuple(range(1, len(names) + 1))


def cube_sha256(cube: np.ndarray) -> str:
    """Return the hash of a cube's values and shape, by which a scene is recognised."""
    digest = hashlib.sha256(f"{cube.shape}{cube.dtype}".encode())
    for row in cube:
        digest.update(row.tobytes())
    return digest.hexdigest()
