"""Scenes of any size in every format: tiles without seams, wavelengths, place, types, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from common.errors import UserError
from common.hyperspectral.envi import read_header
from common.hyperspectral.geotiff import write_geotiff
from common.hyperspectral.readers import read_array
from common.hyperspectral.stored import Georeference
from essaformer import create_model, imresize
from essaformer.checkpoints import save_scaling
from essaformer.scaling import Scaling
from essaformer.tiling import bytes_per_pixel, enlarge_tiled, fixed_bytes, tile_for_memory, tiling_for
from support.data import real_data
from support.seams import TOLERANCE, seams

WAVELENGTHS = np.linspace(400, 900, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gives bicubic's result exactly, so that outputs can be worked out."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_scaling(Scaling("maximum"), folder)
    create_model("essaformer_small", bands=4, dim=16, scale=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = imresize(rng.random((4, 8, 10)), size=(20, 26)).transpose(1, 2, 0)
    return np.clip(smooth * 3000, 0, 4000).astype(np.int16)


def bicubic(cube: np.ndarray) -> np.ndarray:
    values = np.moveaxis(imresize(np.moveaxis(cube.astype(np.float64), -1, 0), 2.0), 0, -1)
    return np.rint(values)


@pytest.fixture(scope="module")
def predict(verb):
    def call(checkpoint: Path, source: object, output: Path, *arguments: object, status: int = 0):
        flags = ("--checkpoint", checkpoint, "--input", source, "--output", output, *arguments)
        return verb("predict", *flags, status=status)

    return call


def envi(folder: Path, cube: np.ndarray) -> Path:
    cube.transpose(2, 0, 1).astype("<i2").tofile(folder / "scene.img")
    (folder / "scene.hdr").write_text(
        f"ENVI\nsamples = {cube.shape[1]}\nlines = {cube.shape[0]}\nbands = 4\ndata type = 2\ninterleave = bsq\n"
        "byte order = 0\nwavelength units = Nanometers\nwavelength = {400, 566.667, 733.333, 900}\n"
        "map info = {UTM, 1.5, 1.5, 500000, 4200000, 30, 30, 10, North, WGS-84}\n"
    )
    return folder / "scene.hdr"


def test_envi_in_and_out(predict, checkpoint: Path, cube: np.ndarray, tmp_path: Path) -> None:
    predict(checkpoint, envi(tmp_path, cube), tmp_path / "large.hdr")
    stored = read_array(tmp_path / "large.hdr", (3,))
    assert stored.values.dtype == np.int16 and np.abs(stored.values - bicubic(cube)).max() <= 1
    np.testing.assert_allclose(stored.wavelengths, WAVELENGTHS, atol=0.01)
    # The tie point is the centre of pixel 1 (position 0.5 from the corner): 1.0 in pixels of half the size.
    tags = stored.georeference.tags
    assert tags[33550][:2] == (15, 15) and tags[33922][:2] == (1.0, 1.0) and tags[33922][3:5] == (500000, 4200000)
    for name in ("large_before_after.png", "large_spectra.png"):
        assert min(Image.open(tmp_path / name).size) > 100


def test_geotiff_in_and_out(predict, checkpoint: Path, cube: np.ndarray, tmp_path: Path) -> None:
    tags = {33550: (30.0, 30.0, 0.0), 33922: (0.0, 0.0, 0.0, 500000.0, 4200000.0, 0.0)}
    write_geotiff(tmp_path / "scene.tif", cube, Georeference(tags))
    predict(checkpoint, tmp_path / "scene.tif", tmp_path / "large.tif")
    stored = read_array(tmp_path / "large.tif", (3,))
    assert stored.values.shape == (40, 52, 4) and stored.georeference.tags[33550][:2] == (15.0, 15.0)
    assert np.abs(stored.values - bicubic(cube)).max() <= 1


def test_matlab_keeps_its_key_and_reports_against_the_truth(
    predict, checkpoint: Path, cube: np.ndarray, tmp_path: Path
) -> None:
    scipy.io.savemat(tmp_path / "scene.mat", {"radiance": cube})
    done = predict(checkpoint, f"{tmp_path / 'scene.mat'}:radiance", tmp_path / "again.mat", "--reduce")
    assert scipy.io.loadmat(tmp_path / "again.mat")["radiance"].shape == cube.shape
    assert done.stdout.count("ERGAS") == 2 and "bicubic: PSNR" in done.stdout


def test_small_tiles_leave_no_seam(predict, checkpoint: Path, cube: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", cube)
    done = predict(checkpoint, tmp_path / "scene.npy", tmp_path / "large.npy", "--tile", 12)
    assert "tiles of 12 × 12" in done.stdout
    assert np.abs(np.load(tmp_path / "large.npy") - bicubic(cube))[6:-6, 6:-6].max() <= 40  # of 4,000
    predict(checkpoint, tmp_path / "scene.npy", tmp_path / "whole.npy", "--tile", 100)  # larger than the scene
    assert np.abs(np.load(tmp_path / "whole.npy") - bicubic(cube)).max() <= 1


def test_tiles_of_a_local_network_equal_the_whole() -> None:
    """Without attention the network is local, and tiles must give exactly what the whole gives."""
    torch.manual_seed(0)
    model = create_model("essaformer", bands=3, dim=8, scale=2).eval()
    with torch.no_grad():
        for encoder in (model.encode_up, model.encode_down):
            encoder.attn.qkv.weight[:16] = 0
            encoder.attn.qkv.bias[:16] = 1
    low = torch.rand(3, 90, 41)
    whole, tiled = enlarge_tiled(model, low, 90), enlarge_tiled(model, low, 72, 64)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tile", [16, 24, 40, 64])
def test_a_scene_shows_no_seam(tile: int) -> None:
    scene = scipy.io.loadmat(real_data("abu_aviris") / "abu-airport-2.mat")["data"][..., 20:26].astype(np.float32)
    low = torch.from_numpy(scene / scene.max()).permute(2, 0, 1)
    torch.manual_seed(0)
    model = create_model("essaformer_small", bands=6, dim=8, scale=2, global_residual=False).eval()
    whole, tiled = enlarge_tiled(model, low, 100), enlarge_tiled(model, low, tile)
    largest, share = seams(model, low, tiling_for(tile, 2))
    assert largest < TOLERANCE and 0 < share < 0.1
    assert (tiled - whole).abs().mean() < 0.05 * whole.std()


def test_memory_chooses_the_tile() -> None:
    model = create_model("essaformer_small", bands=4, dim=16, scale=2)
    weights = fixed_bytes(model)
    assert tile_for_memory(model, weights + 50**2 * bytes_per_pixel(model), 400, 300) == 50
    assert tile_for_memory(model, 2**34, 40, 30) == 40
    with pytest.raises(UserError, match="too small for this network"):
        tile_for_memory(model, weights, 400, 300)


def test_a_constant_band_and_clipped_values_are_mentioned(
    predict, checkpoint: Path, cube: np.ndarray, tmp_path: Path
) -> None:
    odd = cube.copy()
    odd[..., 2], odd[0, 0, 0] = 5, -7
    np.save(tmp_path / "odd.npy", odd)
    done = predict(checkpoint, tmp_path / "odd.npy", tmp_path / "large.npy")
    assert "1 bands are constant" in done.stdout and "below 0" in done.stdout
    assert np.load(tmp_path / "large.npy")[..., 2] == pytest.approx(5)


def test_bright_integers_do_not_overflow(predict, checkpoint: Path, tmp_path: Path) -> None:
    """Bicubic overshoots beside an edge of the brightest and the darkest value."""
    cube = np.zeros((12, 12, 4), np.uint16)
    cube[:, 6:] = 65_535
    np.save(tmp_path / "edge.npy", cube)
    predict(checkpoint, tmp_path / "edge.npy", tmp_path / "large.npy")
    large = np.load(tmp_path / "large.npy")
    assert large[:, :9].max() == 0 and large[:, 15:].min() == 65_535


PROBLEMS = {
    "bands": ("has 3 bands but the checkpoint was trained on 4", ()),
    "nan": ("no pixel holds data", ()),
    "missing": ("no such file", ()),
    "format": ("unknown kind of file", ()),
    "exists": ("exists; add --existing replace", ()),
    "truth": ("expected (40, 52, 4), 2 × the input", ("--truth", "scene.npy")),
    "both": ("leave out --truth", ("--truth", "scene.npy", "--reduce")),
    "input": ("would replace a file of the input", ("--existing", "replace")),
    "tile": ("--tile -5: expected a number above 0", ("--tile", "-5")),
    "no tile": ("--tile 0: expected a number above 0", ("--tile", "0")),
    "memory": ("--memory plenty: expected a size", ("--memory", "plenty")),
    "device": ("--device gpu: no such device", ("--device", "gpu")),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_bad_input_is_one_sentence(predict, problem: str, checkpoint: Path, cube: np.ndarray, tmp_path: Path) -> None:
    source, output = tmp_path / "scene.npy", tmp_path / "large.npy"
    np.save(source, cube[..., :3] if problem == "bands" else cube)
    expected, more = PROBLEMS[problem]
    if problem == "nan":
        np.save(source, np.where(np.arange(4) == 1, np.nan, cube.astype(np.float32)))
    elif problem == "missing":
        source.unlink()
    elif problem == "format":
        output = tmp_path / "large.png"
    elif problem == "exists":
        output.touch()
    elif problem == "input":
        output = source
    before = source.read_bytes() if source.exists() else b""
    more = [source if flag == "scene.npy" else flag for flag in more]
    done = predict(checkpoint, source, output, *more, status=2)
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert problem == "missing" or source.read_bytes() == before


def test_a_header_or_binary_of_the_input_is_not_replaced(predict, checkpoint: Path, cube, tmp_path: Path) -> None:
    """The output scene.dat would bring the header scene.hdr, which is the input's."""
    header = envi(tmp_path, cube)
    text = header.read_text()
    done = predict(checkpoint, header, tmp_path / "scene.dat", "--existing", "replace", status=2)
    assert "scene.hdr: would replace a file of the input" in done.stderr and header.read_text() == text


