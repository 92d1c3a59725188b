"""What a checkpoint's surroundings say about the run that wrote it."""

from __future__ import annotations

from pathlib import Path

from common.config import recorded
from common.files import write_json


def test_the_run_around_a_model_folder_is_found(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"config": {"preset": "demo", "seed": 3}})
    (tmp_path / "model").mkdir()
    assert recorded(tmp_path / "model") == {"preset": "demo", "seed": 3}


def test_files_and_folders_from_elsewhere_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    (tmp_path / "model").mkdir()
    assert recorded(tmp_path / "weights.pth") == {"preset": "released"}
    assert recorded(tmp_path / "model") == {"preset": "unknown"}
    write_json(tmp_path / "config.json", ["no run"])
    assert recorded(tmp_path / "model") == {"preset": "unknown"}
