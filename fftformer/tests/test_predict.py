"""predict.py restores an image or a folder, keeps forms, overwrites nothing and reports bad images."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fftformer import create_model
from fftformer.images import read_picture, read_rgb
from support.data import real_data
from support.scripts import run_script

SCRIPT = Path(__file__).parents[1] / "predict.py"


@pytest.fixture(scope="module")
def predict() -> ModuleType:
    spec = importlib.util.spec_from_file_location("predict", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["predict"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_model("fftformer_tiny", dim=8, num_blocks=(1, 1, 1))
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def run(
    predict: ModuleType, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the script's `main` in this process; returns exit status, stdout, stderr."""

    def call(source: Path, output: Path, *flags: str) -> tuple[int, str, str]:
        arguments = ["--checkpoint", checkpoint, "--input", source, "--output", output, "--device", "cpu", *flags]
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        status = 0
        try:
            predict.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def photograph(height: int = 50, width: int = 70, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(height).integers(256, size=(height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), 1.5)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "deep/er").mkdir(parents=True)
    Image.fromarray(photograph()).save(root / "a.jpg")
    Image.fromarray(photograph(40, 40)[..., 0]).save(root / "deep/grey.png")
    Image.fromarray(photograph(40, 60, 4)).save(root / "deep/er/alpha.TIFF")
    cv2.imwrite(str(root / "deep/wide.png"), photograph().astype(np.uint16) * 257)
    (root / "notes.txt").write_text("not an image")
    return root


