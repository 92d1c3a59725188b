"""Superpixel graph of a hyperspectral scene (Zhou et al., AMGCFN, IEEE TGRS 2023, section III-A).

cube → 3 principal components of the training pixels → SLIC superpixels → one node per
superpixel with its mean colour → weighted neighbour graph → k-hop graphs.

The results equal those of the release, but a label per pixel replaces the assignment matrix, array operations replace
loops over windows and paths, and hop graphs are sparse. `literal.py` has the loops; the tests compare both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import ndimage, sparse
from skimage.segmentation import slic
from torch import Tensor

from amgcfn.hops import hop_graphs, sparse_tensor
from common.errors import UserError
from common.files import atomic_path
from common.hyperspectral.classification.transforms import SpectralTransform
from common.hyperspectral.no_data import extent_of

FloatArray: TypeAlias = np.ndarray
SIGMA = 5.0
PIXELS_PER_SUPERPIXEL = 100


@dataclass(frozen=True)
class SuperpixelGraph:
    """The network's input besides the cube.

    Attributes:
        segments: `(H, W)` int64, the superpixel of each pixel, contiguous from 0.
        features: `(N, F)` float64, mean of the standardised components over each superpixel.
        adjacency: `(N, N)` sparse, symmetric, no self loops, weights in (0, 1].
        hops: for k = 1, 2, ...: `(N, N)` sparse, symmetric, 1 on the diagonal.
    """

    segments: np.ndarray
    features: FloatArray
    adjacency: sparse.csr_array
    hops: tuple[sparse.csr_array, ...]

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the last three arguments of `AMGCFN.forward`: float32 features, segments, sparse hops."""
        features = torch.from_numpy(self.features).float().to(device)
        hops = [sparse_tensor(hop).to(device) for hop in self.hops]
        return features, torch.from_numpy(self.segments).to(device), hops

    def save(self, path: str | Path, **metadata: str) -> None:
        """Write one safetensors file, atomically; `load` returns `metadata`."""
        arrays = {"segments": self.segments, "features": self.features}
        for name, matrix in [("adjacency", self.adjacency), *((f"hop{k}", hop) for k, hop in enumerate(self.hops, 1))]:
            entries = matrix.tocoo()
            arrays |= {f"{name}.indices": np.stack(entries.coords).astype(np.int64), f"{name}.values": entries.data}
        with atomic_path(path) as temporary:
            save_file(arrays, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path) -> tuple[SuperpixelGraph, dict[str, str]]:
        """Read what `save` wrote, and its metadata.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        try:
            with safe_open(path, framework="np") as file:
                names, metadata = file.keys(), file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in names}
            count = len(arrays["features"])

            def matrix(name: str) -> sparse.csr_array:
                entries = arrays[f"{name}.values"], tuple(arrays[f"{name}.indices"])
                return sparse.csr_array(entries, shape=(count, count))

            hops = tuple(matrix(f"hop{k}") for k in range(1, 1 + sum(name.startswith("hop") for name in arrays) // 2))
            return cls(arrays["segments"], arrays["features"], matrix("adjacency"), hops), metadata
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected a superpixel graph saved beside a model") from None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise UserError(f"{path}: is not a saved superpixel graph ({error})") from None


def build_graph(
    cube: np.ndarray,
    components: SpectralTransform,
    *,
    valid: np.ndarray | None = None,
    hops: int = 3,
    sigma: float = SIGMA,
    pixels_per_superpixel: int = PIXELS_PER_SUPERPIXEL,
    rescale: bool = False,
) -> SuperpixelGraph:
    """Build the published graph of a scene.

    Args:
        cube: `(H, W, bands)`, finite, any unit; pixels without data are filled from their neighbours.
        components: principal components, in the release those of the training pixels:
            `common.hyperspectral.classification.transforms.fit_pca(cube, 3, pixels=split.train)`.
        valid: `(H, W)` bool, the pixels with data; None: all. Other pixels do not contribute to means and edges; they
            get the superpixel of the nearest pixel with data. A border without data has no influence on the graph.
        hops: number of hop graphs.
        sigma: scale of the edge weight, in standard deviations of the components.
        pixels_per_superpixel: 100 in the paper.
        rescale: see `superpixels`.

    Raises:
        UserError: values are not finite, or the scene gives fewer than two superpixels.
    """
    valid = np.ones(cube.shape[:2], dtype=bool) if valid is None else valid
    extent = extent_of(valid)
    around = [(side.start, size - side.stop) for side, size in zip(extent, valid.shape, strict=True)]
    cube, valid = cube[extent], valid[extent]
    colours = standardise(components.apply(cube), valid)
    if not np.isfinite(colours).all():
        bad = int((~np.isfinite(colours).all(axis=2)).sum()) or colours[..., 0].size
        raise UserError(f"the cube holds NaN or infinite values in {bad} pixels; fill them or leave their bands out")
    segments = superpixels(colours, pixels_per_superpixel=pixels_per_superpixel, rescale=rescale)
    segments = _without_empty(segments, valid)
    features = superpixel_means(colours, segments, valid)
    adjacency = superpixel_adjacency(segments, features, valid, sigma=sigma)
    segments = np.pad(segments, around, mode="edge")
    return SuperpixelGraph(segments, features, adjacency, tuple(hop_graphs(adjacency, hops)))


def standardise(components: FloatArray, valid: np.ndarray | None = None) -> FloatArray:
    """Return `(H, W, F)` float64 with mean 0 and variance 1 per channel over all pixels with data, as released."""
    values = components.astype(np.float64)
    counted = values.reshape(-1, values.shape[2]) if valid is None else values[valid]
    spread = counted.std(axis=0)
    # A constant component stays 0 instead of becoming NaN.
    return (values - counted.mean(axis=0)) / np.where(spread > 0, spread, 1)


def superpixels(
    colours: FloatArray, *, pixels_per_superpixel: int = PIXELS_PER_SUPERPIXEL, rescale: bool = False
) -> np.ndarray:
    """Segment a scene into about H·W / 100 superpixels with the published SLIC settings.

    The published compactness of 1 depends on the scale of the colours. Until version 0.18 scikit-image did not scale
    them; here they are in standard deviations. Since 0.19 it first maps them to [0, 1], which makes superpixels nearly
    square. This function reverses that scaling.

    Args:
        colours: `(H, W, F)`, standardised.
        rescale: do not reverse the scaling; the released code does the same with versions from 0.19.

    Returns:
        `(H, W)` int64 labels, contiguous from 0.

    Raises:
        UserError: the scene gives fewer than two superpixels.
    """
    height, width, _ = colours.shape
    labels = slic(
        colours,
        n_segments=max(1, height * width // pixels_per_superpixel),
        compactness=1.0 if rescale else 1.0 / max(float(np.ptp(colours)), 1e-12),
        max_num_iter=20,
        sigma=1,
        convert2lab=False,
        enforce_connectivity=True,
        min_size_factor=0.1,
        max_size_factor=2,
        slic_zero=False,
        start_label=0,
    )
    _, segments = np.unique(labels, return_inverse=True)
    segments = segments.reshape(height, width).astype(np.int64)
    if segments.max() < 1:
        raise UserError(
            f"the scene of {height}×{width} pixels gives one superpixel and so no graph; "
            f"use a scene of at least {2 * pixels_per_superpixel} pixels that is not constant"
        )
    return segments


def _without_empty(segments: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Give pixels without data the superpixel of the nearest pixel with data, so that every superpixel holds data."""
    if valid.all():
        return segments
    rows, columns = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    kept, numbered = np.unique(segments[rows, columns], return_inverse=True)
    if len(kept) < 2:
        raise UserError(
            "the pixels with data lie in one superpixel and so give no graph; lower --pixels-per-superpixel"
        )
    return numbered.reshape(segments.shape).astype(np.int64)


