"""Splits and scores: which images train, which select weights, and every score computed a second time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity

from common.results import read_rows
from fftformer import FFTformer, load_model


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64) / 255


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(one - other).mean()))


def restored(model: Path, blurred: Path) -> np.ndarray:
    """The output of the network, clipped and rounded to 8 bits."""
    with torch.no_grad():
        image = load_model(model)(torch.from_numpy(read(blurred)).float().permute(2, 0, 1)[None])[0]
    return np.rint(image.permute(1, 2, 0).double().numpy().clip(0, 1) * 255) / 255


def scored(model: Path, folder: Path, names: list[str]) -> float:
    """Mean PSNR of a folder's pairs, by hand."""
    pairs = [(restored(model, folder / "input" / f"{n}.png"), read(folder / "target" / f"{n}.png")) for n in names]
    return float(np.mean([psnr(*pair) for pair in pairs]))


def validations(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["validation_psnr"] for line in lines if "validation_psnr" in line]


def rows_of(folder: Path, preset: str | None = None) -> dict[str, float]:
    rows = read_rows(folder / "results.json")
    return {row.metric: row.value for row in rows if preset is None or row.preset == preset}


class TestSplits:
    def test_validation_scores_the_test_split(
        self, train: Callable[..., Path], pairs_folder: Path, tmp_path: Path
    ) -> None:
        run = train(tmp_path / "run", "--validate-every", 0)
        names = json.loads((run / "splits.json").read_text())
        assert names == {"train": ["0", "1", "2", "3", "4"], "validation": ["0", "1", "2"]}
        expected = scored(run / "model", pairs_folder / "test", ["0", "1", "2"])
        # The tolerance is so small that the rounding to 8 bits is tested too.
        assert validations(run) == [pytest.approx(expected, abs=1e-5)]
        assert rows_of(run)["PSNR (dB)"] == pytest.approx(expected, abs=1e-5)
        assert abs(expected - scored(run / "model", pairs_folder / "train", ["0", "1", "2"])) > 0.1

    def test_wrong_test_targets_change_no_weight(
        self, train: Callable[..., Path], pairs_folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(pairs_folder, tmp_path / "data")
        for path in (tmp_path / "data/test/target").iterdir():
            with Image.open(path) as image:
                size = image.size
            Image.fromarray(np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)).save(path)
        runs = [
            train(tmp_path / name, "--validate-every", 1, root=root)
            for name, root in (("sound", pairs_folder), ("nonsense", tmp_path / "data"))
        ]
        exported = [{path.relative_to(run) for path in run.rglob("*.safetensors")} for run in runs]
        assert exported[0] == exported[1] == {Path("model/model.safetensors")}
        sound, nonsense = (load_model(run / "model").state_dict() for run in runs)
        assert all(torch.equal(sound[name], nonsense[name]) for name in sound)
        assert rows_of(runs[0])["PSNR (dB)"] > rows_of(runs[1])["PSNR (dB)"] + 5

    def test_held_out_pairs_do_not_train_and_select_the_best_weights(
        self, train: Callable[..., Path], pairs_folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(pairs_folder / "train", tmp_path / "data/train")  # there is no test split
        flags = ("--validation", "held_out", "--validation-pictures", 2, "--validate-every", 1)
        # The steps are so large that the last weights are not the best.
        run = train(tmp_path / "run", *flags, "--learning-rate", 0.05, "--clip", 10, root=tmp_path / "data")
        assert json.loads((run / "splits.json").read_text()) == {"train": ["1", "2", "4"], "validation": ["0", "3"]}
        recorded = validations(run)
        assert len(recorded) == 3 and recorded.index(max(recorded)) < 2
        best = scored(run / "model_best", tmp_path / "data/train", ["0", "3"])
        assert best == pytest.approx(max(recorded), abs=0.01)
        assert scored(run / "model", tmp_path / "data/train", ["0", "3"]) == pytest.approx(recorded[-1], abs=0.01)
        # Wrong held-out pairs change which weights are selected, but not the training.
        for path in (tmp_path / "data/train/input/0.png", tmp_path / "data/train/target/0.png"):
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        again = train(tmp_path / "again", *flags, "--learning-rate", 0.05, "--clip", 10, root=tmp_path / "data")
        one, other = (load_model(folder / "model").state_dict() for folder in (run, again))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_pairs_that_train_and_validate_are_refused(
        self, train: Callable[..., Path], pairs_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(pairs_folder / "train", tmp_path / "data")  # a layout without splits
        train(tmp_path / "run", root=tmp_path / "data", status=2)
        assert "used for training and for validation" in capfd.readouterr().err
        train(tmp_path / "run2", "--validation", "held_out", "--validation-pictures", 1, root=tmp_path / "data")

    def test_a_preset_without_its_data_is_refused(
        self, call: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert call("train.py", "--preset", "realblur_j", "--output", tmp_path / "run") == 2
        assert "--preset realblur_j: needs a data set" in capfd.readouterr().err


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that returns its input, so that the scores depend on the protocol alone."""
    model = FFTformer(8, (1, 1, 1), 1)
    torch.nn.init.zeros_(model.output.weight)
    folder = tmp_path_factory.mktemp("identity") / "model"
    model.save_pretrained(folder)
    return folder


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, image.shape)
    return np.rint((image + noise).clip(0, 255)).astype(np.uint8)


@pytest.fixture
def evaluate(identity: Path, call: Callable[..., int], tmp_path: Path) -> Callable[[], dict[str, float]]:
    """Score tmp_path/data with the identity; the rows of restored and of blurred images are equal."""

    def score() -> dict[str, float]:
        output = tmp_path / "out"
        assert call("evaluate.py", "--checkpoint", identity, "--data-root", tmp_path / "data", "--output", output) == 0
        found = rows_of(output, preset="unknown")
        assert found == pytest.approx(rows_of(output, preset="blurred input"), abs=1e-3)
        return found

    return score


class TestScores:
    photograph = data.astronaut()

    def test_gopro(self, evaluate: Callable[[], dict[str, float]], tmp_path: Path) -> None:
        expected = []
        for number in range(2):
            sharp = self.photograph[:64, 100 * number : 100 * number + 80]
            for side, image in (("blur", noisy(sharp, number)), ("sharp", sharp)):
                path = tmp_path / f"data/test/GOPR_{number}/{side}/000001.png"
                path.parent.mkdir(parents=True)
                Image.fromarray(image).save(path)
            pair = (noisy(sharp, number) / 255, sharp / 255)
            gaussian = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1.0, "channel_axis": 2}
            expected.append((psnr(*pair), structural_similarity(*pair, **gaussian)))
        found = evaluate()
        assert found["PSNR (dB)"] == pytest.approx(np.mean(expected, axis=0)[0], abs=1e-4)
        assert found["SSIM (2-D)"] == pytest.approx(np.mean(expected, axis=0)[1], abs=1e-5)

    def test_rows_state_the_tiles(self, identity: Path, call: Callable[..., int], tmp_path: Path) -> None:
        path = tmp_path / "data/test"
        for side in ("input", "target"):
            (path / side).mkdir(parents=True)
            Image.fromarray(self.photograph[:320, :320]).save(path / side / "1.png")
        for memory, said in (("1G", "test, 1 image"), ("100M", "test, 1 image, in tiles of 192 × 192")):
            output = tmp_path / memory
            flags = ("--data-root", tmp_path / "data", "--memory", memory, "--output", output)
            assert call("evaluate.py", "--checkpoint", identity, *flags) == 0
            assert {row.split for row in read_rows(output / "results.json")} == {said}

    def test_realblur_is_aligned(self, evaluate: Callable[[], dict[str, float]], tmp_path: Path) -> None:
        """A displaced and darkened image has a bad score without and a good one with the authors' alignment."""
        big = self.photograph[20:190, 150:330]
        sharp, blurred = big[5:-5, 5:-5], noisy(0.9 * big[8:-2, 3:-7], 0)
        for name, image in (("gt/gt_1.png", sharp), ("blur/blur_1.png", blurred)):
            path = tmp_path / "data/RealBlur-J/scene001" / name
            path.parent.mkdir(parents=True)
            Image.fromarray(image).save(path)
        listing = "RealBlur-J/scene001/gt/gt_1.png RealBlur-J/scene001/blur/blur_1.png\n"
        (tmp_path / "data/RealBlur_J_test_list.txt").write_text(listing)
        found = evaluate()
        assert found["PSNR (dB)"] == pytest.approx(realblur_psnr(blurred / 255, sharp / 255), abs=1e-3)
        assert found["PSNR (dB)"] > 32 and psnr(blurred / 255, sharp / 255) < 25
        assert set(found) == {"PSNR (dB)", "SSIM"} and found["SSIM"] > 0.8

    def test_levin_is_scored_at_the_best_shift(self, evaluate: Callable[[], dict[str, float]], tmp_path: Path) -> None:
        sharp = self.photograph[100:200, 150:270]
        (tmp_path / "data/gt").mkdir(parents=True)
        Image.fromarray(sharp).save(tmp_path / "data/gt/im1.png")
        expected = []
        for number, shift in enumerate([(4, -6), (-2, 3)], start=1):
            blurred = noisy(np.roll(sharp, shift, (0, 1)), number)
            Image.fromarray(blurred).save(tmp_path / f"data/im1_kernel{number}_img.png")
            shifts = [(i, j) for i in range(-6, 7) for j in range(-6, 7)]
            inner = [np.roll(blurred / 255, shift, (0, 1))[20:-20, 20:-20] for shift in shifts]
            expected.append(max(psnr(image, (sharp / 255)[20:-20, 20:-20]) for image in inner))
            assert psnr(blurred / 255, sharp / 255) < expected[-1] - 10
        found = evaluate()
        assert found["PSNR (dB)"] == pytest.approx(np.mean(expected), abs=1e-3)


def realblur_psnr(output: np.ndarray, target: np.ndarray) -> float:
    """The evaluation of RealBlur's authors, implemented again from its description."""
    output, target = output.astype(np.float32), target.astype(np.float32)
    output = output * ((target * output).sum() / (output * output).sum())
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (target, output)]
    _, warp = cv2.findTransformECC(*grey, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, (3, 100, 0), None, 5)
    size = target.shape[1::-1]
    back = {"dsize": size, "borderMode": cv2.BORDER_REFLECT, "flags": cv2.INTER_CUBIC + cv2.WARP_INVERSE_MAP}
    warped = cv2.warpPerspective(output, warp, **back)
    nearest = cv2.INTER_NEAREST + cv2.WARP_INVERSE_MAP
    mask = cv2.warpPerspective(np.ones_like(target), warp, size, flags=nearest, borderMode=cv2.BORDER_CONSTANT)
    error = np.square((warped * mask).clip(0, 1) - (target * mask).clip(0, 1), dtype=np.float64)
    return float(10 * np.log10(mask.sum() / error.sum()))
