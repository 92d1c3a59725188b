"""The training patches of a configuration, and its regions for validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from common import launch
from common.hyperspectral.regions import describe
from hcanet.cache import CachedScene, prepare
from hcanet.data import EigenPatches, Stage, TrainingPatches
from hcanet.presets import Config
from hcanet.scenes import Region, icvl_names, icvl_test_region, load_regions, require_root

HELD_OUT = 4
"""Number of scenes at the end of ICVL's training list that are used for validation."""


def load_data(config: Config) -> tuple[list[np.ndarray | CachedScene], dict[str, Any]]:
    """Return the training regions, and those of validation and test.

    Raises:
        UserError: files are missing or not as expected.
    """
    if config.dataset == "icvl" and config.cube is None:
        root = require_root("icvl", config.data_root)
        (*names,) = icvl_names("train")
        training, held_out = names[:-HELD_OUT], names[-HELD_OUT:]
        complex_noise = config.order[-1] not in ("gaussian", "blind")
        tested = icvl_names("test_complex" if complex_noise else "test_gauss")
        accelerator = launch.accelerator(mixed_precision=config.mixed_precision, patience=timedelta(days=1))
        with accelerator.main_process_first():  # the others wait until all patches are cut
            cached = prepare(root, training, config.preparation, config.cache or root / "hcanet_cache")

        def lazy_regions(names: Sequence[str]) -> LazyRegions:
            return LazyRegions(
                names, lambda name: icvl_test_region(root, name, config.preparation, complex_noise=complex_noise)
            )

        listed = {"train": training, "validation": held_out, "test": tested}
        return list(cached), {
            "validation": lazy_regions(held_out), "test": lazy_regions(tested), "describe": listed,
        }  # fmt: skip
    regions: dict[str, Any] = dict(
        load_regions(
            config.dataset, config.data_root, config.scaling, cube=config.cube, band_axis=config.band_axis,
            no_data=config.no_data,
        )
    )  # fmt: skip
    return [region.values() for region in regions["train"]], {**regions, "describe": describe(regions)}


class LazyRegions(Sequence[Region]):
    """Regions that are read from disk at every access."""

    def __init__(self, names: Sequence[str], read: Any) -> None:
        self.names, self.read = names, read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        return self.read(self.names[index])


def training_patches(
    config: Config, sources: Sequence[np.ndarray | CachedScene], stages: Sequence[Stage], per_update: int
) -> TrainingPatches:
    """Return the training samples of the configuration."""
    options: dict[str, Any] = {
        "crop": config.crop, "stride": config.stride, "seed": config.seed, "batch": per_update, "sigma": config.sigma,
        "framework": config.framework, "augment": config.augment,
    }  # fmt: skip
    if config.eigen_images:
        return EigenPatches(sources, stages, rank=config.eigen_images, **options)
    return TrainingPatches(sources, stages, bands=config.bands, reverse_bands=config.reverse_bands, **options)
