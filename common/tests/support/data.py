"""Real data for tests: an environment variable names its folder; without it these tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Return the folder of a real data set under `$FULLPAPER_DATA`, or skip the test and say so."""
    root = os.environ.get("FULLPAPER_DATA")
    if not root:
        pytest.skip(f"real data: set FULLPAPER_DATA to a folder that holds {name}/")
    folder = Path(root) / name
    if not folder.exists():
        pytest.skip(f"real data: {folder} does not exist")
    return folder
