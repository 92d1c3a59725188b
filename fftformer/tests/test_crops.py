"""The crop cache has the same crops as the files, can be resumed, is verified, and bad files are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from fftformer.crops import MANIFEST, prepare
from fftformer.data import Pair, TrainingPairs
from fftformer.layouts import find_layout, find_pairs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "gopro"
    for number in range(4):
        for side in ("blur", "sharp"):
            path = root / f"train/GOPR000{number % 2}_11_00/{side}/{number:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, side == "blur"]).integers(256, size=(48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def cache(source: Path, tmp_path: Path) -> Path:
    assert list(prepare(find_pairs(source, "train"), tmp_path / "cache/train", workers=1)) == [True] * 4
    return tmp_path / "cache"


def test_cached_crops_equal_those_of_the_files(source: Path, cache: Path) -> None:
    assert find_layout(cache, "train") == "crops"
    files = TrainingPairs(find_pairs(source, "train"), crop=24, seed=1)
    cached = TrainingPairs(find_pairs(cache, "train"), crop=24, seed=1)
    assert [pair.name for pair in files.pairs] == [pair.name for pair in cached.pairs]
    for key in [(epoch, index) for epoch in range(5) for index in range(4)]:
        for side in ("blurred", "sharp"):
            assert torch.equal(files[key][side], cached[key][side])
    assert isinstance(np.load(cached.pairs[0].blurred, mmap_mode="r"), np.memmap)


def test_restart_makes_only_what_is_missing_or_damaged(source: Path, cache: Path) -> None:
    pairs, folder = find_pairs(source, "train"), cache / "train"
    before = {path: path.read_bytes() for path in folder.rglob("*.npy")}
    assert list(prepare(pairs, folder, workers=1)) == [False] * 4
    (folder / "blurred" / f"{pairs[1].name}.npy").unlink()
    cut = folder / "sharp" / f"{pairs[2].name}.npy"
    cut.write_bytes(cut.read_bytes()[:-100])
    changed = folder / "sharp" / f"{pairs[3].name}.npy"  # the right size, but another pixel value
    changed.write_bytes(changed.read_bytes()[:-1] + bytes([changed.read_bytes()[-1] ^ 1]))
    with pytest.raises(UserError, match="2 of 8 files are missing or truncated"):
        find_pairs(cache, "train")
    assert list(prepare(pairs, folder, workers=1)) == [False, True, True, True]
    assert {path: path.read_bytes() for path in folder.rglob("*.npy")} == before


def test_a_changed_source_is_stored_anew(source: Path, cache: Path) -> None:
    pairs = find_pairs(source, "train")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(pairs[0].sharp)
    assert list(prepare(pairs, cache / "train", workers=1)) == [True, False, False, False]
    assert not np.load(cache / "train/sharp" / f"{pairs[0].name}.npy").any()


def test_interrupted_run_continues(source: Path, tmp_path: Path) -> None:
    pairs, folder = find_pairs(source, "train"), tmp_path / "cache/train"
    unfinished = prepare(pairs, folder, workers=1)
    next(unfinished)
    unfinished.close()
    assert not (folder / MANIFEST).exists()
    with pytest.raises(UserError, match="not complete"):
        find_pairs(tmp_path / "cache", "train", "crops")
    with (folder / "progress.jsonl").open("a") as log:
        log.write('{"name": "GOPR0000_11_00/0000')  # an incomplete line, as a kill leaves it
    made = list(prepare(pairs, folder, workers=1))
    assert made[0] is False and made[-1] is True
    assert len(json.loads((folder / MANIFEST).read_text())["pairs"]) == 4
    assert not (folder / "progress.jsonl").exists()
    assert not list(folder.rglob("*.partial*"))


def test_damaged_source_is_named_and_nothing_pretends_to_be_complete(source: Path, tmp_path: Path) -> None:
    pairs = find_pairs(source, "train")
    data = bytearray(pairs[3].blurred.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pairs[3].blurred.write_bytes(data)
    with pytest.raises(UserError, match=f"{pairs[3].blurred.name}.*damaged"):
        list(prepare(pairs, tmp_path / "cache/train", workers=1))
    assert not (tmp_path / "cache/train" / MANIFEST).exists()


def test_different_sizes_are_refused(source: Path, tmp_path: Path) -> None:
    pair = find_pairs(source, "train")[0]
    Image.fromarray(np.zeros((48, 60, 3), np.uint8)).save(pair.sharp)
    with pytest.raises(UserError, match="found shape"):
        list(prepare([Pair("a", pair.blurred, pair.sharp)], tmp_path / "cache/train", workers=1))


def test_script(call: Callable[..., int], source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--data-root", source, "--output", tmp_path / "cache", "--workers", "2"]
    assert call("prepare.py", *flags) == 0
    assert "4 pairs verified, 4 of them made now" in capfd.readouterr().out
    assert len(find_pairs(tmp_path / "cache", "train")) == 4
    assert call("prepare.py", "--data-root", source, "--output", source) == 2
    assert "choose another --output" in capfd.readouterr().err
