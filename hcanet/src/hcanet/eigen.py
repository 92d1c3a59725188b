"""Eigen-images: an input of the network for training on few scenes with many bands.

The spectra of a scene lie near a space of few dimensions. Bands are divided by their noise level, the mean is removed,
and the first few principal components are kept. In these images white noise has the standard deviation one, and most
of the noise is already removed. A network for these few images needs no groups of bands, is wide enough for all of them
(see `HCANet`, width and bands), and its input is similar for all sensors. Everything is computed from the noisy scene,
so a new scene needs no clean reference.

This is not part of the paper. It is the classical method of `classical.py` with the network instead of non-local means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from common.errors import UserError
from hcanet.noise import estimated_sigmas, neighbours_valid, second_differences

Box = tuple[slice, slice]

OUTLIERS = frozenset({"case2", "case3", "case4", "case5", "complex"})
"""Noise with stripes, dead lines or impulses, which are replaced before the eigen-images are computed."""


@dataclass(frozen=True, eq=False)
class EigenSpace:
    """The low-dimensional space of a scene's spectra.

    Attributes:
        vectors: `(bands, rank)`, orthonormal, largest variance first; each has a positive product with the mean.
        mean: `(bands, 1)`, mean of the bands divided by their scale.
        scale: `(bands, 1)`, the standard deviation of the noise, in units of the image.
    """

    vectors: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, sigmas: np.ndarray, rank: int, valid: np.ndarray | None = None) -> EigenSpace:
        """Compute the space of a noisy image.

        Args:
            image: `(bands, H, W)`.
            sigmas: noise level of every band on the scale of 0 to 255.
            rank: number of eigen-images.
            valid: `(H, W)` bool, the pixels that count; by default all.

        Raises:
            UserError: the image has fewer bands than `rank`.
        """
        _check(len(image), rank)
        scale = _scale(sigmas)
        spectra = image.reshape(len(image), -1) if valid is None else image[:, valid]
        spectra = spectra / scale
        mean = spectra.mean(axis=1, keepdims=True)
        centred = spectra - mean
        return cls._principal(centred @ centred.T, mean, scale, rank)

    @classmethod
    def _principal(cls, covariance: np.ndarray, mean: np.ndarray, scale: np.ndarray, rank: int) -> EigenSpace:
        vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :rank]
        # The sign of an eigenvector is arbitrary; it is chosen in the same way for every scene.
        return cls(vectors * np.where((vectors * mean).sum(axis=0) < 0, -1, 1), mean, scale)

    @classmethod
    def of_pieces(cls, pieces: Iterable[tuple[np.ndarray, np.ndarray, Box]], bands: int, rank: int) -> EigenSpace:
        """Compute the space of a noisy scene that is read in pieces; noise levels are estimated to 0.1 %.

        Args:
            pieces: for each piece `(bands, h, w)`, a part of the scene with one further row and column on every side
                inside the scene; `(h, w)` bool, its pixels with data; and the rectangle of the part in it.

        Raises:
            UserError: as in `of`, or no pixel holds data.
        """
        _check(bands, rank)
        edges = np.geomspace(0.01, 1000, 4097)  # bins of 0.3 %
        levels = np.zeros((bands, 4096), dtype=np.int64)
        count, total, products = 0, np.zeros((bands, 1)), np.zeros((bands, bands))
        for image, valid, inner in pieces:
            inside = neighbours_valid(valid)
            differences = (second_differences(band)[inside].clip(edges[0], edges[-1]) for band in image)
            levels += [np.histogram(values, edges)[0] for values in differences]
            spectra = image[:, *inner][:, valid[inner]].astype(np.float64)
            count += spectra.shape[1]
            total += spectra.sum(axis=1, keepdims=True)
            products += spectra @ spectra.T
        if not count:
            raise UserError("no pixel of the scene holds data; name another value with --no-data")
        bins = [np.searchsorted(found.cumsum(), found.sum() / 2) for found in levels]
        scale = _scale(np.sqrt(edges[:-1] * edges[1:])[bins])
        mean = total / count
        return cls._principal((products - count * mean @ mean.T) / (scale @ scale.T), mean / scale, scale, rank)

    def project(self, image: np.ndarray) -> np.ndarray:
        """`(bands, H, W)` → eigen-images `(rank, H, W)`."""
        spectra = image.reshape(len(image), -1) / self.scale - self.mean
        return (self.vectors.T @ spectra).reshape(-1, *image.shape[1:])

    def back(self, images: np.ndarray) -> np.ndarray:
        """Eigen-images `(rank, H, W)` → `(bands, H, W)`."""
        spectra = (self.vectors @ images.reshape(len(images), -1) + self.mean) * self.scale
        return spectra.reshape(-1, *images.shape[1:])


def _check(bands: int, rank: int) -> None:
    if bands < rank:
        raise UserError(f"the scene has {bands} bands, too few for {rank} eigen-images")


def _scale(sigmas: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(sigmas, dtype=np.float64) / 255, 1e-4)[:, None]


def without_outliers(
    noisy: np.ndarray, sigmas: np.ndarray, rank: int = 5, *, rounds: int = 8, limit: float = 2.5
) -> np.ndarray:
    """Replace values of `(bands, H, W)` that lie far from an estimate of low rank.

    Starts from the 5 × 5 median of each band. In every round, values that differ by more than `limit` robust standard
    deviations from the estimate of rank `rank` are replaced by it.
    """
    cleaned = ndimage.median_filter(noisy, size=(1, 5, 5))
    for _ in range(rounds):
        space = EigenSpace.of(cleaned, sigmas, min(rank, len(noisy)))
        estimate = space.back(space.project(cleaned))
        residual = noisy - estimate
        robust = np.median(np.abs(residual), axis=(1, 2), keepdims=True) / 0.6745
        cleaned = np.where(np.abs(residual) > limit * robust, estimate, noisy)
    return cleaned


def eigen_images(
    noisy: np.ndarray, rank: int, *, outliers: bool, valid: np.ndarray | None = None
) -> tuple[np.ndarray, EigenSpace]:
    """Return the eigen-images of a noisy scene, and the space that converts them back.

    Args:
        noisy: `(bands, H, W)`; the noise level of its bands is estimated.
        rank: number of eigen-images.
        outliers: replace outliers first.
        valid: `(H, W)` bool, the pixels with data.
    """
    sigmas = estimated_sigmas(noisy, valid)
    cleaned = without_outliers(noisy, sigmas) if outliers else noisy
    space = EigenSpace.of(cleaned, sigmas, rank, valid)
    return space.project(cleaned), space
