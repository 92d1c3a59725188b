"""Written scenes: georeferences of other pixel sizes, and types that a format lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.hyperspectral.envi import read_header
from common.hyperspectral.stored import Georeference
from common.hyperspectral.writing import check_type, scaled_georeference, write_scene


@pytest.mark.parametrize("point", [False, True])
def test_the_place_of_a_geotiff_goes_into_an_envi_header(point: bool, tmp_path: Path) -> None:
    """The upper left corner stays; with key 1025 = 2 a tie point is the first pixel's centre."""
    keys = (1, 1, 0, 2, 1025, 0, 1, 2 if point else 1, 3072, 0, 1, 32654)
    shift = 15 if point else 0
    tags = {33550: (30.0, 30.0, 0.0), 33922: (0.0, 0.0, 0.0, 500000.0 + shift, 4200000.0 - shift, 0.0), 34735: keys}
    write_scene(tmp_path / "large.hdr", np.zeros((4, 4, 2), np.uint8), 2, georeference=Georeference(tags))
    name, column, row, x, y, width, height, *rest = read_header(tmp_path / "large.hdr")["map info"].split(", ")
    corner = float(x) - (float(column) - 1) * float(width), float(y) + (float(row) - 1) * float(height)
    assert corner == (500000, 4200000) and (width, height) == ("15", "15")
    assert (name, rest[:2]) == ("UTM", ["54", "North"])


def test_a_type_that_the_format_lacks_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ENVI has no type float16"):
        check_type(tmp_path / "x.hdr", np.dtype(np.float16))


def test_a_transformation_matrix_scales_too(tmp_path: Path) -> None:
    matrix = (30.0, 1.0, 0, 500.0, 2.0, -30.0, 0, 900.0, 0, 0, 0, 0, 0, 0, 0, 1)
    scaled = scaled_georeference(Georeference({34264: matrix}), 2).tags[34264]
    assert scaled[:8] == (15.0, 0.5, 0, 500.0, 1.0, -15.0, 0, 900.0) and scaled[15] == 1
    centred = {34264: matrix, 34735: (1, 1, 0, 1, 1025, 0, 1, 2)}
    scaled = scaled_georeference(Georeference(centred), 2).tags[34264]
    # The corner, half a pixel before the first centre, stays: 500 − (30 + 1) / 2.
    assert scaled[3] - (scaled[0] + scaled[1]) / 2 == 500 - 31 / 2
    assert scaled[7] - (scaled[4] + scaled[5]) / 2 == 900 - (2 - 30) / 2
    with pytest.raises(UserError, match="unknown kind of file"):
        write_scene(tmp_path / "x.png", np.zeros((2, 2, 2)), 2)
