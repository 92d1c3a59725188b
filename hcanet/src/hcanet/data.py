"""Training samples: a flipped or rotated window of a clean scene, with its own noise.

Scenes are in memory as float32, or in the cache on disk. All random numbers come from one generator per sample, made
from (seed, epoch, index), so samples are the same for any number of workers and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from hcanet.cache import CachedScene
from hcanet.eigen import OUTLIERS, eigen_images
from hcanet.noise import corrupt, sample_generator, scene_generator

COMPLEX = ("case1", "case2", "case3", "case4")
DRAWS = 8
"""Number of noisy copies of every training scene for `EigenPatches`."""


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own noise.

    Attributes:
        start: the stage's first update.
        case: a case of `hcanet.noise`, or "complex": cases 1 to 4 in turn.
        crop: side of the patches; a sample has `(full crop / crop)²` of them, so that all batches have equally many
            pixels.
    """

    start: int
    case: str
    crop: int


class TrainingPatches(Dataset[dict[str, Tensor]]):
    """Square windows with noise.

    Args:
        sources: clean scenes `(bands, H, W)` in [0, 1], or cached patches.
        stages: stages in order, the first from update 0.
        bands: bands of a sample; if a scene has more, consecutive bands from a random start.
        crop: side of a sample in pixels.
        stride: distance between windows in pixels; with 1 every position is a window.
        seed: seed of every random choice.
        batch: samples of one update, over all processes.
        sigma, framework: parameters of the noise, see `corrupt`.
        augment: apply one of eight flips and rotations at random.
        reverse_bands: reverse the order of the bands with probability one half.

    Item `(epoch, index)`:
        `{"noisy": (views, bands, crop, crop), "clean": the same}`, float32.

    Raises:
        UserError: a scene is smaller than a window, or has too few bands.
    """

    def __init__(
        self,
        sources: Sequence[np.ndarray | CachedScene],
        stages: Sequence[Stage],
        *,
        bands: int,
        crop: int,
        stride: int,
        seed: int,
        batch: int,
        sigma: float = 50.0,
        framework: str = "mafnet",
        augment: bool = True,
        reverse_bands: bool = True,
    ) -> None:
        self.sources, self.stages = list(sources), list(stages)
        self.bands, self.crop, self.seed, self.batch = bands, crop, seed, batch
        self.sigma, self.framework = sigma, framework
        self.augment, self.reverse_bands = augment, reverse_bands
        self.windows: list[tuple[int, int, int]] = []
        for number, source in enumerate(self.sources):
            *_, found, height, width = source.shape
            if found < bands:
                raise UserError(f"a training scene has {found} bands, fewer than --bands {bands}; lower --bands")
            if min(height, width) < crop:
                raise UserError(
                    f"a training region has {height} × {width} pixels, too few for a crop of {crop}; lower --crop"
                )
            if isinstance(source, CachedScene):
                self.windows += [(number, item, 0) for item in range(len(source))]
            else:
                places = [range(0, side - crop + 1, stride) for side in (height, width)]
                self.windows += [(number, top, left) for top in places[0] for left in places[1]]
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        generator = sample_generator(self.seed, epoch, index)
        position = self.position(epoch, index)
        stage = self.stage(position // self.batch)
        window = self._window(index, generator)
        start = generator.integers(len(window) - self.bands + 1)
        window = self._turned(window[start : start + self.bands], generator)
        per_side = self.crop // stage.crop
        clean = np.empty((per_side**2, self.bands, stage.crop, stage.crop), dtype=np.float32)
        noisy = np.empty_like(clean)
        for view in range(len(clean)):
            top, left = generator.integers(self.crop - stage.crop + 1, size=2)
            clean[view] = window[:, top : top + stage.crop, left : left + stage.crop]
            place = position * len(clean) + view
            case = COMPLEX[place % len(COMPLEX)] if stage.case == "complex" else stage.case
            noisy[view] = corrupt(
                clean[view], case, generator, sigma=self.sigma, framework=self.framework, position=place
            ).image
        return {"noisy": torch.from_numpy(noisy), "clean": torch.from_numpy(clean)}

    def stage(self, update: int) -> Stage:
        """Return the stage of an update."""
        return max((stage for stage in self.stages if stage.start <= update), key=lambda stage: stage.start)

    def position(self, epoch: int, index: int) -> int:
        """Return the position of this sample in the endless stream of `common.sampling`."""
        if self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
            inverse = np.empty_like(order)
            inverse[order] = np.arange(len(order))
            self._order = epoch, inverse
        return epoch * len(self) + int(self._order[1][index])

    def _window(self, index: int, generator: np.random.Generator) -> np.ndarray:
        number, first, second = self.windows[index]
        source = self.sources[number]
        if isinstance(source, CachedScene):
            patch = source[first]
            top, left = (generator.integers(side - self.crop + 1) for side in patch.shape[1:])
            return patch[:, top : top + self.crop, left : left + self.crop]
        return source[:, first : first + self.crop, second : second + self.crop]

    def _turned(self, window: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        down, across, transpose, reverse = generator.integers(2, size=4)
        if self.augment:
            window = window[:, :: -1 if down else 1, :: -1 if across else 1]
            window = window.swapaxes(1, 2) if transpose else window
        return window[::-1] if self.reverse_bands and reverse else window


class EigenPatches(TrainingPatches):
    """Square windows of the eigen-images of noisy scenes.

    Noise is drawn for whole scenes, as in prediction, `DRAWS` times for each scene; a sample is a window of one of
    these noisy scenes.

    Args:
        sources: clean scenes `(bands, H, W)` in [0, 1].
        stages: stages in order, all with the full crop.
        rank: number of eigen-images.
        options: the other arguments of `TrainingPatches`.

    Item `(epoch, index)`:
        `{"noisy": (1, rank, crop, crop), "clean": the same}`, float32, in standard deviations of the noise.

    Raises:
        UserError: sources are patches on disk; or as in `TrainingPatches`.
    """

    def __init__(
        self, sources: Sequence[np.ndarray | CachedScene], stages: Sequence[Stage], *, rank: int, **options: object
    ) -> None:
        if any(isinstance(source, CachedScene) for source in sources):
            raise UserError("--eigen-images needs whole scenes; ICVL is trained band by band: leave the flag out")
        if (fewest := min(len(source) for source in sources)) < rank:
            raise UserError(f"a training scene has {fewest} bands, fewer than --eigen-images {rank}; lower it")
        super().__init__(sources, stages, bands=rank, reverse_bands=False, **options)  # type: ignore[arg-type]
        self._scenes: dict[tuple[int, str, int], np.ndarray] = {}

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        generator = sample_generator(self.seed, epoch, index)
        position = self.position(epoch, index)
        case = self.stage(position // self.batch).case
        number, top, left = self.windows[index]
        pair = self._scene(
            number, COMPLEX[position % len(COMPLEX)] if case == "complex" else case, int(generator.integers(DRAWS))
        )
        pair = self._turned(pair[:, top : top + self.crop, left : left + self.crop], generator)
        noisy, clean = torch.from_numpy(np.ascontiguousarray(pair)).split(self.bands)
        return {"noisy": noisy[None], "clean": clean[None]}

    def _scene(self, number: int, case: str, draw: int) -> np.ndarray:
        """`(2 rank, H, W)`: eigen-images of a noisy copy of a scene, then the clean scene in the same space."""
        key = number, case, draw
        if key not in self._scenes:
            clean = np.asarray(self.sources[number], dtype=np.float64)
            generator = scene_generator(self.seed, f"{number} {case} {draw}")
            noisy = corrupt(clean, case, generator, sigma=self.sigma, framework=self.framework, position=draw).image
            images, space = eigen_images(noisy, self.bands, outliers=case in OUTLIERS)
            self._scenes[key] = np.concatenate([images, space.project(clean)]).astype(np.float32)
        return self._scenes[key]
