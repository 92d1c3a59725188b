"""Scenes of any size and band count in every format: groups, tiles without seams, types, no-data, and bad input."""

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
from common.hyperspectral.scene import open_scene
from common.hyperspectral.stored import Georeference
from conftest import Verb
from hcanet import HCANet
from hcanet.checkpoints import Preparation, save_preparation
from hcanet.denoising import band_groups, bytes_per_pixel, denoise, tile_for_memory, tiling
from hcanet.scaling import restored
from support.data import real_data
from support.seams import TOLERANCE, seams

WAVELENGTHS = np.linspace(400, 900, 9)


class Twice(torch.nn.Module):
    """Replaces a network of four bands whose result depends on the position among its four bands."""

    bands = 4

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor[:, None, None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose last convolution is zero: it gives its input, so that outputs can be worked out."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_preparation(Preparation("minmax", 16), folder)
    model = HCANet(4, 4, num_blocks=(1, 0, 0), num_refinement_blocks=0)
    torch.nn.init.zeros_(model.output.weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    rows, columns = np.mgrid[:20, :26] / 10
    base = 1500 + 1000 * np.sin(rows)[..., None] * np.cos(columns)[..., None] * np.linspace(0.2, 1, 9)
    return (base + np.random.default_rng(0).normal(0, 50, base.shape)).astype(np.int16)


def test_groups_of_bands() -> None:
    assert band_groups(8, 4) == [(0, 0), (4, 4)]
    assert band_groups(9, 4) == [(0, 0), (4, 4), (5, 8)]
    assert band_groups(205, 31)[-1] == (174, 186) and len(band_groups(205, 31)) == 7
    with pytest.raises(UserError, match="has 3 bands but the network needs 4"):
        band_groups(3, 4)


def test_every_band_comes_from_its_own_group() -> None:
    x = torch.rand(9, 12, 10)
    expected = x * torch.tensor([1.0, 2, 3, 4, 1, 2, 3, 4, 4])[:, None, None]
    for tile in (None, 5, 8):
        torch.testing.assert_close(denoise(Twice(), x, tile, batch=3), expected)  # type: ignore[arg-type]


def test_pixel_tiles_leave_no_seams() -> None:
    torch.manual_seed(0)
    model = HCANet(4, 8, num_blocks=(1, 1, 1), local_mix="pixel").eval()
    x = torch.rand(4, 48, 40)
    whole, tiled = denoise(model, x), denoise(model, x, 32)
    assert 0 < seams(model, x, tiling(32))[1] < 0.3
    # The global branch sees a tile instead of the whole, so a little differs.
    assert (whole - tiled).abs().mean() < 0.05 * (whole - x).abs().mean()


@pytest.mark.parametrize("tile", [16, 32, 64])
@pytest.mark.parametrize(("local_mix", "bound"), [("pixel", 0.5), ("released", 0.9)])
def test_a_scene_shows_no_seam(tile: int, local_mix: str, bound: float) -> None:
    scene = scipy.io.loadmat(real_data("abu_aviris") / "abu-airport-2.mat")["data"][..., 20:26].astype(np.float32)
    noisy = torch.from_numpy(scene / scene.max()).permute(2, 0, 1)
    torch.manual_seed(0)
    model = HCANet(6, 8, num_blocks=(1, 1, 1), local_mix=local_mix).eval()
    largest, share = seams(model, noisy, tiling(tile))
    assert largest < TOLERANCE and 0 < share < bound, "in released mode a tile differs from the whole everywhere"


def test_tiles_follow_the_memory() -> None:
    model = HCANet(4, 8, num_blocks=(1, 1, 1))
    need = bytes_per_pixel(model)
    assert tile_for_memory(model, need * 1000 * 1000, 300, 500) == 500
    assert tile_for_memory(model, need * 64 * 64, 300, 500) == 64


def write(path: Path, cube: np.ndarray) -> str:
    """The scene in the format of the suffix; returns what to pass as --input."""
    if path.suffix == ".npy":
        np.save(path, cube)
    elif path.suffix == ".npz":
        np.savez(path, cube=cube)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"scene": cube})
        return f"{path}:scene"
    elif path.suffix == ".tif":
        write_geotiff(path, cube)
    else:
        cube.transpose(2, 0, 1).tofile(path.with_suffix(".img"))
        listed = ", ".join(map(str, WAVELENGTHS))
        path.write_text(
            f"ENVI\nsamples = {cube.shape[1]}\nlines = {cube.shape[0]}\nbands = {cube.shape[2]}\ndata type = 2\n"
            "interleave = bsq\nbyte order = 0\nmap info = {UTM, 1, 1, 500000, 4500000, 30, 30, 33, North, WGS-84}\n"
            f"wavelength units = Nanometers\nwavelength = {{{listed}}}\n"
        )
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif", ".hdr"])
def test_every_format_comes_back_as_it_went_in(
    suffix: str, checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path
) -> None:
    source = write(tmp_path / f"scene{suffix}", cube)
    target = tmp_path / f"clean{suffix}"
    axis = ("--band-axis", "last") if suffix == ".tif" else ()
    done = verb("predict", "--checkpoint", checkpoint, "--input", source, "--output", target, *axis)
    assert "3 group(s) of 4 bands, tiles of 16 × 16 pixels, the size it was trained on" in done.stdout
    found = open_scene(target, band_axis="last") if suffix == ".tif" else open_scene(target)
    assert found.cube.dtype == cube.dtype
    np.testing.assert_array_equal(found.cube, cube)
    if suffix == ".hdr":
        np.testing.assert_allclose(found.wavelengths, WAVELENGTHS)
        assert found.georeference is not None and found.georeference.tags[33550][0] == 30
    for name in ("before_after", "spectra"):
        assert min(Image.open(tmp_path / f"clean_{name}.png").size) > 100


