"""The Fourier transform of 8×8 patches as a product with a constant matrix.

FFTformer (Kong et al., CVPR 2023, arXiv 2211.12250) takes `rfft2` of every 8×8 patch. A real patch has 64
independent real coefficients: 34 distinct frequencies, of which 30 have both a cosine and a sine. Here every patch
is multiplied by one 64×64 matrix of cosines and sines. This needs no complex numbers, no other memory layout and no
FFT library, and can be exported to ONNX. The results equal those of `rfft2` and `irfft2` up to rounding.

The tensors of this module are "patch maps" of shape `(64, N, C)`: position inside the patch (or coefficient), patch,
channel. So one transform is one matrix product `(64, 64) @ (64, N · C)`, and a 1×1 convolution is one product on the
last axis.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

PATCH = 8
# Order of the 64 coefficients of a patch; u and v are the frequencies along y and x:
#
#   rows      u     v      what
#   0 to 5    even  even   sine (minus the imaginary part) of the frequencies of rows 10 to 15
#   6 to 9    even  even   the four frequencies that are real: u and v are 0 or 4
#   10 to 15  even  even   cosine (real part)
#   16 to 31  even  odd    eight cosines, then the sines of the same frequencies
#   32 to 47  odd   even   likewise
#   48 to 63  odd   odd    likewise
#
# Four rows further down, a wave of even u has the same value and a wave of odd u the opposite, and four columns further
# right so with v; see `quarter_matrices`.
QUARTER = PATCH * PATCH // 4
REAL_ONLY = slice(6, 10)
COSINE_SINE_ROWS = (
    (slice(10, 16), slice(0, 6)),
    (slice(16, 24), slice(24, 32)),
    (slice(32, 40), slice(40, 48)),
    (slice(48, 56), slice(56, 64)),
)

_HALF = PATCH // 2


def _frequencies(u_parity: int, v_parity: int) -> list[tuple[int, int]]:
    # The (u, v) that have a sine. The columns v of `rfft2` are 0 to 4. In columns 0 and 4 the entries of u = 5, 6, 7
    # are the conjugates of those of u = 3, 2, 1; in columns 1 to 3 all entries are independent.
    found = [(u, v) for v in (0, _HALF) for u in range(1, _HALF)]
    found += [(u, v) for v in range(1, _HALF) for u in range(PATCH)]
    return [(u, v) for u, v in found if (u % 2, v % 2) == (u_parity, v_parity)]


@functools.cache
def _constants() -> dict[str, np.ndarray]:
    even = _frequencies(0, 0)
    real_only = [(u, v) for v in (0, _HALF) for u in (0, _HALF)]
    frequencies = even + real_only + even
    sines = [True] * len(even) + [False] * (len(real_only) + len(even))
    for parities in ((0, 1), (1, 0), (1, 1)):
        both = _frequencies(*parities)
        frequencies += both + both
        sines += [False] * len(both) + [True] * len(both)
    u, v = np.array(frequencies).T
    y, x = np.divmod(np.arange(PATCH * PATCH), PATCH)
    phase = 2 * np.pi / PATCH * (np.outer(u, y) + np.outer(v, x))
    analysis = np.where(np.array(sines)[:, None], np.sin(phase), np.cos(phase))
    # All phases are multiples of an eighth of a circle; values that are zero but for rounding become exactly zero.
    analysis[np.abs(analysis) < 1e-12] = 0.0
    share = np.full(len(analysis), 2 / PATCH**2)
    share[REAL_ONLY] = 1 / PATCH**2
    # `irfft2` drops the imaginary part of columns 0 and 4. There only the mean of the entries u and -u of the learned
    # matrix has an effect; in the other columns a frequency has one entry.
    gather = np.zeros((len(frequencies), PATCH * (_HALF + 1)))
    for row, (u_, v_) in enumerate(frequencies):
        mirrored = -u_ % PATCH if v_ in (0, _HALF) else u_
        gather[row, u_ * (_HALF + 1) + v_] += 0.5
        gather[row, mirrored * (_HALF + 1) + v_] += 0.5
    return {"analysis": analysis, "synthesis": (analysis * share[:, None]).T, "gather": gather}


@functools.lru_cache(maxsize=64)
def _cached(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Not in inference mode: a cached tensor made there could not be used in training later.
    with torch.inference_mode(False), torch.no_grad():
        return torch.tensor(_constants()[name], dtype=dtype, device=device)


def _constant(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _cached(name, dtype, device)


# The same as the decorator `torch.compiler.assume_constant_result`, which would import torch's compiler here.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


def constant(name: str, like: Tensor) -> Tensor:
    """One of the constant matrices, in the type and on the device of `like`.

    `"analysis"` (64, 64): pixels → coefficients, not normalised, as `rfft2`. `"synthesis"` (64, 64): the inverse of
    it. `"gather"` (64, 40): the entries of a learned 8×5 matrix → the factor of every coefficient.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # an exported program has its own copy
        return torch.tensor(_constants()[name], dtype=like.dtype, device=like.device)
    return _constant(name, like.dtype, like.device)


