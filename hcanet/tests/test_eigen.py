"""The small-data form: eigen-images of noisy scenes, what is trained on them, and the way back through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.results import read_rows
from conftest import Verb
from hcanet import create_model
from hcanet.checkpoints import Preparation
from hcanet.data import EigenPatches, Stage
from hcanet.denoising import denoise_scene
from hcanet.eigen import EigenSpace, eigen_images, without_outliers
from hcanet.noise import corrupt, estimated_sigmas


def clean_scene(bands: int = 12, height: int = 40, width: int = 44) -> np.ndarray:
    """Spectra of three materials."""
    rows, columns = np.mgrid[:height, :width] / 20
    parts = np.stack([1 + np.sin(3 * rows), 1 + np.cos(2 * columns), 1 + np.sin(rows * columns)])
    spectra = np.abs(np.random.default_rng(0).standard_normal((bands, 3)))
    return np.einsum("bp,phw->bhw", spectra, parts) / 12


def test_eigen_images_are_principal_components_in_units_of_the_noise() -> None:
    clean = clean_scene()
    sigmas = np.linspace(10, 40, 12)
    noise = np.random.default_rng(1).standard_normal(clean.shape) * sigmas[:, None, None] / 255
    space = EigenSpace.of(clean + noise, sigmas, 4)
    np.testing.assert_allclose(space.vectors.T @ space.vectors, np.eye(4), atol=1e-12)
    assert ((space.vectors * space.mean).sum(axis=0) > 0).all()
    images = space.project(clean + noise)
    centred = ((clean + noise).reshape(12, -1) / (sigmas[:, None] / 255)) - space.mean
    singular = np.linalg.svd(centred, compute_uv=False)[:4]
    np.testing.assert_allclose(np.sqrt((images.reshape(4, -1) ** 2).sum(axis=1)), singular, rtol=1e-9)
    # White noise keeps its standard deviation of one in every eigen-image.
    np.testing.assert_allclose((space.project(clean + noise) - space.project(clean)).std(axis=(1, 2)), 1, atol=0.06)
    exact = EigenSpace.of(clean, sigmas, 4)  # spectra of three materials lie in a space of three dimensions
    np.testing.assert_allclose(exact.back(exact.project(clean)), clean, atol=1e-9)
    with pytest.raises(UserError, match="12 bands, too few for 13 eigen-images"):
        EigenSpace.of(clean, sigmas, 13)


def test_pixels_without_data_take_no_part() -> None:
    noisy = corrupt(clean_scene(), "gaussian", np.random.default_rng(0), sigma=10).image
    valid = np.ones(noisy.shape[1:], dtype=bool)
    valid[:9, :9] = False
    sigmas = estimated_sigmas(noisy)
    damaged = np.where(valid, noisy, 1e4)
    one, other = (EigenSpace.of(image, sigmas, 3, valid) for image in (noisy, damaged))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.mean, other.mean)


def test_outliers_are_replaced_and_the_rest_is_kept() -> None:
    clean = clean_scene(30)
    noisy = corrupt(clean, "gaussian", np.random.default_rng(0), sigma=5).image
    hit = noisy.copy()
    hit[7, :, 11] = 0  # a dead line
    hit[20, 5, 6] = 1  # an impulse
    found = without_outliers(hit, np.full(30, 5.0), 3)
    assert np.abs(found[7, :, 11] - clean[7, :, 11]).max() < 0.1 and abs(found[20, 5, 6] - clean[20, 5, 6]) < 0.1
    kept = found == noisy
    assert kept.mean() > 0.95


def test_samples_are_windows_of_a_noisy_scene_and_its_clean_twin() -> None:
    clean = clean_scene()
    patches = EigenPatches(
        [clean], [Stage(0, "gaussian", 16)], rank=3, crop=16, stride=4, seed=2, batch=1, sigma=20.0, augment=False
    )
    sample = patches[4, 11]
    assert sample["noisy"].shape == sample["clean"].shape == (1, 3, 16, 16)
    assert torch.equal(sample["noisy"], patches[4, 11]["noisy"]), "a sample is the same whenever it is asked for"
    difference = torch.cat([patches[epoch, index]["noisy"] - patches[epoch, index]["clean"]
                            for epoch in range(6) for index in range(20)])  # fmt: skip
    assert float(difference.std()) == pytest.approx(1, abs=0.1)
    copies = {float(patches[epoch, 0]["noisy"].sum()) for epoch in range(60)}
    assert len(copies) == 8, "as many noisy copies as there are draws"


def test_a_scene_goes_through_its_eigen_images_and_comes_back() -> None:
    torch.manual_seed(0)
    model = create_model("hcanet_light", dim=8, bands=4, local_mix="pixel").eval()
    noisy = corrupt(clean_scene(), "case5", np.random.default_rng(0)).image
    found = denoise_scene(model, torch.from_numpy(noisy), Preparation("percentile", 16, 4, outliers=True), 16)
    images, space = eigen_images(noisy, 4, outliers=True)
    with torch.no_grad():
        expected = space.back(model(torch.from_numpy(images).float()[None])[0].double().numpy())
    assert found.shape == noisy.shape and np.isfinite(found.numpy()).all()
    whole = denoise_scene(model, torch.from_numpy(noisy), Preparation("percentile", 16, 4, outliers=True))
    np.testing.assert_allclose(whole.numpy(), expected, atol=1e-5)


QUICK = (
    *("--model", "hcanet_light", "--dim", 8, "--eigen-images", 3, "--local-mix", "pixel", "--crop", 16, "--workers", 0),
    *("--batch-size", 2, "--order", "gaussian", "--epochs", 1, "--validate-every", 2, "--log-every", 1),
)


@pytest.mark.usefixtures("undrawn")
def test_training_scoring_and_prediction_agree(scene: Path, verb: Verb, tmp_path: Path) -> None:
    run = tmp_path / "run"
    verb("train", "--cube", scene, "--output", run, *QUICK, "--iterations", 4, "--max-steps", 2, "--save-every", 1)
    verb("train", "--cube", scene, "--output", run, *QUICK, "--iterations", 4, "--save-every", 1)
    verb("train", "--cube", scene, "--output", tmp_path / "straight", *QUICK, "--iterations", 4)
    one, other = ((folder / "model/model.safetensors").read_bytes() for folder in (run, tmp_path / "straight"))
    assert one == other
    stored = json.loads((run / "model/preparation.json").read_text())
    assert (stored["eigen_images"], stored["outliers"], stored["tile"]) == (3, False, 16)
    done = verb("evaluate", "--checkpoint", run, "--output", tmp_path / "scores")
    assert "3 eigen-images" in done.stdout
    values = [
        next(row.value for row in read_rows(folder / "results.json") if row.metric == "PSNR (dB)")
        for folder in (run, tmp_path / "scores")
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    verb("predict", "--checkpoint", run, "--input", scene, "--output", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == np.load(scene).shape


def test_stages_of_several_crops_are_refused(scene: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--iterations", 2, "--crops", 8)
    assert "--crops cannot be combined" in verb("train", *flags, status=2).stderr


def test_more_eigen_images_than_bands_are_refused(scene: Path, verb: Verb, tmp_path: Path) -> None:
    flags = ("--cube", scene, "--output", tmp_path, *QUICK, "--iterations", 2, "--eigen-images", 9)
    assert "a training scene has 7 bands, fewer than --eigen-images 9" in verb("train", *flags, status=2).stderr
