"""Layouts, splits, augmentation that can be repeated exactly, and errors for bad data sets."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from PIL import Image

from biformer import photographs
from biformer.augmentation import EvaluationPictures, TrainingPictures, evaluation_transform, seeded, training_transform
from biformer.data import Pictures, UnreadablePicture, save_split, stratified_split
from biformer.layouts import open_both, open_split
from biformer.presets import PRESETS, SPLITS, Config
from common.errors import UserError
from common.sampling import endless_loader
from support.data import real_data


def write_folder(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 32)) -> None:
    """Class folders with images of one colour each."""
    for label, (name, count) in enumerate(sorted(counts.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", size, (80 * label, 10 * number, 60)).save(folder / name / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 5, "owl": 2})
    write_folder(tmp_path / "val", {"cat": 2, "dog": 1, "owl": 1})
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "train/cat/.hidden.png").write_text("no image")
    return tmp_path


def test_class_folders_are_read(root: Path) -> None:
    training, validation = open_both(root)
    assert (len(training), len(validation)) == (10, 4)
    assert training.classes == validation.classes == ["cat", "dog", "owl"]
    picture, label = training.read(training.names.index("train/dog/4.png"))
    assert label == 1 and picture.mode == "RGB" and picture.size == (40, 32)
    assert picture.getpixel((0, 0)) == (80, 40, 60)


def test_zips_give_the_same_as_folders(root: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for split in ("train", "val"):
        with zipfile.ZipFile(zipped / f"pets_{split}.zip", "w") as archive:
            for path in (root / split).rglob("*.png"):
                archive.write(path, path.relative_to(root))
    ours, theirs = open_both(zipped)[0], open_both(root)[0]
    assert ours.names == theirs.names and ours.labels == theirs.labels
    assert ours.read(7)[0].tobytes() == theirs.read(7)[0].tobytes()


def test_the_validation_folder_alone_is_enough_to_evaluate(root: Path) -> None:
    assert open_split(root / "val", "validation").classes == ["cat", "dog", "owl"]


def test_timms_dataset_factory_is_read(root: Path) -> None:
    (root / "train/cat/.hidden.png").unlink()  # torchvision's reader would list it
    pictures = open_split(root, "train", dataset="torch/image_folder")
    assert pictures.classes == ["cat", "dog", "owl"] and len(pictures) == 10
    picture, label = pictures.read(9)
    assert label == 2 and picture.mode == "RGB"
    with pytest.raises(UserError, match="torch/nothing: timm cannot open it"):
        open_split(root, "train", dataset="torch/nothing")


def test_a_missing_package_of_a_dataset_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_: object, **__: object) -> None:
        raise ImportError("Please install Hugging Face datasets package")

    monkeypatch.setattr("biformer.layouts.create_dataset", create)
    with pytest.raises(UserError, match=r"hfds/a/b: needs a package .*Hugging Face datasets.*install it"):
        open_split(root, "train", dataset="hfds/a/b")


def test_classes_that_differ_are_named(root: Path) -> None:
    (root / "val/owl").rename(root / "val/crow")
    with pytest.raises(UserError, match="only here: crow; only there: owl"):
        open_both(root)


@pytest.mark.parametrize("problem", ["missing", "empty", "no split", "bad zip"])
def test_bad_folders_are_named_with_the_remedy(tmp_path: Path, problem: str) -> None:
    root = tmp_path / "data"
    words = "does not exist"
    if problem != "missing":
        root.mkdir()
        words = "no train images .* found nothing"
    if problem == "no split":
        write_folder(root, {"cat": 2, "dog": 2})
        words = "found cat/, dog/; pass --split-file or --holdout"
    if problem == "bad zip":
        (root / "train.zip").write_text("no zip")
        words = "not a readable zip"
    with pytest.raises(UserError, match=words):
        open_both(root)


def test_a_held_out_share_is_stratified_disjoint_and_repeatable(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 10, "owl": 3})
    training, validation = open_both(tmp_path, holdout=0.3, seed=4)
    assert Counter(validation.labels) == {0: 6, 1: 3, 2: 1}
    assert set(training.names).isdisjoint(validation.names) and len(training) + len(validation) == 33
    again, other = (open_both(tmp_path, holdout=0.3, seed=seed)[1].names for seed in (4, 5))
    assert again == validation.names != other
    save_split(tmp_path / "split.json", training, validation)
    from_file = open_both(tmp_path, split_file=tmp_path / "split.json")
    assert [part.names for part in from_file] == [training.names, validation.names]
    assert from_file[1].read(3)[0].tobytes() == validation.read(3)[0].tobytes()


def test_a_split_that_links_to_the_other_is_refused(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")
    with pytest.raises(UserError, match=r"val/cat/0\.png: is the training image .*, as are 9 others"):
        open_both(root)


def test_class_folders_with_the_same_name_are_not_joined(tmp_path: Path) -> None:
    for name in ("cat/left", "cat/right", "dog/left"):
        write_folder(tmp_path / "train" / name.split("/")[0], {name.split("/")[1]: 1})
    with pytest.raises(UserError, match="several class folders have the same name"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("problem", ["both", "both in other words", "twice", "missing", "no file", "no split file"])
def test_bad_split_files_are_named(tmp_path: Path, problem: str) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    path = tmp_path / "split.json"
    lists = {"train": ["cat/0.png", "dog/0.png"], "validation": ["cat/1.png", "dog/1.png"]}
    words = {"both": "1 images are in both", "both in other words": "1 images are in both"}
    words |= {"twice": "listed twice in validation", "missing": r"1 of 3 .* missing \(first: dog/9.png\)"}
    if problem == "both":
        lists["validation"].append("cat/0.png")
    if problem == "both in other words":
        lists["validation"].append("./cat//0.png")
    if problem == "twice":
        lists["validation"].append("cat/1.png")
    if problem == "missing":
        lists["validation"].append("dog/9.png")
    if problem != "no file":
        path.write_text(json.dumps(lists if problem != "no split file" else [1]))
    with pytest.raises(UserError, match=words.get(problem, "no such file|not a split file")):
        open_both(tmp_path, split_file=path)


def test_the_fixed_split_of_the_clothing_photographs() -> None:
    folder = real_data("clothing_small")
    training, validation = open_both(folder, split_file=SPLITS / "clothing_small.json")
    whole = open_split(folder, "any")
    made = stratified_split(whole, 0.3, 0)
    assert [whole.names[i] for i in made[0]] == list(training.names)
    assert [whole.names[i] for i in made[1]] == list(validation.names)
    assert (len(training), len(validation), len(training.classes)) == (259, 113, 10)


def test_real_cifar_zips_are_read() -> None:
    training, validation = open_both(real_data("cifar10_subset"))
    assert set(Counter(training.labels).values()) == {300} and set(Counter(validation.labels).values()) == {100}
    assert training.read(2999)[0].size == (32, 32) and training.classes[9] == "truck"


def config(**changes: object) -> Config:
    return Config(**{"image_size": 32, "repeats": 1} | changes)


def test_augmentation_is_a_function_of_seed_epoch_and_index(root: Path) -> None:
    pictures = open_split(root, "train")
    noisy = Pictures(pictures.names, pictures.labels, pictures.classes, lambda i: (noise(i), 0))
    one = TrainingPictures(noisy, training_transform(config()), seed=1)
    first = one[0, 3][0]
    draw()
    assert torch.equal(one[0, 3][0], first)
    assert not torch.equal(one[1, 3][0], first) and not torch.equal(one[0, 4][0], first)
    other = TrainingPictures(noisy, training_transform(config()), seed=2)
    assert not torch.equal(other[0, 3][0], first)


def test_loading_processes_change_nothing() -> None:
    training, _ = photographs.demo_pictures(4, 2)
    data = TrainingPictures(training, training_transform(config(repeats=3)), seed=3, repeats=3)
    loaders = [iter(endless_loader(data, batch_size=6, workers=workers, seed=3, start=2)) for workers in (0, 2)]
    for _ in range(10):  # into the second epoch
        (a, one), (b, two) = (next(loader) for loader in loaders)
        assert torch.equal(a, b) and torch.equal(one, two)


def test_seeding_leaves_the_global_generators_alone() -> None:
    set_seed(1)
    expected = draw()
    set_seed(1)
    with seeded(1, 2, 3):
        inside = draw()
    assert draw() == expected
    with seeded(1, 2, 3):
        assert draw() == inside


def draw() -> tuple[float, float, float]:
    """A random number from each global generator that timm's transforms use."""
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_repeated_augmentation_uses_a_third_of_the_images_three_times_in_succession() -> None:
    count, repeats = 30, 3
    pictures = Pictures([str(i) for i in range(count)], [0] * count, ["a", "b"], lambda i: (noise(i), i))
    data = TrainingPictures(pictures, training_transform(config()), seed=5, repeats=repeats)
    loader = iter(endless_loader(data, batch_size=6, workers=0, seed=5))
    seen = []
    for _ in range(count // 6):
        images, sources = next(loader)
        seen += sources.tolist()
        assert sorted(Counter(sources.tolist()).values()) == [3, 3]  # the copies of an image are in one batch
        assert len({image.sum().item() for image in images}) == 6  # each copy has its own augmentation
    assert len(set(seen)) == count // repeats
    second = [source for _ in range(count // 6) for source in next(loader)[1].tolist()]
    assert set(second) != set(seen)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def test_the_published_evaluation_crop() -> None:
    """A 300 x 600 image is resized to 256 x 512, and its middle 224 x 224 is cropped."""
    columns = np.broadcast_to(np.linspace(0, 255, 600)[None, :, None], (300, 600, 3)).astype(np.uint8)
    image = evaluation_transform()(Image.fromarray(columns))
    assert image.shape == (3, 224, 224)
    red = image[0, 100] * 0.229 + 0.485
    left, right = (512 - 224) / 2 / 512, (512 + 224) / 2 / 512
    assert red[0].item() == pytest.approx(left, abs=0.01) and red[-1].item() == pytest.approx(right, abs=0.01)


def damage(root: Path) -> None:
    victim = root / "train/dog/2.png"
    victim.write_bytes(victim.read_bytes()[:60])
    (root / "val/cat/0.png").write_text("this is no image")


def test_damaged_images_are_skipped_and_counted(root: Path) -> None:
    damage(root)
    training, validation = open_both(root)
    index = training.names.index("train/dog/2.png")
    data = TrainingPictures(training, training_transform(config()), seed=0)
    assert data.skipped() == []
    _, label = data[0, index]
    assert label == 1 and data.skipped() == ["train/dog/2.png"]
    list(zip(range(10), endless_loader(data, batch_size=5, workers=1, seed=0), strict=False))
    assert data.skipped() == ["train/dog/2.png"]  # recorded once, also by loading processes
    items = list(EvaluationPictures(validation, evaluation_transform(32)))
    assert [label for _, label, _ in items] == [-1, 0, 1, 2]


def test_damaged_images_are_refused_if_strict(root: Path) -> None:
    damage(root)
    training, validation = open_both(root)
    data = TrainingPictures(training, training_transform(config()), seed=0, strict=True)
    with pytest.raises(UserError, match=r"train/dog/2\.png: .* damaged; copy it again, or remove --strict"):
        data[0, training.names.index("train/dog/2.png")]
    with pytest.raises(UserError, match=r"val/cat/0\.png"):
        EvaluationPictures(validation, evaluation_transform(32), strict=True)[0]
    with pytest.raises(UnreadablePicture):
        validation.read(0)


def test_ten_damaged_images_in_a_row_end_the_run() -> None:
    def broken(_: int) -> tuple[Image.Image, int]:
        raise OSError("truncated")

    pictures = Pictures([f"{i}.jpg" for i in range(20)], None, ["a", "b"], broken)
    with pytest.raises(UserError, match=r"3\.jpg and the 9 images after it cannot be read"):
        TrainingPictures(pictures, training_transform(config()), seed=0)[0, 3]


def test_the_demos_parts_share_no_pixel() -> None:
    training, test = photographs.demo_pictures(5, 3)
    assert (len(training), len(test)) == (60, 36) and training.classes == test.classes
    for name in photographs.FILES:
        (start, end), (first, last) = (photographs.part(name, split) for split in ("train", "test"))
        assert start == 0 and end + photographs.GAP <= first and last <= photographs.photograph(name).width
        for split, (low, high) in (("train", (start, end)), ("test", (first, last))):
            corners = [photographs.corner(name, split, number)[0] for number in range(40)]
            assert low <= min(corners) and max(corners) + photographs.CROP <= high
            assert len(set(corners)) > 5
    assert training.read(0)[0].size == (photographs.CROP, photographs.CROP)


def test_presets_are_the_published_experiments() -> None:
    small, tiny, base, stl = (PRESETS[f"imagenet_{name}"]() for name in ("small", "tiny", "base", "stl"))
    assert (small.epochs, small.cooldown_epochs, small.warmup_epochs) == (300, 10, 5)
    assert (small.learning_rate, small.final_learning_rate, small.warmup_learning_rate) == (5e-4, 1e-5, 1e-6)
    assert (small.mixup, small.cutmix, small.mixing, small.smoothing) == (0.8, 1.0, 1.0, 0.1)
    assert (small.erasing, small.repeats, small.ema, small.weight_decay) == (0.25, 3, 0.99996, 0.05)
    assert (small.auto_augment, small.colour_jitter, small.image_size) == ("rand-m9-mstd0.5-inc1", 0.4, 224)
    assert [p.drop_path for p in (tiny, small, base, stl)] == [0.1, 0.15, 0.4, 0.1]
    for name, preset in PRESETS.items():
        assert ("unconfirmed" in (preset.__doc__ or "")) == (name in ("imagenet_tiny", "imagenet_base"))


def test_only_images_are_listed_links_are_followed_and_upright_is_optional(root: Path, tmp_path: Path) -> None:
    class_folder = root / "train" / "cat"
    names = open_split(root, "train").names
    (class_folder / "._0.png").write_bytes(b"macOS")
    (class_folder / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (9, 9)).save(class_folder / ".ipynb_checkpoints" / "copy.png")
    assert open_split(root, "train").names == names
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    photograph = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3).repeat(8, 0).repeat(8, 1)[:16])
    photograph.save(elsewhere / "on_its_side.png", exif=_exif(6))
    (root / "train" / "turned").symlink_to(elsewhere)
    pictures = open_split(root, "train")
    index = pictures.names.index("train/turned/on_its_side.png")
    assert pictures.classes == ["cat", "dog", "owl", "turned"]
    upright, stored = pictures.read(index)[0], open_split(root, "train", upright=False).read(index)[0]
    assert (upright.size, stored.size) == ((16, 32), (32, 16))
    assert upright.tobytes() == stored.transpose(Image.Transpose.ROTATE_270).tobytes()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_the_strongest_posterising_of_randaugment_is_black() -> None:
    operations = [
        op for step in training_transform(config()).transforms for op in getattr(step, "ops", ()) if "Poster" in op.name
    ]
    assert operations
    for operation in operations:
        operation.prob, operation.magnitude, operation.magnitude_std = 1.0, 10, 0
        assert np.asarray(operation(Image.new("RGB", (4, 4), (200, 100, 50)))).max() == 0
        operation.magnitude = 5
        assert np.asarray(operation(Image.new("RGB", (4, 4), (200, 100, 50)))).max() == 192