def superpixel_means(values: FloatArray, segments: np.ndarray, valid: np.ndarray | None = None) -> FloatArray:
    """Average `(H, W, F)` values over each superpixel: `S = Qᵀ_normalised · values`, without Q.

    Args:
        valid: the pixels that count; every superpixel contains such pixels.

    Returns:
        `(N, F)` float64.
    """
    counted = slice(None) if valid is None else valid.reshape(-1)
    labels = segments.reshape(-1)[counted]
    count = np.bincount(labels)
    flat = values.reshape(segments.size, -1)[counted]
    return np.stack([np.bincount(labels, channel) for channel in flat.T], axis=1) / count[:, None]


def superpixel_adjacency(
    segments: np.ndarray, features: FloatArray, valid: np.ndarray | None = None, *, sigma: float = SIGMA
) -> sparse.csr_array:
    """Join superpixels that share a 2×2 window, with weight `exp(-‖S_i − S_j‖² / σ²)`.

    As released, a window joins only its smallest and its largest label, and no window starts in the last two rows or
    columns. The paper joins all superpixels that touch.

    Args:
        segments: `(H, W)` labels, contiguous from 0.
        features: `(N, F)`.
        valid: `(H, W)` bool; only windows in which it is true everywhere join superpixels.

    Returns:
        `(N, N)` symmetric, without self loops.
    """
    count = len(features)
    corners = _windows(segments)
    low, high = corners.min(axis=0), corners.max(axis=0)
    joined = low != high
    if valid is not None:
        joined &= _windows(valid).all(axis=0)
    low, high = np.divmod(np.unique(low[joined] * count + high[joined]), count)
    weight = np.exp(-((features[low] - features[high]) ** 2).sum(axis=1) / sigma**2)
    rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
    return sparse.csr_array((np.concatenate([weight, weight]), (rows, columns)), shape=(count, count))


def _windows(pixels: np.ndarray) -> np.ndarray:
    """The four corners of the 2×2 windows that the release visits, `(4, H - 2, W - 2)`."""
    return np.stack([pixels[:-2, :-2], pixels[1:-1, :-2], pixels[:-2, 1:-1], pixels[1:-1, 1:-1]])
