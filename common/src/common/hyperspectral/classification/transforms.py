"""Principal components of spectra, fitted once and stored with a model for prediction.

They equal scikit-learn's `PCA(n, whiten=True)`, which the releases use, with its choice of sign (largest loading
positive). Here the covariance matrix is diagonalised. It is computed from chunks of rows in float64, because a float64
copy of a scene would need four times the memory of its 16-bit file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import atomic_path

_CHUNK_VALUES = 1 << 20  # 8 MiB of float64


@dataclass(frozen=True, eq=False)
class SpectralTransform:
    """`y = (x − offset) · weight` for every pixel.

    Attributes:
        offset: `(bands,)` float64.
        weight: `(bands, components)` float64.
        explained: share of the variance that each component holds, `(components,)`.
        fitted_on: the pixels used for the fit, as text for reports.
    """

    offset: np.ndarray
    weight: np.ndarray
    explained: np.ndarray
    fitted_on: str

    def apply(self, cube: np.ndarray) -> np.ndarray:
        """Transform `(H, W, bands)` to `(H, W, components)` float32.

        Raises:
            UserError: the cube has another number of bands.
        """
        if cube.shape[-1] != len(self.offset):
            raise UserError(f"the cube has {cube.shape[-1]} bands but the transform was fitted on {len(self.offset)}")
        result = np.empty((*cube.shape[:2], self.weight.shape[1]), dtype=np.float32)
        step = _rows_at_once(cube)
        for row in range(0, len(cube), step):
            result[row : row + step] = (cube[row : row + step] - self.offset) @ self.weight
        return result

    def save(self, path: str | Path) -> None:
        """Write an `.npz` file, atomically."""
        with atomic_path(path) as temporary:
            np.savez(temporary, **asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> SpectralTransform:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(file["offset"], file["weight"], file["explained"], str(file["fitted_on"]))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected a spectral transform saved with a checkpoint") from None
        except Exception as error:  # numpy raises six types of errors for damaged archives
            raise UserError(f"{path}: is not a saved spectral transform ({error})") from error


def fit_pca(cube: np.ndarray, components: int, *, pixels: np.ndarray | None = None) -> SpectralTransform:
    """Fit principal components of the spectra, each scaled to unit variance (n − 1 in the denominator).

    Args:
        cube: `(H, W, bands)`, any real type.
        pixels: flat indices of the pixels to fit on; None: all pixels, labelled or not, as in the releases.

    Raises:
        UserError: more components than bands or pixels.
    """
    bands = cube.shape[-1]
    mean, covariance, count = _moments(cube, pixels)
    if not 1 <= components <= min(bands, count):
        raise UserError(
            f"{components} principal components asked for; expected 1 to {min(bands, count)}, "
            f"the scene has {bands} bands and {count} pixels to fit on"
        )
    variance, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:components]
    total, variance, vectors = variance.sum(), np.maximum(variance[order], 0), vectors[:, order]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(components)])
    # A constant direction has no variance; scikit-learn bounds the divisor in the same way.
    vectors = vectors / np.maximum(np.sqrt(variance), np.finfo(np.float64).eps)
    fitted_on = "all pixels" if pixels is None else f"{len(pixels)} pixels"
    return SpectralTransform(mean, vectors, variance / total if total else variance, fitted_on)


def _moments(cube: np.ndarray, pixels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean, covariance (n − 1) and number of spectra, in two passes, because one pass is inexact for large means."""
    bands = cube.shape[-1]
    count = cube.shape[0] * cube.shape[1] if pixels is None else len(pixels)
    mean = sum(chunk.sum(axis=0) for chunk in _chunks(cube, pixels)) / count
    covariance = np.zeros((bands, bands))
    for chunk in _chunks(cube, pixels):
        chunk -= mean  # noqa: PLW2901 - in place: the chunk is a copy
        covariance += chunk.T @ chunk
    return mean, covariance / max(count - 1, 1), count


def _chunks(cube: np.ndarray, pixels: np.ndarray | None) -> Iterator[np.ndarray]:
    """The spectra as float64 `(n, bands)` in pieces."""
    step = _rows_at_once(cube)
    spectra = cube.reshape(-1, cube.shape[-1])
    step *= cube.shape[1]
    for start in range(0, len(spectra) if pixels is None else len(pixels), step):
        part = slice(start, start + step)
        yield spectra[part if pixels is None else pixels[part]].astype(np.float64)


def _rows_at_once(cube: np.ndarray) -> int:
    return max(1, _CHUNK_VALUES // (cube.shape[1] * cube.shape[2]))