def test_the_georeference_of_a_geotiff_goes_into_an_envi_header(
    checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path
) -> None:
    keys = (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32654)
    tags = {33550: (30.0, 30.0, 0.0), 33922: (0.0, 0.0, 0.0, 500000.0, 4200000.0, 0.0), 34735: keys}
    write_geotiff(tmp_path / "scene.tif", cube, Georeference(tags))
    flags = ("--checkpoint", checkpoint, "--input", tmp_path / "scene.tif", "--band-axis", "last")
    verb("predict", *flags, "--output", tmp_path / "clean.hdr")
    place = read_header(tmp_path / "clean.hdr")["map info"].split(", ")
    assert place[:9] == ["UTM", "1", "1", "500000", "4200000", "30", "30", "54", "North"]


def test_the_noise_level_of_every_band_is_printed(checkpoint: Path, verb: Verb, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:60, :60] / 60
    clean = np.repeat(np.sin(3 * rows + columns)[..., None], 6, axis=2)
    noisy = clean + np.random.default_rng(0).standard_normal(clean.shape) * np.array([0, 0.1, 0.2, 0, 0, 0])
    noisy[0, 0], noisy[0, 1] = -2, 3  # least and largest value: five units make 255
    np.save(tmp_path / "scene.npy", noisy)
    done = verb(
        "predict", "--checkpoint", checkpoint, "--input", tmp_path / "scene.npy", "--output", tmp_path / "o.npy"
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  band")]
    levels = [float(value) for value in line.partition(":")[2].split()]
    assert levels == pytest.approx([0, 5.1, 10.2, 0, 0, 0], abs=0.6)


def test_pixels_without_data_stay(checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path) -> None:
    holed = cube.copy()
    holed[:4, :5] = -9999
    write_geotiff(tmp_path / "scene.tif", holed, no_data=-9999)
    flags = ("--checkpoint", checkpoint, "--input", tmp_path / "scene.tif", "--band-axis", "last")
    done = verb("predict", *flags, "--output", tmp_path / "clean.tif")
    assert "20 of 520 pixels hold no data" in done.stdout
    stored = read_array(tmp_path / "clean.tif", (3,))
    assert stored.no_data == -9999
    np.testing.assert_array_equal(stored.values, holed)


@pytest.mark.filterwarnings("error")
def test_what_the_file_declares_is_said_and_a_small_scene_has_no_level(
    checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path
) -> None:
    header = Path(write(tmp_path / "scene.hdr", cube[:1, :2]))
    header.write_text(f"{header.read_text()}data gain values = {{2, 2, 2, 2, 2, 2, 2, 2, 2}}\n")
    flags = ("--checkpoint", checkpoint, "--input", header, "--output", tmp_path / "clean.hdr")
    done = verb("predict", *flags)
    assert "note: the header gives data gain values" in done.stdout and "nan" not in done.stdout


def test_integers_are_clipped_never_wrapped() -> None:
    cube = np.zeros((1, 3, 1), dtype=np.uint8)
    scene = open_scene_of(cube)
    found = restored(np.array([[[-0.5, 0.5, 1.5]]]), 0.0, 200.0, scene)
    assert found.dtype == np.uint8 and found[0, :, 0].tolist() == [0, 100, 255]


def open_scene_of(cube: np.ndarray):
    from common.hyperspectral.scene import make_scene

    return make_scene("x", cube)


def test_existing_outputs(checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path) -> None:
    source = write(tmp_path / "scene.npy", cube)
    target = tmp_path / "clean.npy"
    target.write_text("mine")
    flags = ("--checkpoint", checkpoint, "--input", source, "--output", target)
    assert "add --existing replace" in verb("predict", *flags, status=2).stderr
    assert "nothing done" in verb("predict", *flags, "--existing", "skip").stdout
    assert target.read_text() == "mine"
    verb("predict", *flags, "--existing", "replace", "--tile", 12)
    np.testing.assert_array_equal(np.load(target), cube)
    target.unlink()
    assert "clean_before_after.png: exists; add --existing replace" in verb("predict", *flags, status=2).stderr


def test_no_file_of_the_input_is_replaced(checkpoint: Path, cube: np.ndarray, verb: Verb, tmp_path: Path) -> None:
    for name, output in (("scene.npy", "scene.npy"), ("scene.hdr", "scene.img"), ("scene.hdr", "scene.dat")):
        source = write(tmp_path / name, cube)
        before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
        flags = ("--checkpoint", checkpoint, "--input", source, "--output", tmp_path / output)
        done = verb("predict", *flags, "--existing", "replace", status=2)
        assert "would replace a file of the input" in done.stderr
        assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
    # The other way round: the binary is named, and the output's header would bring a binary of that name.
    done = verb(
        "predict", *flags[:2], "--input", tmp_path / "scene.img", "--output", tmp_path / "scene.hdr", "--existing",
        "replace", status=2,
    )  # fmt: skip
    assert "would replace a file of the input" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "clean.xyz"), "unknown kind of file"),
        (("--device", "gpu"), "no such device; expected auto, cpu"),
        (("--memory", "much"), "expected a size with a unit"),
        (("--input", "none.npy"), "none.npy"),
        (("--tile", 0), "--tile 0: expected a number above 0"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple, message: str, checkpoint: Path, verb: Verb, tmp_path: Path
) -> None:
    source = write(tmp_path / "scene.npy", np.ones((20, 26, 4)).cumsum(0))
    flags = ("--checkpoint", checkpoint, "--input", source, "--output", tmp_path / "clean.npy")
    done = verb("predict", *flags, *arguments, status=2)
    assert message in done.stderr and "Traceback" not in done.stderr


def test_fewer_bands_than_the_network_are_refused(checkpoint: Path, verb: Verb, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", np.random.default_rng(0).random((20, 20, 3)))
    flags = ("--checkpoint", checkpoint, "--input", tmp_path / "scene.npy", "--output", tmp_path / "o.npy")
    assert "has 3 bands but the network needs 4" in verb("predict", *flags, status=2).stderr
