"""Camera shake on real photographs: the demo's data, from what scikit-image installs.

A shake is a smooth random path of the camera during the exposure: the velocity is a random walk
that is pulled back to a steady drift, its positions are summed at sub-pixel steps into a kernel
of at most 17x17 pixels, up to 9 from end to end. As in a camera, light is averaged in linear
intensity and encoded to sRGB afterwards; then come the sensor's noise and 8 bits. Nothing is
downloaded. The three held-out photographs and their kernels are never trained on.
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
"""Range of the path's larger side, in pixels; a path that is heavy at one end is shrunk to fit."""
NOISE = (0.001, 0.005)
"""Range of the noise's standard deviation, on sRGB values in [0, 1]: 0.25 to 1.3 of 255."""

_HELD_OUT_SEED = 20230618  # a stream of its own, so that no training seed draws the same kernels
_MARGIN = KERNEL_SIZE // 2


def random_kernel(random: np.random.Generator) -> np.ndarray:
    """Draw a camera-shake kernel.

    Returns:
        `(KERNEL_SIZE, KERNEL_SIZE)` float32, non-negative, sum 1, its centre of mass in the middle so that
        blurred and sharp image are registered.
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
    # A path whose mass lies at one end would leave the square when centred on its mass: shrink it.
    path -= path.mean(axis=0)
    path *= min(1.0, (_MARGIN - 0.5) / np.abs(path).max())
    path += _MARGIN
    kernel = np.zeros((KERNEL_SIZE, KERNEL_SIZE))
    whole = np.floor(path).astype(int)
    part = path - whole
    for row in (0, 1):
        for column in (0, 1):
            weight = np.abs(1 - row - part[:, 0]) * np.abs(1 - column - part[:, 1])
            np.add.at(kernel, (whole[:, 0] + row, whole[:, 1] + column), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def shake(linear: np.ndarray, kernel: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    """Blur a photograph as a shaking camera does and record it with noise in 8 bits.

    Args:
        linear: `(H, W, 3)` linear light in [0, 1], with a margin of half a kernel on every side.
        kernel: `(k, k)`, k odd, sum 1.
        noise: standard deviation on sRGB values.

    Returns:
        `(H - k + 1, W - k + 1, 3)` float32 sRGB in [0, 1]: only where the kernel lies inside.
    """
    height, width = linear.shape[:2]
    shape = tuple(fft.next_fast_len(n, real=True) for n in (height, width))
    spectrum = fft.rfft2(linear, shape, axes=(0, 1)) * fft.rfft2(kernel, shape)[..., None]
    edge = kernel.shape[0] - 1  # the first rows and columns hold what wraps around
    blurred = to_srgb(fft.irfft2(spectrum, shape, axes=(0, 1))[edge:height, edge:width].clip(0, 1))
    blurred += np.float32(noise) * random.standard_normal(blurred.shape, dtype=np.float32)
    return np.rint(blurred.clip(0, 1) * np.float32(255)) / np.float32(255)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] to linear light (IEC 61966-2-1), float32."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB values, float32."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


class ShakenPhotographs(Dataset[dict[str, Tensor]]):
    """Crops of the training photographs, each with a kernel and noise of its own.

    Args:
        crop: side of the square crops in pixels.
        seed: of every random choice.
        length: crops per epoch.

    Item `(epoch, index)`:
        `{"blurred", "sharp"}`, each `(3, crop, crop)` float32 in [0, 1].

    Raises:
        UserError: scikit-image lacks a photograph, or the crop is larger than the smallest one.
    """

    def __init__(self, crop: int, seed: int, length: int = 1000) -> None:
        self.crop, self.seed, self.length = crop, seed, length
        self.photographs = [_photograph(name) for name in TRAINING_PHOTOGRAPHS]
        smallest = min(min(photograph.shape[:2]) for photograph in self.photographs)
        if not 1 <= crop <= smallest - 2 * _MARGIN:
            raise UserError(f"--crop {crop}: the demo's photographs allow 1 to {smallest - 2 * _MARGIN} pixels")
        self._linear = [to_linear(photograph) for photograph in self.photographs]
        areas = np.array([photograph.shape[0] * photograph.shape[1] for photograph in self.photographs])
        self._shares = areas / areas.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        which = int(random.choice(len(self.photographs), p=self._shares))
        side = self.crop + 2 * _MARGIN
        top, left = (int(random.integers(length - side + 1)) for length in self.photographs[which].shape[:2])
        turn, window = random_turn(random), (slice(top, top + side), slice(left, left + side))
        blurred = shake(turn(self._linear[which][window]), random_kernel(random), random.uniform(*NOISE), random)
        inner = slice(_MARGIN, _MARGIN + self.crop)
        return {"blurred": to_tensor(blurred), "sharp": to_tensor(turn(self.photographs[which][window])[inner, inner])}


def held_out_photographs(kernels: int = 2, height: int = 256, width: int = 384) -> list[dict[str, Any]]:
    """Blur the held-out photographs with held-out kernels, always the same ones, for scoring.

    Args:
        kernels: per photograph.
        height, width: of the window cut from the middle of each photograph.

    Returns:
        `{"name", "blurred", "sharp"}` as `fftformer.data.EvaluationPairs` gives them.
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
    """Read one of scikit-image's photographs from the installed package, `(H, W, 3)` sRGB in [0, 1]."""
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise UserError(f"{path}: scikit-image did not install this photograph; install scikit-image again")
    return to_float(read_picture(path).rgb)
