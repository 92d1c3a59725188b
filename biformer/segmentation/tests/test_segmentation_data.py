"""ADE20K's layout, errors for bad data sets, the training transform, the presets."""

from __future__ import annotations

import colorsys
import itertools
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biformer.segmentation import photographs, pictures
from biformer.segmentation.augmentation import Augmentation, TrainingScenes, distorted, saturated
from biformer.segmentation.data import open_both, open_scenes, read_classes
from biformer.segmentation.presets import PRESETS, learning_rate
from common.errors import UserError
from common.sampling import endless_loader


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs.write_demo(tmp_path_factory.mktemp("demo"), training=8, validation=3)


def test_the_demo_has_the_published_layout_and_is_the_same_every_time(demo: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(demo).as_posix() for path in demo.rglob("*.*"))
    assert "images/training/ADE_train_00000008.jpg" in files and "annotations/validation/ADE_val_00000003.png" in files
    assert len(files) == 2 * 11 + 1
    again = photographs.write_demo(tmp_path, training=8, validation=3)
    assert all((again / name).read_bytes() == (demo / name).read_bytes() for name in files)
    scenes = open_scenes(demo.parent, "training")  # the folder or its parent
    assert scenes.names == open_scenes(demo, "training").names and len(open_scenes(demo, "validation")) == 3
    assert scenes.classes == ["brick", "grass", "galaxies", "coin", "cat", "cup"]
    codes = set()
    for index in range(len(scenes)):
        image, labels = scenes.read(index)
        assert image.shape == (3, 96, 128) and labels.shape == (96, 128) and image.dtype == labels.dtype == torch.uint8
        raw = np.asarray(Image.open(demo / f"annotations/training/ADE_train_{index + 1:08d}.png"))
        assert np.array_equal((labels.numpy().astype(int) + 1) % 256, raw)
        codes |= set(labels.unique().tolist())
    assert codes == {0, 1, 2, 3, 4, 5, 255}