def quarter_matrices(name: str, like: Tensor, *, transposed: bool = False) -> Tensor:
    """Matrices `(4, 16, 16)` for even and odd u and v and the upper left quarter of the pixels: a quarter of the work.

    Let a be the sum of the upper left and the lower left pixels, and b the same on the right. The "analysis" matrices
    turn a + b into the coefficients of even u and v, and a - b into those of even u and odd v. For odd u, a and b are
    the differences of upper and lower pixels. The "synthesis" matrices turn the coefficients into these four sums and
    differences, divided by four. `transposed` gives the matrices of the transposed transforms.
    """
    matrix = constant(name, like)
    if name == "synthesis":
        matrix = matrix.t()
    corner = matrix.unflatten(1, (PATCH, PATCH))[:, :_HALF, :_HALF].reshape(4, QUARTER, QUARTER)
    return corner.transpose(1, 2) if (name == "synthesis") != transposed else corner


def to_patches(x: Tensor) -> Tensor:
    """`(B, H, W, C)` → `(64, N, C)`, the N = B · H/8 · W/8 patches row by row."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, c)
    return x.permute(2, 4, 0, 1, 3, 5).reshape(PATCH * PATCH, b * (h // PATCH) * (w // PATCH), c)


def from_patches(patches: Tensor, b: int, h: int, w: int) -> Tensor:
    """The inverse of `to_patches`: `(64, N, C)` → `(b, h, w, C)`."""
    c = patches.shape[-1]
    x = patches.reshape(PATCH, PATCH, b, h // PATCH, w // PATCH, c)
    return x.permute(2, 3, 0, 4, 1, 5).reshape(b, h, w, c)


def analyse(patches: Tensor, *, transposed: bool = False) -> Tensor:
    """Pixels → coefficients of a patch map `(64, N, C)`; or the transposed product, for gradients."""
    return _transform("analysis", patches, transposed)


def synthesise(coefficients: Tensor, *, transposed: bool = False) -> Tensor:
    """Coefficients → pixels of a patch map `(64, N, C)`; or the transposed product, for gradients."""
    return _transform("synthesis", coefficients, transposed)


def _transform(name: str, patches: Tensor, transposed: bool) -> Tensor:
    matrix = constant(name, patches)
    return ((matrix.t() if transposed else matrix) @ patches.flatten(1)).view(patches.shape)


def filter_factors(fft: Tensor) -> Tensor:
    """Learned matrices `(C, 1, 1, 8, 5)` for `rfft2` → real factors `(64, 1, C)` of the coefficients."""
    return (constant("gather", fft) @ fft.flatten(1).t()).unsqueeze(1)


def multiply(a: Tensor, b: Tensor, *, conjugate: bool = False) -> Tensor:
    """Product of two spectra `(64, N, C)`, a circular convolution of the pixels; `conjugate` conjugates b."""
    sign = -1.0 if conjugate else 1.0
    pairs = []
    for cosines, sines in COSINE_SINE_ROWS:
        real = a[cosines] * b[cosines] - sign * (a[sines] * b[sines])
        pairs.append((real, a[sines] * b[cosines] + sign * (a[cosines] * b[sines])))
    (real, imaginary), *others = pairs
    return torch.cat([imaginary, a[REAL_ONLY] * b[REAL_ONLY], real, *itertools.chain(*others)])
