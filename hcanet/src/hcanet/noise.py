"""Noise models of hyperspectral denoising: Gaussian of three kinds, stripes, dead lines, impulses and their mixture.

| case | noise |
|---|---|
| `gaussian` | one fixed σ for all bands |
| `blind` | one σ per cube, from a cycle or uniformly distributed, see `Framework` |
| `case1` | the σ of each band is drawn from a short list |
| `case2` | case 1, and in a third of the bands a constant is subtracted from some columns (stripes) |
| `case3` | case 1, and in a third of the bands some columns are 0 (dead lines) |
| `case4` | case 1, and in a third of the bands some values are 0 or 1 (impulses) |
| `case5` | case 1, and three disjoint thirds with stripes, dead lines and impulses |

Images are `(bands, H, W)` in [0, 1] and are not clipped afterwards; σ is on the scale of 0 to 255. "A third" is
floor(bands / 3) bands of one random permutation. Published code uses NumPy's global generator without a seed; here
every sample has its own generator, so that its noise is the same for any number of workers and processes.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from common.errors import UserError

Case = Literal["gaussian", "blind", "case1", "case2", "case3", "case4", "case5"]
CASES: tuple[Case, ...] = get_args(Case)
CYCLE = (10.0, 30.0, 50.0, 70.0)


@dataclass(frozen=True)
class Framework:
    """Parameters of noise that differ between the published training codes.

    Attributes:
        sigmas: the list from which case 1 draws the σ of every band.
        blind: the σ of `blind`: the next value of `CYCLE`, or uniform between its least and largest value.
        mixture_columns: least and largest share of columns with stripes or dead lines in case 5.
    """

    sigmas: tuple[float, ...]
    blind: Literal["cycle", "uniform"]
    mixture_columns: tuple[float, float]


FRAMEWORKS = {
    "mafnet": Framework((30.0, 50.0, 70.0), "cycle", (0.05, 0.10)),
    "qrnn3d": Framework(CYCLE, "cycle", (0.05, 0.15)),
    "sert": Framework(CYCLE, "uniform", (0.05, 0.15)),
}
"""Name → parameters: MAFNet's trainer (to which HCANet refers), QRNN3D, and SERT (also QRNN3D's blind test)."""

COLUMNS = (0.05, 0.15)
"""Least and largest share of columns in cases 2 and 3."""
IMPULSES = (0.1, 0.3, 0.5, 0.7)
"""Shares of values, from which one is drawn for each band in cases 4 and 5."""


@dataclass(frozen=True, eq=False)
class Noisy:
    """A noisy image and its noise.

    Attributes:
        image: `(bands, H, W)`, in the clean image's type, not clipped.
        sigmas: σ of every band, on the scale of 0 to 255.
        bands: "stripes", "dead lines", "impulses" → numbers of the bands with this noise.
    """

    image: np.ndarray
    sigmas: np.ndarray
    bands: dict[str, np.ndarray] = field(default_factory=dict)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one training sample."""
    return np.random.default_rng([seed, epoch, index])


def scene_generator(seed: int, scene: str) -> np.random.Generator:
    """Return the generator of one test scene, made from its name."""
    return np.random.default_rng([seed, zlib.crc32(scene.encode())])


def corrupt(
    clean: np.ndarray,
    case: str,
    generator: np.random.Generator,
    *,
    sigma: float = 50.0,
    framework: str = "mafnet",
    position: int = 0,
) -> Noisy:
    """Add noise to a clean image.

    Args:
        clean: `(bands, H, W)`, floating, in [0, 1]; it is not changed.
        case: one of `CASES`.
        sigma: σ of `gaussian`, on the scale of 0 to 255.
        framework: one of `FRAMEWORKS`.
        position: number of the sample, which determines the σ of `blind` in the cycle.

    Raises:
        UserError: the case or framework is unknown, or σ is negative.
    """
    settings = check(case, framework, sigma)
    bands = len(clean)
    if case == "gaussian":
        sigmas = np.full(bands, sigma)
    elif case == "blind":
        uniform = settings.blind == "uniform"
        one = generator.uniform(CYCLE[0], CYCLE[-1]) if uniform else CYCLE[position % len(CYCLE)]
        sigmas = np.full(bands, one)
    else:
        sigmas = np.asarray(settings.sigmas)[generator.integers(len(settings.sigmas), size=bands)]
    # In the image's own type, which avoids a float64 copy of a whole scene.
    noise: np.ndarray = generator.standard_normal(
        clean.shape, dtype=np.float32 if clean.dtype == np.float32 else np.float64
    )
    noise *= (sigmas / 255).astype(noise.dtype)[:, None, None]
    image = np.add(noise, clean, out=noise)
    if case in ("gaussian", "blind", "case1"):
        return Noisy(image, sigmas)
    third = generator.permutation(bands), bands // 3
    chosen = [third[0][i * third[1] : (i + 1) * third[1]] for i in range(3)]
    hit: dict[str, np.ndarray] = {}
    if case in ("case2", "case5"):
        hit["stripes"] = chosen[0]
        _stripes(image, chosen[0], COLUMNS if case == "case2" else settings.mixture_columns, generator)
    if case in ("case3", "case5"):
        hit["dead lines"] = chosen[0 if case == "case3" else 1]
        _dead_lines(image, hit["dead lines"], COLUMNS if case == "case3" else settings.mixture_columns, generator)
    if case in ("case4", "case5"):
        hit["impulses"] = chosen[0 if case == "case4" else 2]
        _impulses(image, hit["impulses"], generator)
    return Noisy(image, sigmas, hit)


