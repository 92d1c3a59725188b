"""Scale a scene's values to [0, 1], and back to the file's type.

Publications divide by a constant (CAVE 65,535, Pavia Centre 8,000) or by the maximum (Chikusei, Harvard). Scenes with
single bright outliers need a percentile: ABU's urban-4 has one pixel that is three times as bright as all others, and
division by its value would leave all other values below a third.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import UserError

Rule = Literal["percentile", "maximum", "constant"]


@dataclass(frozen=True)
class Scaling:
    """How a scene's values are scaled.

    Attributes:
        rule: the divisor is a "percentile" of all values of a scene, their "maximum", or a "constant".
        value: the percentile (0 to 100) or the constant; unused for the maximum.
    """

    rule: Rule
    value: float = 0.0

    def divisor(self, cube: np.ndarray, source: str = "the scene") -> float:
        """Return the number by which the scene's values are divided.

        Args:
            cube: `(H, W, bands)`, any real type.

        Raises:
            UserError: a value is not finite, no value is positive, or `self.value` is out of range.
        """
        if self.rule == "percentile" and not 0 < self.value <= 100:
            raise UserError(f"--scaling-value {self.value:g}: expected a percentile above 0 and of at most 100")
        if self.rule == "constant" and not self.value > 0:
            raise UserError(f"--scaling-value {self.value:g}: expected a constant above 0 to divide by")
        if cube.dtype.kind == "f" and not np.isfinite(cube).all():
            bad = np.flatnonzero(~np.isfinite(cube).all(axis=(0, 1)))
            raise UserError(
                f"{source}: holds NaN or infinity in {len(bad)} of {cube.shape[2]} bands (counted from 0, first "
                f"{bad[0]}); fill these pixels or remove the bands"
            )
        if self.rule == "constant":
            found = self.value
        else:
            found = float(cube.max() if self.rule == "maximum" else np.percentile(cube, self.value))
        if not found > 0:
            raise UserError(
                f"{source}: values reach {found:g} only; expected positive values (radiance or reflectance)"
            )
        return found


def scaled(values: np.ndarray, divisor: float) -> np.ndarray:
    """Divide and clip to [0, 1], float32; small negative values, left by sensor corrections, become 0."""
    return np.clip(values.astype(np.float32) / np.float32(divisor), 0, 1)


def restored(values: np.ndarray, divisor: float, dtype: np.dtype) -> np.ndarray:
    """Undo `scaled` and convert to a file's type; integers are rounded and clipped to its range."""
    values = values.astype(np.float64) * divisor
    if dtype.kind == "f":
        return values.astype(dtype)
    if dtype.kind == "b":
        return values >= 0.5
    limits = np.iinfo(dtype)
    # float64 cannot hold the largest int64: clip to the largest float below it.
    top = min(float(limits.max), np.nextafter(2.0**63, 0)) if dtype.itemsize == 8 else float(limits.max)
    return np.clip(np.rint(values), float(limits.min), top).astype(dtype)


def read_scaling(path: Path) -> Scaling:
    """Read a `scaling.json`.

    Raises:
        UserError: the file is damaged, or the rule is unknown.
    """
    try:
        scaling = Scaling(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: does not describe a scaling ({error})") from None
    if scaling.rule not in ("percentile", "maximum", "constant"):
        raise UserError(f"{path}: has the rule {scaling.rule!r}; expected percentile, maximum or constant")
    return scaling