def test_finished_work_is_skipped_or_replaced_as_asked(predict, checkpoint: Path, cube, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", cube)
    (tmp_path / "large.npy").write_bytes(b"finished")
    predict(checkpoint, tmp_path / "scene.npy", tmp_path / "large.npy", "--existing", "skip")
    assert (tmp_path / "large.npy").read_bytes() == b"finished"
    predict(checkpoint, tmp_path / "scene.npy", tmp_path / "large.npy", "--existing", "replace")
    assert np.abs(np.load(tmp_path / "large.npy") - bicubic(cube)).max() <= 1


def test_bands_first_is_told_for_input_and_truth(predict, checkpoint: Path, cube, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", cube.transpose(2, 0, 1))
    np.save(tmp_path / "truth.npy", bicubic(cube).transpose(2, 0, 1))
    flags = ("--band-axis", "first", "--truth", tmp_path / "truth.npy")
    done = predict(checkpoint, tmp_path / "scene.npy", tmp_path / "large.npy", *flags)
    assert np.abs(np.load(tmp_path / "large.npy") - bicubic(cube)).max() <= 1
    assert float(done.stdout.partition("PSNR (dB) ")[2].partition(",")[0]) > 60


def test_envi_fields_of_the_bands_stay_as_they_are(predict, checkpoint: Path, cube, tmp_path: Path) -> None:
    header = envi(tmp_path, cube)
    text = (
        header.read_text()
        .replace("Nanometers", "Micrometers")
        .replace("400, 566.667, 733.333, 900", "0.4, 0.5, 0.6,\n 0.7")
    )
    header.write_text(f"{text}fwhm = {{0.01, 0.02, 0.03, 0.04}}\nband names = {{a, b, c, d}}\nsensor type = AVIRIS\n")
    predict(checkpoint, header, tmp_path / "large.hdr")
    fields = read_header(tmp_path / "large.hdr")
    assert fields["fwhm"] == "0.01, 0.02, 0.03, 0.04" and fields["band names"] == "a, b, c, d"
    assert fields["wavelength units"] == "Micrometers" and fields["sensor type"] == "AVIRIS"
    np.testing.assert_allclose(read_array(tmp_path / "large.hdr", (3,)).wavelengths, [400, 500, 600, 700])
