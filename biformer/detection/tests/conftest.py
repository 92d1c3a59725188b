"""A small data set in COCO's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from biformer.detection.demo import write_demo


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("coco"), training=6, validation=4)
