"""The data of the demo: synthetic camera shake on photographs that scikit-image installs.

A shake is a smooth random path of the camera during the exposure. Its velocity is a random walk that is pulled back
to a constant drift; the positions are summed at sub-pixel steps into a kernel of at most 17x17 pixels, whose path is
up to 9 pixels long. As in a camera, the average is taken in linear intensity and then encoded as sRGB; after that
noise is added and the values are rounded to 8 bits. Nothing is downloaded. Three photographs and their kernels are
held out and never used for training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import skimage
from scipy import fft
from scipy.signal import lfilter
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from fftformer.data import random_turn, to_tensor
from fftformer.images import read_picture, to_float

TRAINING_PHOTOGRAPHS = (
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "coins.png",
    "brick.png",
    "gravel.png",
    "ihc.png",
    "page.png",
)
HELD_OUT_PHOTOGRAPHS = ("astronaut.png", "coffee.png", "camera.png")

KERNEL_SIZE = 17
"""Side of a kernel in pixels."""
EXTENT = (4.0, 9.0)
"""Range of the longer side of the path's bounding box in pixels, before a path that does not fit is shrunk."""
NOISE = (0.001, 0.005)
"""Range of the standard deviation of the noise, for sRGB values in [0, 1]; 0.25 to 1.3 for values up to 255."""

_HELD_OUT_SEED = 20230618  # held-out kernels have their own random stream, which no training seed can produce
_MARGIN = KERNEL_SIZE // 2