def check(case: str, framework: str, sigma: float = 0.0) -> Framework:
    """Check the parameters of noise and return the framework.

    Raises:
        UserError: a name is unknown, or σ is negative or not finite.
    """
    if case not in CASES:
        raise UserError(f"noise case {case} does not exist; choose one of {', '.join(CASES)}")
    if framework not in FRAMEWORKS:
        raise UserError(f"noise framework {framework} does not exist; choose one of {', '.join(FRAMEWORKS)}")
    if not 0 <= sigma < math.inf:
        raise UserError(f"sigma {sigma:g} cannot be; expected a number from 0 upwards, on the scale of 0 to 255")
    return FRAMEWORKS[framework]


def estimated_sigmas(image: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Estimate the noise level of every band, on the scale of 0 to 255, from the image alone.

    The estimate is the median absolute second difference across rows and columns: smooth structure cancels, and few
    outliers do not matter. Fine texture counts as noise, so the estimate of a clean scene is slightly above 0.

    Args:
        image: `(bands, H, W)`, of at least 3 × 3 pixels.
        valid: `(H, W)` bool, the pixels that count; by default all.

    Returns:
        `(bands,)`.
    """
    inside: Any = slice(None)
    if valid is not None and (some := neighbours_valid(valid)).any():
        inside = some
    return np.array([np.median(second_differences(band)[inside]) for band in image])


def second_differences(band: np.ndarray) -> np.ndarray:
    """Second differences of a band `(H, W)` → `(H − 2, W − 2)`, whose median is σ (of 255) for white noise."""
    kernel = np.array([1.0, -2.0, 1.0])
    weights = np.outer(kernel, kernel)
    scale = 0.6745 * np.sqrt((weights**2).sum())
    return 255 * np.abs(ndimage.convolve(band.astype(float), weights)[1:-1, 1:-1]) / scale


def neighbours_valid(valid: np.ndarray) -> np.ndarray:
    """Where `second_differences` uses only pixels with data: `(H, W)` bool → `(H − 2, W − 2)`."""
    return ndimage.binary_erosion(valid, np.ones((3, 3)))[1:-1, 1:-1]


def _columns(
    image: np.ndarray, bands: np.ndarray, least: int, limit: int, generator: np.random.Generator
) -> list[tuple[int, np.ndarray]]:
    """Draw (band, columns) with `least` to `limit` − 1 columns each, or `least` if that range is empty."""
    counts = generator.integers(least, max(limit, least + 1), size=len(bands))
    return [
        (int(band), generator.permutation(image.shape[2])[:count]) for band, count in zip(bands, counts, strict=True)
    ]


def _stripes(image: np.ndarray, bands: np.ndarray, shares: tuple[float, float], generator: np.random.Generator) -> None:
    least, limit = (math.floor(share * image.shape[2]) for share in shares)
    for band, columns in _columns(image, bands, least, limit, generator):
        image[band][:, columns] -= generator.uniform(-0.25, 0.25, len(columns)).astype(image.dtype)


def _dead_lines(
    image: np.ndarray, bands: np.ndarray, shares: tuple[float, float], generator: np.random.Generator
) -> None:
    least, limit = (math.ceil(share * image.shape[2]) for share in shares)
    for band, columns in _columns(image, bands, least, limit, generator):
        image[band][:, columns] = 0


def _impulses(image: np.ndarray, bands: np.ndarray, generator: np.random.Generator) -> None:
    ratios = np.asarray(IMPULSES)[generator.integers(len(IMPULSES), size=len(bands))]
    for band, ratio in zip(bands, ratios, strict=True):
        hit = generator.random(image.shape[1:]) < ratio
        image[band][hit] = generator.integers(2, size=int(hit.sum()))