def test_folder_tree_keeps_names_and_forms(run, tree: Path, tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "restored"
    status, said, _ = run(tree, output)
    assert status == 0 and "4 of 4 images restored" in said
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert names == {"a.jpg", "deep/grey.png", "deep/er/alpha.TIFF", "deep/wide.png"}
    for name in names:
        before, after = read_picture(tree / name), read_picture(output / name)
        assert (before.bits, before.grey, before.format) == (after.bits, after.grey, after.format)
        if before.alpha is not None:
            np.testing.assert_array_equal(before.alpha, after.alpha)
    # The pixels equal the output of the network.
    from fftformer import load_model

    blurred = torch.from_numpy(read_rgb(tree / "deep/wide.png")).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = load_model(checkpoint)(blurred)[0].permute(1, 2, 0).numpy().clip(0, 1)
    assert np.abs(read_rgb(output / "deep/wide.png") - expected).max() < 1e-4
    assert np.abs(expected - read_rgb(tree / "deep/wide.png")).max() > 1e-2, "the network changes the image"

    with Image.open(tmp_path / "restored_before_after.png") as sheet:
        assert sheet.width > 1200 and sheet.height > 600


def test_nothing_is_overwritten_unasked(run, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "restored"
    (output / "deep").mkdir(parents=True)
    (output / "deep/grey.png").write_bytes(b"mine")
    status, _, error = run(tree, output)
    assert status == 2 and "grey.png" in error and "--existing" in error and error.count("\n") == 1
    assert [path for path in output.rglob("*") if path.is_file()] == [output / "deep/grey.png"]
    assert (output / "deep/grey.png").read_bytes() == b"mine"
    assert run(tree, output, "--existing", "replace")[0] == 0
    assert read_picture(output / "deep/grey.png").grey


def test_bad_images_are_reported_and_the_others_restored(run, tree: Path, tmp_path: Path) -> None:
    data = (tree / "deep/wide.png").read_bytes()
    (tree / "cut.png").write_bytes(data[: len(data) // 2])
    jpeg = (tree / "a.jpg").read_bytes()
    (tree / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tree / "deep" / "moving.gif").touch()
    status, said, error = run(tree, tmp_path / "restored", "--no-sheet")
    assert status == 2
    assert "4 of 6 images restored" in said and "note: 1 images that are no JPEG, PNG or TIFF are left out" in said
    assert "cut.png" in said + error and "cut.jpg" in said + error
    assert "2 of 6 images could not be restored" in error.splitlines()[-1]
    names = {path.name for path in (tmp_path / "restored").rglob("*") if path.is_file()}
    assert names == {"a.jpg", "grey.png", "alpha.TIFF", "wide.png", "failed.csv"}
    table = list(csv.reader((tmp_path / "restored/failed.csv").open()))
    assert [line[0] for line in table] == ["picture", "cut.jpg", "cut.png"] and "truncated" in table[1][1]
    # After a repair, the same command with `skip` restores only what is missing and removes the list.
    (tree / "cut.png").write_bytes(data)
    (tree / "cut.jpg").unlink()
    before = (tmp_path / "restored/a.jpg").stat().st_mtime_ns
    (tmp_path / "restored/.cut.77.partial.png").write_bytes(data[:9])  # a file as a kill leaves it
    status, said, error = run(tree, tmp_path / "restored", "--no-sheet", "--existing", "skip")
    assert not (tmp_path / "restored/.cut.77.partial.png").exists()
    assert status == 0 and "1 of 5 images restored, 4 were there already" in said
    assert (tmp_path / "restored/a.jpg").stat().st_mtime_ns == before
    assert not (tmp_path / "restored/failed.csv").exists()
    assert not (tmp_path / "restored_before_after.png").exists()


def test_one_image_to_another_format(run, tree: Path, tmp_path: Path) -> None:
    assert run(tree / "a.jpg", tmp_path / "out/b.png")[0] == 0
    assert read_picture(tmp_path / "out/b.png").format == "PNG"
    assert (tmp_path / "out/b_before_after.png").exists()
    assert run(tree / "a.jpg", tmp_path / "out", "--no-sheet")[0] == 0, "into an existing folder under its own name"
    assert read_picture(tmp_path / "out/a.jpg").format == "JPEG"
    status, _, error = run(tree / "deep/wide.png", tmp_path / "out/c.jpg")
    assert status == 2 and "JPEG cannot hold 16 bits" in error


def test_orientation_is_applied_once(run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph()).save(tmp_path / "phone.jpg", exif=exif)
    assert run(tmp_path / "phone.jpg", tmp_path / "out.jpg")[0] == 0
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.size == (50, 70) and image.getexif().get(0x0112, 1) == 1


def test_tiles_within_a_memory_budget(run, tmp_path: Path) -> None:
    Image.fromarray(photograph(300, 400)).save(tmp_path / "large.png")
    assert run(tmp_path / "large.png", tmp_path / "whole.png", "--memory", "4G")[0] == 0
    whole = read_rgb(tmp_path / "whole.png")
    for flags in (("--memory", "80M"), ("--tile", "160")):
        assert run(tmp_path / "large.png", tmp_path / "tiled.png", "--existing", "replace", *flags)[0] == 0
        assert 0 < np.abs(read_rgb(tmp_path / "tiled.png") - whole).max() < 0.02
    for flags, message in {
        ("--memory", "1M"): "too small",
        ("--memory", "much"): "expected a size",
        ("--tile", "100"): "multiple of 32",
    }.items():
        status, _, error = run(tmp_path / "large.png", tmp_path / "none.png", *flags)
        assert status == 2 and message in error
        assert not (tmp_path / "none.png").exists()


def test_wrong_paths(run, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, output, message in [
        (tmp_path / "nothing", tmp_path / "out", "no such image or folder"),
        (tmp_path / "empty", tmp_path / "out", "found no images"),
        (tree, tree, "is the input folder itself"),
        (tree, tree / "a.jpg", "expected a folder"),
        (tree / "notes.txt", tmp_path / "out.png", "expected JPEG, PNG or TIFF"),
    ]:
        status, _, error = run(source, output)
        assert status == 2 and message in error and "Traceback" not in error


def test_output_inside_the_input_is_not_read_again(run, tree: Path) -> None:
    assert run(tree, tree / "restored")[0] == 0
    status, said, _ = run(tree, tree / "restored", "--existing", "replace")
    assert status == 0 and "4 of 4" in said


def test_bfloat16(run, tmp_path: Path) -> None:
    Image.fromarray(photograph()).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "full.png")[0] == 0
    assert run(tmp_path / "a.png", tmp_path / "half.png", "--mixed-precision", "bf16")[0] == 0
    difference = np.abs(read_rgb(tmp_path / "full.png") - read_rgb(tmp_path / "half.png"))
    assert 0 < difference.max() < 0.03


def test_a_real_image(run, checkpoint: Path, tmp_path: Path) -> None:
    blurred = real_data("gopro_pairs") / "Istanbul_blur1.png"
    with Image.open(blurred) as image:
        image.crop((0, 0, 300, 200)).save(tmp_path / "in.png")
    status, said, error = run(tmp_path / "in.png", tmp_path / "out.png")
    assert status == 0 and "1 of 1 images restored" in said and "Traceback" not in error
    assert read_rgb(tmp_path / "out.png").shape == (200, 300, 3)


def test_links_hidden_files_and_names(run, tree: Path, tmp_path: Path) -> None:
    """Linked folders are read, hidden files are not, and names that are not valid UTF-8 are kept."""
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(photograph()).save(tmp_path / "elsewhere/b.png")
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "elsewhere_back").symlink_to(tree)
    (tree / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/a-checkpoint.png", "._a.jpg"):
        (tree / name).write_bytes(b"no image")
    odd = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(photograph()).save(tree / odd)
    (tree / os.fsdecode(b"cut\xe9.png")).write_bytes(b"no image")
    status, said, error = run(tree, tmp_path / "restored", "--no-sheet")
    assert status == 2 and "6 of 7 images restored" in said and "Traceback" not in error
    assert read_rgb(tmp_path / "restored" / odd).shape == (50, 70, 3)
    assert (tmp_path / "restored/linked/b.png").is_file()
    assert "cut\\xe9.png" in (tmp_path / "restored/failed.csv").read_text(encoding="utf-8")


def test_one_output_for_two_inputs(run, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "restored"
    (output / "deep").mkdir(parents=True)
    (tree / "other").mkdir()
    Image.fromarray(photograph()).save(tree / "other/grey.png")
    (output / "other").symlink_to(output / "deep")
    status, _, error = run(tree, output)
    assert status == 2 and "both would be written to" in error and "grey.png" in error
    assert not any((output / "deep").iterdir())


def test_an_input_is_never_replaced(run, tree: Path, tmp_path: Path) -> None:
    before = (tree / "a.jpg").read_bytes()
    (tmp_path / "out").symlink_to(tree)
    for source, output in [
        (tree / "a.jpg", tree / "a.jpg"),
        (tree / "a.jpg", tmp_path / "out"),
        (tree, tmp_path / "out"),
    ]:
        status, _, error = run(source, output, "--existing", "replace")
        assert status == 2 and ("is an input image too" in error or "is the input folder itself" in error)
    assert (tree / "a.jpg").read_bytes() == before


def test_two_processes_share_a_folder(tree: Path, tmp_path: Path, checkpoint: Path) -> None:
    flags = ["--checkpoint", checkpoint, "--input", tree, "--device", "cpu"]
    for processes in (1, 2):
        done = run_script(SCRIPT, *flags, "--output", tmp_path / f"by{processes}", processes=processes)
        assert done.stdout.count("4 of 4 images restored") == 1
    names = [path.relative_to(tmp_path / "by1") for path in (tmp_path / "by1").rglob("*.*")]
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "by1" / name).read_bytes() == (tmp_path / "by2" / name).read_bytes()


@pytest.mark.parametrize(("device", "message"), [("gpu", "no such device"), ("cuda", "no usable GPU")])
def test_a_device_that_is_not_there(run, tree: Path, tmp_path: Path, device: str, message: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, _, error = run(tree, tmp_path / "out", "--device", device)
    assert status == 2 and message in error and "Traceback" not in error
