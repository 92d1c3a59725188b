"""One array of a file, with the file's metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Georeference:
    """The georeference of an image as GeoTIFF tags.

    Attributes:
        tags: number → values: 33550 pixel size, 33922 tie point, 34264 matrix, 34735 keys of the
            coordinate system, 34736 and 34737 their numbers and texts.
    """

    tags: dict[int, tuple[float, ...] | str]


@dataclass(frozen=True)
class Stored:
    """One array of a file.

    Attributes:
        values: `(rows, columns)` or `(rows, columns, bands)`, in the file's own type.
        source: FILE or FILE:KEY, for messages.
        wavelengths: band centres in nm, `(bands,)`, or None.
        no_data: the value that the file declares for pixels without data, or None.
        mask: `(rows, columns)` bool, where the file's own mask says that there are data, or None.
        bands: where they are: "last" when the format says it and they lie there; "pages" for the pages of a
            TIFF, which come first as stored, but are rows when NumPy's `(rows, columns, bands)` was written
            page by page; None when the format does not say.
        notes: what a user should know, one sentence each without full stop.
    """

    values: np.ndarray
    source: str
    wavelengths: np.ndarray | None = None
    georeference: Georeference | None = None
    no_data: float | None = None
    mask: np.ndarray | None = None
    bands: Literal["last", "pages"] | None = None
    notes: tuple[str, ...] = ()