def random_kernel(random: np.random.Generator) -> np.ndarray:
    """Draw a camera-shake kernel.

    Returns:
        `(KERNEL_SIZE, KERNEL_SIZE)` float32, non-negative, sum 1. The centre of mass is in the middle, so that the
        blurred and the sharp image are registered.
    """
    steps = 256
    drift = random.standard_normal(2)
    drift *= random.uniform(0.0, 1.0) / np.hypot(*drift)
    # Ornstein-Uhlenbeck velocity of unit variance, correlated over about a fifth of the exposure.
    pull = 5.0 / steps
    push = np.sqrt(2 * pull) * random.standard_normal((steps, 2))
    push[0] /= np.sqrt(2 * pull)
    velocity = drift + lfilter([1.0], [1.0, pull - 1.0], push, axis=0)
    path = velocity.cumsum(axis=0)
    path *= random.uniform(*EXTENT) / np.ptp(path, axis=0).max()
    # After centring on its mass, a path that stays long at one end would leave the kernel; it is shrunk.
    path -= path.mean(axis=0)
    path *= min(1.0, (_MARGIN - 0.5) / np.abs(path).max())
    path += _MARGIN
    kernel = np.zeros((KERNEL_SIZE, KERNEL_SIZE))
    corner = np.floor(path).astype(int)
    fraction = path - corner
    for row in (0, 1):
        for column in (0, 1):
            weight = np.abs(1 - row - fraction[:, 0]) * np.abs(1 - column - fraction[:, 1])
            np.add.at(kernel, (corner[:, 0] + row, corner[:, 1] + column), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def shake(linear: np.ndarray, kernel: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    """Blur a photograph with a kernel, add noise and round to 8 bits.

    Args:
        linear: `(H, W, 3)` linear intensity in [0, 1], with a margin of half a kernel on every side.
        kernel: `(k, k)`, k odd, sum 1.
        noise: standard deviation of the noise, for sRGB values in [0, 1].
        random: generator of the noise.

    Returns:
        `(H - k + 1, W - k + 1, 3)` float32 sRGB in [0, 1]: the positions where the kernel lies inside the photograph.
    """
    height, width = linear.shape[:2]
    shape = tuple(fft.next_fast_len(n, real=True) for n in (height, width))
    spectrum = fft.rfft2(linear, shape, axes=(0, 1)) * fft.rfft2(kernel, shape)[..., None]
    edge = kernel.shape[0] - 1  # the FFT's convolution is circular: the first rows and columns are wrong
    blurred = to_srgb(fft.irfft2(spectrum, shape, axes=(0, 1))[edge:height, edge:width].clip(0, 1))
    blurred += np.float32(noise) * random.standard_normal(blurred.shape, dtype=np.float32)
    return np.rint(blurred.clip(0, 1) * np.float32(255)) / np.float32(255)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] → linear intensity in [0, 1] (IEC 61966-2-1), float32."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear intensity in [0, 1] → sRGB values in [0, 1], float32."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


class ShakenPhotographs(Dataset[dict[str, Tensor]]):
    """Crops of the training photographs, each with its own kernel and noise.

    Args:
        crop: side of the square crops in pixels.
        seed: seed of every random choice.
        length: number of crops per epoch.

    Item `(epoch, index)`:
        `{"blurred", "sharp"}`, each `(3, crop, crop)` float32 in [0, 1].

    Raises:
        UserError: a photograph is not installed, or the crop is larger than the smallest photograph.
    """

    def __init__(self, crop: int, seed: int, length: int = 1000) -> None:
        self.crop, self.seed, self.length = crop, seed, length
        self.photographs = [_photograph(name) for name in TRAINING_PHOTOGRAPHS]
        smallest = min(min(photograph.shape[:2]) for photograph in self.photographs)
        if not 1 <= crop <= smallest - 2 * _MARGIN:
            raise UserError(f"--crop {crop}: the demo's photographs allow 1 to {smallest - 2 * _MARGIN} pixels")
        self._linear = [to_linear(photograph) for photograph in self.photographs]
        areas = np.array([photograph.shape[0] * photograph.shape[1] for photograph in self.photographs])
        self._probabilities = areas / areas.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        which = int(random.choice(len(self.photographs), p=self._probabilities))
        side = self.crop + 2 * _MARGIN
        top, left = (int(random.integers(length - side + 1)) for length in self.photographs[which].shape[:2])
        turn, window = random_turn(random), (slice(top, top + side), slice(left, left + side))
        blurred = shake(turn(self._linear[which][window]), random_kernel(random), random.uniform(*NOISE), random)
        inner = slice(_MARGIN, _MARGIN + self.crop)
        return {"blurred": to_tensor(blurred), "sharp": to_tensor(turn(self.photographs[which][window])[inner, inner])}


def held_out_photographs(kernels: int = 2, height: int = 256, width: int = 384) -> list[dict[str, Any]]:
    """Blur the held-out photographs with held-out kernels, for scoring; the result is always the same.

    Args:
        kernels: number of kernels per photograph.
        height, width: of the window that is cut from the middle of each photograph, in pixels.

    Returns:
        items `{"name", "blurred", "sharp"}`, like those of `fftformer.data.EvaluationPairs`.

    Raises:
        UserError: a photograph is not installed.
        ValueError: a photograph is smaller than the window.
    """
    items = []
    for which, file in enumerate(HELD_OUT_PHOTOGRAPHS):
        photograph = _photograph(file)
        top = (photograph.shape[0] - height) // 2
        left = (photograph.shape[1] - width) // 2
        if min(top, left) < _MARGIN:
            raise ValueError(f"{file} is too small for a window of {height}x{width} with a margin of {_MARGIN}")
        around = photograph[top - _MARGIN : top + height + _MARGIN, left - _MARGIN : left + width + _MARGIN]
        sharp = photograph[top : top + height, left : left + width]
        for number in range(kernels):
            random = np.random.default_rng([_HELD_OUT_SEED, which, number])
            blurred = shake(to_linear(around), random_kernel(random), random.uniform(*NOISE), random)
            name = f"{Path(file).stem}_shake{number + 1}"
            items.append({"name": name, "blurred": to_tensor(blurred), "sharp": to_tensor(sharp)})
    return items


def _photograph(name: str) -> np.ndarray:
    """Read a photograph from the installed scikit-image: `(H, W, 3)` sRGB in [0, 1]."""
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise UserError(f"{path}: this photograph of scikit-image is missing; install scikit-image again")
    return to_float(read_picture(path).rgb)
