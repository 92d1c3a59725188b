"""Every published layout is recognised and read, half-copied folders are refused, random crops are exact."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from fftformer.data import EvaluationPairs, Pair, TrainingPairs
from fftformer.layouts import find_layout, find_pairs
from support.data import real_data

LAYOUTS = {
    "gopro": [
        ("train/GOPR0001_11_00/blur/000001.png", "train/GOPR0001_11_00/sharp/000001.png", "GOPR0001_11_00/000001"),
        ("train/GOPR0002_11_00/blur/000001.png", "train/GOPR0002_11_00/sharp/000001.png", "GOPR0002_11_00/000001"),
    ],
    "hide": [
        ("train/12.png", "GT/12.png", "12"),
        ("train/train-close-ups/13.png", "GT/13.png", "train-close-ups/13"),
    ],
    "realblur_j": [
        ("RealBlur-J/scene001/blur/blur_1.png", "RealBlur-J/scene001/gt/gt_1.png", "scene001/blur_1"),
        ("RealBlur-J/scene002/blur/blur_1.png", "RealBlur-J/scene002/gt/gt_1.png", "scene002/blur_1"),
    ],
    "realblur_r": [("RealBlur-R/scene001/blur/blur_1.png", "RealBlur-R/scene001/gt/gt_1.png", "scene001/blur_1")],
    "input_target": [
        ("train/input/a.png", "train/target/a.png", "a"),
        ("train/input/b.jpg", "train/target/b.png", "b"),
    ],
    "levin": [
        ("im1_kernel1_img.png", "gt/im1.png", "im1_kernel1"),
        ("im1_kernel2_img.png", "gt/im1.png", "im1_kernel2"),
    ],
    "pairs": [("City_blur1.png", "City_sharp1.png", "City1"), ("City_blur2.png", "City_sharp2.png", "City2")],
}


def write_image(path: Path, seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def build(root: Path, layout: str) -> Path:
    for number, (blurred, sharp, _) in enumerate(LAYOUTS[layout]):
        write_image(root / blurred, 2 * number)
        if not (root / sharp).exists():
            write_image(root / sharp, 2 * number + 1)
    if layout.startswith("realblur"):
        lines = [f"{sharp} {blurred}\n" for blurred, sharp, _ in LAYOUTS[layout]]
        (root / f"RealBlur_{layout[-1].upper()}_train_list.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    root = build(tmp_path, layout)
    assert find_layout(root, "train") == layout
    pairs = find_pairs(root, "train")
    assert pairs == [Pair(name, root / blurred, root / sharp) for blurred, sharp, name in LAYOUTS[layout]]


def test_gopro_gamma_and_other_split(tmp_path: Path) -> None:
    build(tmp_path, "gopro")
    write_image(tmp_path / "test/GOPR0003_11_00/blur_gamma/000001.png", 1)
    write_image(tmp_path / "test/GOPR0003_11_00/sharp/000001.png", 2)
    (pair,) = find_pairs(tmp_path, "test", gopro_blur="blur_gamma")
    assert pair.blurred.parent.name == "blur_gamma"
    with pytest.raises(UserError, match="0 blurred and 1 sharp"):
        find_pairs(tmp_path, "test")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [0, 1])
def test_half_copied_folders_are_refused(tmp_path: Path, layout: str, side: int) -> None:
    if (layout, side) == ("levin", 0):
        pytest.skip("in this layout any number of blurred images share a sharp one")
    build(tmp_path, layout)
    lost = tmp_path / LAYOUTS[layout][0][side]
    lost.unlink()
    if layout == "hide" and side == 0:
        # GT has the images of both splits, so a missing blurred image could belong to the other split.
        assert len(find_pairs(tmp_path, "train")) == 1
        return
    with pytest.raises(UserError, match=f"{lost.name}|{LAYOUTS[layout][0][2]}|found no images") as caught:
        find_pairs(tmp_path, "train")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*does not exist"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no split train in a known layout, found nothing"):
        find_pairs(tmp_path, "train")
    build(tmp_path, "gopro")
    with pytest.raises(UserError, match=r"no split test in a known layout, found train/"):
        find_pairs(tmp_path, "test")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="found no images"):
        find_pairs(tmp_path, "train")
    with pytest.raises(UserError, match="choose auto or one of gopro"):
        find_pairs(tmp_path, "train", "gopr")


def test_both_realblur_lists_need_a_choice(tmp_path: Path) -> None:
    build(build(tmp_path, "realblur_j"), "realblur_r")
    with pytest.raises(UserError, match="--layout realblur_j or realblur_r"):
        find_pairs(tmp_path, "train")
    assert len(find_pairs(tmp_path, "train", "realblur_j")) == 2
    assert len(find_pairs(tmp_path, "train", "realblur_r")) == 1
    listing = tmp_path / "RealBlur_R_train_list.txt"
    listing.write_text("only_one.png\n")
    with pytest.raises(UserError, match=r"line 1 is .only_one\.png., expected two paths"):
        find_pairs(tmp_path, "train", "realblur_r")


def test_pairs_of_different_sizes_and_cut_off_pngs_are_found_first(tmp_path: Path) -> None:
    build(tmp_path, "gopro")
    blurred = tmp_path / LAYOUTS["gopro"][1][0]
    write_image(blurred, 1, height=41)
    with pytest.raises(UserError, match=r"found 56x41 pixels, expected 56x40 as in"):
        find_pairs(tmp_path, "train")
    write_image(blurred, 1)
    blurred.write_bytes(blurred.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{blurred.name}.*truncated"):
        find_pairs(tmp_path, "train")


@pytest.fixture
def frames(tmp_path: Path) -> tuple[list[Pair], list[tuple[np.ndarray, np.ndarray]]]:
    """Pairs whose sharp image is the blurred image plus 1, so that a misplaced crop is found."""
    pairs, arrays = [], []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(255, size=(30 + number, 50, 3), dtype=np.uint8)
        paths = [tmp_path / side / f"{number}.png" for side in ("input", "target")]
        for path, values in zip(paths, (pixels, pixels + 1), strict=True):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
        pairs.append(Pair(str(number), *paths))
        arrays.append((pixels, pixels + 1))
    return pairs, arrays


def test_crops_lie_in_the_image_in_all_eight_turns(frames) -> None:
    pairs, arrays = frames
    data = TrainingPairs(pairs, crop=16, seed=3, saturation_jitter=False)
    turns, corners = set(), set()
    for epoch in range(150):
        item = data[epoch, 1]
        blurred, sharp = ((item[key] * 255).round().byte().numpy().transpose(1, 2, 0) for key in ("blurred", "sharp"))
        np.testing.assert_array_equal(sharp, blurred + 1)
        pixels = arrays[1][0]
        found = [
            (turn, transposed, top, left)
            for turn in range(4)
            for transposed in range(2)
            for back in [np.rot90(blurred.swapaxes(0, 1) if transposed else blurred, turn)]
            for top, left in np.argwhere((pixels[:16, :35] == back[0, 0]).all(axis=2))
            if (pixels[top : top + 16, left : left + 16] == back).all()
        ]
        ((turn, transposed, top, left),) = found
        turns.add((turn, transposed))
        corners.add((top, left))
    assert len(turns) == 8
    assert {top for top, _ in corners} == set(range(16)), "every row offset, the last one included"
    assert {0, 34} <= {left for _, left in corners}


def test_items_depend_on_seed_epoch_and_index_only(frames) -> None:
    pairs, _ = frames
    data = TrainingPairs(pairs, crop=16, seed=3)
    first = data[4, 2]["blurred"]
    data[0, 0]
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    assert torch.equal(data[4, 2]["blurred"], first)
    assert torch.equal(TrainingPairs(pairs, crop=16, seed=3)[4, 2]["blurred"], first)
    for other in (data[5, 2], TrainingPairs(pairs, crop=16, seed=4)[4, 2]):
        assert not torch.equal(other["blurred"], first)
    assert first.shape == (3, 16, 16) and first.dtype == torch.float32 and first.is_contiguous()


def test_saturation_changes_a_third_and_both_images_alike(frames) -> None:
    pairs, _ = frames
    plain, jittered = (TrainingPairs(pairs, 16, seed=0, saturation_jitter=flag) for flag in (False, True))
    changed = 0
    luma = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    for epoch in range(300):
        before, after = plain[epoch, 0], jittered[epoch, 0]
        if torch.equal(before["sharp"], after["sharp"]):
            assert torch.equal(before["blurred"], after["blurred"])
            continue
        changed += 1
        factors = []
        for key in ("blurred", "sharp"):
            grey = (before[key] * luma).sum(dim=0, keepdim=True)
            inside = (after[key] > 0) & (after[key] < 1) & ((before[key] - grey).abs() > 0.1)
            ratio = ((after[key] - grey) / (before[key] - grey))[inside]
            assert ratio.std() < 1e-3
            factors.append(float(ratio.mean()))
        assert 0.8 <= factors[0] <= 1.2
        assert factors[0] == pytest.approx(factors[1], abs=1e-3)
    assert 70 < changed < 130


def test_crop_larger_than_an_image_is_refused(frames) -> None:
    pairs, _ = frames
    with pytest.raises(UserError, match=r"0\.png: 50x30 pixels are too few for a crop of 31"):
        TrainingPairs(pairs, crop=31, seed=0)[0, 0]
    assert TrainingPairs(pairs, crop=30, seed=0)[0, 0]["sharp"].shape == (3, 30, 30)


def test_whole_pairs(frames) -> None:
    pairs, arrays = frames
    item = EvaluationPairs(pairs)[2]
    assert item["name"] == "2"
    for key, pixels in zip(("blurred", "sharp"), arrays[2], strict=True):
        np.testing.assert_array_equal((item[key] * 255).numpy().round(), pixels.transpose(2, 0, 1))


def test_real_gopro_pair() -> None:
    (pair,) = find_pairs(real_data("gopro_pairs"))
    item = EvaluationPairs([pair])[0]
    assert item["blurred"].shape == (3, 720, 1280)
    error = (item["blurred"].double() - item["sharp"].double()).square().mean()
    assert -10 * torch.log10(error).item() == pytest.approx(24.05, abs=0.01)


def test_real_gopro_pair_in_the_published_layout(tmp_path: Path) -> None:
    (pair,) = find_pairs(real_data("gopro_pairs"))
    for side, path in {"blur": pair.blurred, "sharp": pair.sharp}.items():
        (tmp_path / "train/GOPR0384_11_00" / side).mkdir(parents=True)
        shutil.copy(path, tmp_path / "train/GOPR0384_11_00" / side / "000001.png")
    item = TrainingPairs(find_pairs(tmp_path, "train"), crop=256, seed=0)[0, 0]
    assert (item["blurred"] - item["sharp"]).abs().mean() < 0.1, "the two sides show the same place"


def test_real_levin_images() -> None:
    pairs = find_pairs(real_data("levin09"))
    assert len(pairs) == 24 and pairs[8].name == "im2_kernel1" and pairs[8].sharp.name == "im2.png"


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    for layout in ("gopro", "hide", "input_target"):
        root = build(tmp_path / layout, layout)
        expected = find_pairs(root, "train")
        for path in sorted(root.rglob("*.png")):
            (path.parent / f"._{path.name}").write_bytes(b"a companion of macOS")
            (path.parents[1] / ".ipynb_checkpoints/sharp").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, path.parents[1] / ".ipynb_checkpoints" / "0-checkpoint.png")
        assert find_pairs(root, "train") == expected


@pytest.mark.parametrize("layout", ["gopro", "hide", "input_target", "levin"])
def test_pairs_of_other_formats_are_not_left_out_silently(tmp_path: Path, layout: str) -> None:
    build(tmp_path, layout)
    for file in LAYOUTS[layout][0][:2]:
        if layout != "levin" or file.startswith("gt/"):
            write_image((tmp_path / file).with_name("other.bmp"), 9)
    with pytest.raises(UserError, match=r"other\.bmp: found 1 images of a format that is not read here"):
        find_pairs(tmp_path, "train")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    build(tmp_path, "input_target")
    first = find_pairs(tmp_path, "train")[0].blurred
    Image.open(first).convert("RGB").save(first.with_suffix(".jpg"))
    with pytest.raises(UserError, match="has the same name as"):
        find_pairs(tmp_path, "train")