def test_class_names_come_from_the_published_table(tmp_path: Path) -> None:
    table = tmp_path / "objectInfo150.txt"
    assert read_classes(table)[:2] == ["class 1", "class 2"] and len(read_classes(table)) == 150
    table.write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t11664\t1172\t1\twall\n2\t0.1\t6046\t612\t1\tbuilding, edifice\n"
    )
    assert read_classes(table) == ["wall", "building"]
    table.write_text("1\twall\n2\tfloor\n", encoding="utf-8-sig")
    assert read_classes(table) == ["wall", "floor"]
    for numbers in ((2, 1), (1, 1), (1, 3)):
        table.write_text("".join(f"{number}\twall\n" for number in numbers))
        with pytest.raises(UserError, match=rf"numbers its classes \[{numbers[0]}, {numbers[1]}\]; expected 1 to 2"):
            read_classes(table)
    table.write_text("nothing\n")
    with pytest.raises(UserError, match=r"objectInfo150\.txt: names 0 classes"):
        read_classes(table)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("root", "the folder does not exist"),
        ("folder", r"annotations/training: no such folder; expected images/training and annotations"),
        ("empty", "images/training: has no images"),
        ("annotation", r"1 of 8 images have no annotation \(first: ADE_train_00000003\.png\)"),
        ("picture", r"images/training: 1 of 8 annotations have no image \(first: ADE_train_00000003\.png\)"),
        ("suffix", r"ADE_train_00000003\.jpe?g differs from another image in its suffix alone"),
        ("size", r"00000003\.png: has 100x96 pixels, its image has 128x96"),
        ("label", r"00000003\.png: has the label 7, expected 0 for unlabelled and 1 to 6"),
        ("colour", r"00000003\.png: has pixels of mode RGB, expected 8-bit class numbers"),
        ("truncated image", r"00000003\.jpg: the image is truncated or damaged"),
        ("truncated annotation", r"00000003\.png: cannot be read as an image"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(demo: Path, tmp_path: Path, problem: str, words: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(demo, root)
    image = root / "images/training/ADE_train_00000003.jpg"
    annotation = root / "annotations/training/ADE_train_00000003.png"
    if problem == "root":
        root = tmp_path / "nowhere"
    elif problem == "folder":
        shutil.rmtree(annotation.parent)
    elif problem == "empty":
        shutil.rmtree(image.parent)
        image.parent.mkdir()
    elif problem == "annotation":
        annotation.unlink()
    elif problem == "picture":
        image.unlink()
    elif problem == "suffix":
        shutil.copy(image, image.with_suffix(".jpeg"))
    elif problem == "size":
        Image.open(annotation).crop((0, 0, 100, 96)).save(annotation)
    elif problem == "label":
        Image.fromarray(np.full((96, 128), 7, np.uint8)).save(annotation)
    elif problem == "colour":
        Image.open(annotation).convert("RGB").save(annotation)
    else:
        victim = image if "image" in problem else annotation
        victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(UserError, match=words) as caught:
        open_scenes(root, "training").read(2)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_loading_process_is_one_sentence_too(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "data")
    for annotation in (tmp_path / "data/annotations/training").iterdir():
        annotation.write_bytes(annotation.read_bytes()[:80])
    data = TrainingScenes(open_scenes(tmp_path / "data", "training"), Augmentation(size=32), seed=0)
    with pytest.raises(UserError, match=r"\.png: cannot be read as an image .*copy it again") as caught:
        next(iter(endless_loader(data, batch_size=2, workers=1, seed=0)))
    assert "\n" not in str(caught.value)


def test_images_are_turned_upright(demo: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(demo, root)
    path = root / "images/training/ADE_train_00000001.jpg"
    upright, _ = open_scenes(root, "training").read(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    with Image.open(path) as file:
        file.rotate(90, expand=True).save(path, exif=exif, quality=95)
    turned, _ = open_scenes(root, "training").read(0)
    assert turned.shape == upright.shape and (turned.float() - upright.float()).abs().mean() < 6


def test_labels_follow_their_pixels() -> None:
    """Resized by 1, cropped, mirrored and padded; the grey values of the image are its labels."""
    labels = torch.randint(0, 6, (40, 70), dtype=torch.uint8)
    image = (labels * 40)[None].expand(3, -1, -1)
    augment = Augmentation(size=40, scale=(1, 1), distort=False)
    for seed in range(8):
        x, y = augment(image, labels, np.random.default_rng(seed))
        assert x.shape == (3, 40, 40) and y.shape == (40, 40)
        grey = ((x[0] * 0.229 + 0.485) * 255 / 40).round()
        assert torch.equal(grey.to(torch.uint8), y)
    small, where = Augmentation(size=40, scale=(0.5, 0.5), distort=False)(image, labels, np.random.default_rng(0))
    assert (where[20:] == 255).all() and (where[:20, :35] < 6).all() and (where[:, 35:] == 255).all()
    assert not small[:, 20:].any() and small[:, :20, :35].any()


def test_crops_with_one_class_are_drawn_again() -> None:
    labels = torch.zeros(64, 256, dtype=torch.uint8)
    labels[:, 128:] = 1
    labels[:, :20] = 255
    image = torch.zeros(3, 64, 256, dtype=torch.uint8)

    def shares(limit: float) -> list[float]:
        augment = Augmentation(size=64, scale=(1, 1), category_share=limit, distort=False)
        crops = [augment(image, labels, np.random.default_rng(seed))[1] for seed in range(40)]
        return [(crop == 0).sum().item() / (crop != 255).sum().item() for crop in crops]

    assert np.mean([0.25 < share < 0.75 for share in shares(0.75)]) > 0.8
    assert np.mean([0.25 < share < 0.75 for share in shares(1.0)]) < 0.4


def test_augmentation_depends_on_seed_epoch_and_index_only(demo: Path) -> None:
    scenes = open_scenes(demo, "training")
    augment = Augmentation(size=32)
    one, two = TrainingScenes(scenes, augment, seed=1), TrainingScenes(scenes, augment, seed=1)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(one[3, 2], two[3, 2], strict=True))
    other = TrainingScenes(scenes, augment, seed=2)
    assert not any(torch.equal(one[3, 2][0], x[0]) for x in (one[4, 2], other[3, 2], one[3, 1]))
    loaders = [iter(endless_loader(one, batch_size=3, workers=workers, seed=1)) for workers in (0, 1)]
    for (a, b), (c, d) in itertools.islice(zip(*loaders, strict=False), 4):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_colours_change_as_in_hsv() -> None:
    x = torch.rand(3, 5, 7)
    for factor in (0.5, 1.5):
        found = saturated(x, factor)
        for row, column in itertools.product(range(5), range(7)):
            h, s, v = colorsys.rgb_to_hsv(*x[:, row, column].tolist())
            expected = colorsys.hsv_to_rgb(h, min(1.0, factor * s), v)
            assert found[:, row, column].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(saturated(torch.zeros(3, 2, 2), 1.5), torch.zeros(3, 2, 2))
    several = [distorted(x, np.random.default_rng(seed)) for seed in range(60)]
    assert all(y.min() >= 0 and y.max() <= 1 for y in several)
    assert any(torch.equal(y, x) for y in several) and sum(not torch.equal(y, x) for y in several) > 40
    means = [y.mean().item() for y in several]
    assert min(means) < 0.35 and max(means) > 0.6


def test_presets_are_the_published_experiments() -> None:
    fpn, fpn_base, upernet, upernet_base = (
        PRESETS[name]() for name in ("sfpn_small", "sfpn_base", "upernet_small", "upernet_base")
    )
    for config in (fpn, fpn_base):
        assert (config.head, config.iterations, 8 * config.batch_size) == ("semantic_fpn", 80_000, 32)
        assert (config.weight_decay, config.decay_norms, config.size_divisor) == (1e-4, True, 32)
        assert learning_rate(config, 0) == pytest.approx(2e-5, rel=1e-3)  # a tenth
        assert learning_rate(config, 40_000) == pytest.approx(1e-4)
        assert learning_rate(config, 79_999) < 1e-9
    for config in (upernet, upernet_base):
        assert (config.head, config.iterations, 8 * config.batch_size) == ("upernet", 160_000, 16)
        assert (config.weight_decay, config.decay_norms, config.size_divisor) == (0.01, False, 1)
        assert learning_rate(config, 0) == pytest.approx(6e-11)
        assert learning_rate(config, 750) == pytest.approx(6e-5 * (1 - 750 / 160_000) / 2, rel=1e-3)
        assert learning_rate(config, 120_000) == pytest.approx(1.5e-5)
    assert [c.drop_path for c in (fpn, fpn_base, upernet, upernet_base)] == [0.15, 0.3, 0.3, 0.4]
    assert [c.model for c in (fpn, fpn_base)] == [c.model for c in (upernet, upernet_base)]
    assert all(
        (c.num_regions, c.image_size, c.scale) == (8, 512, (0.5, 2.0)) for c in (fpn, fpn_base, upernet, upernet_base)
    )


def test_colours_differ_and_label_images_have_the_codes() -> None:
    colours = pictures.palette(150).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(150, dtype=int)
    assert apart.min() >= 10 and apart[:20, :20].min() > 60
    labels = np.array([[0, 149, 255]])
    codes = np.asarray(pictures.label_picture(labels, 150))
    assert codes.tolist() == [[1, 150, 0]]
    shown = np.asarray(pictures.label_picture(labels, 150).convert("RGB"))
    assert shown[0, 0].tolist() == colours[0].tolist() and shown[0, 2].tolist() == [0, 0, 0]
    sheet = pictures.overlay(Image.new("RGB", (2000, 30)), np.zeros((30, 2000), np.int64), ["wall"])
    assert sheet.width > 1600 and sheet.height >= 24


@pytest.mark.parametrize("bits", [2, 4])
def test_class_numbers_in_few_bits_are_kept(demo: Path, tmp_path: Path, bits: int) -> None:
    """Some programs use few bits to make PNGs smaller, and Pillow stretches the values to 8 bits."""
    root = shutil.copytree(demo, tmp_path / "few")
    codes = np.minimum(np.arange(96 * 128, dtype=np.uint8).reshape(96, 128) % 7, 2**bits - 1)
    packed = np.zeros((96, 128 * bits // 8), np.uint8)
    for place in range(8 // bits):
        packed |= codes[:, place :: 8 // bits] << (8 - bits * (place + 1))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 128, 96, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    (root / "annotations/training/ADE_train_00000001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    labels = open_scenes(root, "training").read(0)[1].numpy()
    np.testing.assert_array_equal((labels.astype(int) + 1) % 256, codes)


def test_a_split_that_links_to_the_other_is_refused(demo: Path, tmp_path: Path) -> None:
    root = shutil.copytree(demo, tmp_path / "one")
    for part in ("images", "annotations"):
        shutil.rmtree(root / part / "validation")
        (root / part / "validation").symlink_to("training")
    with pytest.raises(UserError, match=r"is the training image .*, as are 7 others"):
        open_both(root)
