"""The content of a file as one array with metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Georeference:
    """The georeference of an image as GeoTIFF tags.

    Attributes:
        tags: tag number → values: 33550 pixel size, 33922 tie point, 34264 transformation matrix, 34735 keys of the
            coordinate system, 34736 and 34737 the numbers and texts of these keys.
    """

    tags: dict[int, tuple[float, ...] | str]


@dataclass(frozen=True)
class Stored:
    """One array of a file, with the file's metadata.

    Attributes:
        values: `(rows, columns)` or `(rows, columns, bands)`, in the file's own type.
        source: FILE or FILE:KEY, for messages.
        wavelengths: band centres in nm, `(bands,)`, or None.
        no_data: the value that the file declares for pixels without data, or None.
        mask: `(rows, columns)` bool, true where the file's own mask marks data, or None.
        bands: the axis of the bands: "last" if the format determines it; "pages" if the first axis are the pages of
            a TIFF, which usually are bands, but are rows if a program wrote `(rows, columns, bands)` page by page;
            None if the format does not tell.
        notes: what a user should know, one sentence each, without a full stop.
    """

    values: np.ndarray
    source: str
    wavelengths: np.ndarray | None = None
    georeference: Georeference | None = None
    no_data: float | None = None
    mask: np.ndarray | None = None
    bands: Literal["last", "pages"] | None = None
    notes: tuple[str, ...] = ()
