"""Scenes on disk, window by window: the whole scene's result, exact after kills and with two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from scipy import ndimage

from common import files
from common.errors import UserError
from common.files import PLAN, finished_windows, remove_windows
from common.hyperspectral import raster, streaming
from common.hyperspectral.layers import Layer, make_cog, write_layer
from common.hyperspectral.raster import Raster, boxes, larger_than
from common.hyperspectral.streaming import halo, tile_side, window_side
from support.rasters import smooth_scene, write_raster
from support.scripts import call_script, run_script

TOY = Path(__file__).parent / "toy_stream.py"
PLAIN = (0, "refuse")
CUBE = smooth_scene(75, 90, 3)
WINDOWS = 9


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", CUBE)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1)


def smoothed(cube: np.ndarray) -> np.ndarray:
    smooth = ndimage.uniform_filter(cube.astype(np.float64), (7, 7, 1), mode="nearest")
    return np.rint(smooth).astype(cube.dtype)


@pytest.mark.parametrize("form", ["scene.tif", "tiled.tif", "scene.img", "bip.img"])
def test_windows_give_the_whole_scene_s_result(form: str, tmp_path: Path) -> None:
    profiles = {"tiled.tif": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "lzw"}}
    profiles |= {"bip.img": {"interleave": "bip"}}
    driver = "GTiff" if form.endswith("tif") else "ENVI"
    source = write_raster(tmp_path / form, CUBE, driver=driver, **profiles.get(form, {}))
    call_script(TOY, source, tmp_path / "out.tif", -1, *PLAIN)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), smoothed(CUBE))
    expected = ndimage.uniform_filter(CUBE[..., :1].astype(np.float64), (7, 7, 1), mode="nearest") > np.median(CUBE)
    np.testing.assert_array_equal(read(tmp_path / "large_out.tif"), expected.repeat(2, axis=0).repeat(2, axis=1))
    assert not (tmp_path / "out.tif.windows").exists() and not (tmp_path / ".out.tif.windows").exists()


def test_the_output_knows_place_bands_and_wavelengths(source: Path, tmp_path: Path) -> None:
    call_script(TOY, source, tmp_path / "out.tif", -1, *PLAIN)
    with rasterio.open(source) as given, rasterio.open(tmp_path / "out.tif") as file:
        assert file.crs == given.crs and file.transform == given.transform
        assert file.descriptions == ("band 1", "band 2", "band 3")
        assert file.compression.name == "deflate" and file.profile["tiled"] and file.block_shapes[0] == (256, 256)
    np.testing.assert_allclose(Raster(tmp_path / "out.tif").wavelengths, [500, 600, 700])
    with rasterio.open(tmp_path / "large_out.tif") as file:
        assert file.descriptions == ("bright",) and file.nodata == 255 and file.res == (2, 2)
        assert (file.bounds.left, file.bounds.top) == (500_000, 5_400_000)


@pytest.mark.parametrize("form", ["declared", "nan", "mask", "flag"])
def test_pixels_without_data_stay_and_nothing_rings(form: str, tmp_path: Path) -> None:
    cube = CUBE.astype(np.float32 if form == "nan" else np.uint16)
    hole = np.zeros(cube.shape[:2], dtype=bool)
    hole[20:23, 40:44] = hole[:, 64:] = True
    value = {"declared": 7, "nan": np.nan, "mask": 9, "flag": 7}[form]
    cube[hole] = value
    path = write_raster(tmp_path / "scene.tif", cube, nodata=7 if form == "declared" else None)
    if form == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(~hole)
    scene = Raster(path, 7 if form == "flag" else None)
    box = (slice(10, 40), slice(30, 70))
    part = scene.read(box)
    np.testing.assert_array_equal(part.valid, ~hole[box])
    assert part.cube.min() >= 100, "holes are filled from their neighbours"
    if form == "flag":
        return
    done = call_script(TOY, path, tmp_path / "out.tif", -1, *PLAIN)
    found = read(tmp_path / "out.tif")
    without = np.nan if form == "nan" else 7 if form == "declared" else 0
    np.testing.assert_array_equal(found[hole], np.full((hole.sum(), 3), without, cube.dtype))
    np.testing.assert_array_equal(Raster(tmp_path / "out.tif").read((slice(0, 75), slice(0, 90))).valid, ~hole)
    far = ~ndimage.binary_dilation(hole, np.ones((7, 7)))
    np.testing.assert_array_equal(found[far], smoothed(CUBE.astype(cube.dtype))[far])
    near = ~far & ~hole
    assert np.abs(found[near].astype(float) - smoothed(CUBE)[near]).max() < 250, "no ringing"
    assert done.stderr


@pytest.mark.parametrize("kills", [(4,), (0, 1, 1, 5)])
def test_killed_and_continued_equals_undisturbed(kills: tuple[int, ...], source: Path, tmp_path: Path) -> None:
    call_script(TOY, source, tmp_path / "straight.tif", -1, *PLAIN)
    finished = 0
    for windows in kills:
        run_script(TOY, source, tmp_path / "out.tif", windows, *PLAIN, status=-9)
        finished += windows
        assert len(list((tmp_path / "out.tif.windows").glob("[0-9]*.npz"))) == finished
        assert not (tmp_path / "out.tif").exists()
    # One window more and it would kill itself.
    run_script(TOY, source, tmp_path / "out.tif", WINDOWS - finished, *PLAIN)
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()


def test_two_processes_write_the_same_bytes(source: Path, tmp_path: Path) -> None:
    call_script(TOY, source, tmp_path / "one.tif", -1, *PLAIN)
    run_script(TOY, source, tmp_path / "two.tif", 5, *PLAIN, processes=2)  # neither computes more than five of nine
    for name in ("one.tif", "large_one.tif"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("one", "two")).read_bytes()


def test_windows_of_another_command_are_not_mixed_in(source: Path, tmp_path: Path) -> None:
    run_script(TOY, source, tmp_path / "out.tif", 2, 1, "refuse", status=-9)
    done = call_script(TOY, source, tmp_path / "out.tif", -1, 2, "refuse", status=2)
    assert "holds windows of a command with another number; repeat that command" in done.stderr
    write_raster(source, CUBE + 1)
    done = call_script(TOY, source, tmp_path / "out.tif", -1, 1, "refuse", status=2)
    assert "of a command with another input" in done.stderr
    call_script(TOY, source, tmp_path / "out.tif", -1, 2, "replace")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), smoothed(CUBE + 1))


@pytest.mark.parametrize("processes", [1, 2])
def test_only_the_command_that_finished_is_told_so(
    processes: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed while its windows were removed; every process prints the same."""
    output = tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "remove_windows", lambda folder: None)
        call_script(TOY, source, output, -1, *PLAIN)
    before = output.read_bytes()
    left = finished_windows(output)
    for path in left.iterdir():  # as `remove_windows` leaves it at a kill: the plan goes last
        if path.name != PLAN and path.name < "000005":
            path.unlink()
    done = run_script(TOY, source, output, -1, 1, "refuse", processes=processes, status=2)
    assert "out.tif: exists; add --existing replace" in done.stderr and left.exists()
    done = run_script(TOY, source, output, 0, *PLAIN, processes=processes)
    assert done.stdout.count("was finished before the interruption") == 1
    assert output.read_bytes() == before and not left.exists()
    done = run_script(TOY, source, output, 0, *PLAIN, processes=processes, status=2)
    assert "out.tif: exists; add --existing replace" in done.stderr


def test_the_plan_of_removed_windows_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("000001.npz", PLAN, "zz.json"):
        (tmp_path / name).touch()
    removed = []
    monkeypatch.setattr(files.shutil, "rmtree", lambda folder: removed.extend(path.name for path in folder.iterdir()))
    remove_windows(tmp_path)
    assert removed == [PLAN]


def check_cog(path: Path) -> None:
    """The rules of a cloud-optimised GeoTIFF: tiles, overviews down to one tile, directories first, large ones last."""
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        pages = [level.keyframe for level in levels]
        assert len(pages) > 1 and all(page.is_tiled for page in pages)
        assert [page.offset for page in pages] == sorted(page.offset for page in pages)
        assert all(page.is_reduced for page in pages[1:])
        assert max(pages[-1].shape[:2]) <= 256
        first = [min(offset for offset in page.dataoffsets if offset) for page in pages]
        assert first == sorted(first, reverse=True) and min(first) > max(page.offset for page in pages)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_cloud_optimised_file_follows_the_rules(tmp_path: Path) -> None:
    cube = smooth_scene(300, 540, 2)
    path = write_raster(tmp_path / "scene.tif", cube, nodata=7)
    with pytest.raises(AssertionError):
        check_cog(path)
    make_cog(path)
    check_cog(path)
    np.testing.assert_array_equal(read(path), cube)
    assert Raster(path).no_data == 7
    with rasterio.open(path) as file:
        half = file.read(1, out_shape=(150, 270))
    np.testing.assert_allclose(half, cube[..., 0].reshape(150, 2, 270, 2).mean(axis=(1, 3)), atol=1)


def test_blocks_without_data_take_no_place(tmp_path: Path) -> None:
    cube = smooth_scene(280, 530, 1)
    cube[:, :260] = 0
    source = write_raster(tmp_path / "scene.tif", cube, nodata=0)
    call_script(TOY, source, tmp_path / "out.tif", -1, *PLAIN)
    found = read(tmp_path / "out.tif")
    np.testing.assert_array_equal(found[:, 264:], smoothed(cube)[:, 264:])
    assert (found[:, :260] == 0).all() and (found[:, 260:] > 0).all()
    call_script(TOY, source, tmp_path / "cloud.tif", -1, 0, "refuse", "--cog")
    np.testing.assert_array_equal(read(tmp_path / "cloud.tif"), found)
    for name in ("out.tif", "cloud.tif"):
        with tifffile.TiffFile(tmp_path / name) as file:
            empty = [count == 0 for count in file.pages[0].databytecounts]
            assert empty == [True, False, False] * 2, "blocks of 256 × 256"
            np.testing.assert_array_equal(file.asarray(), found[..., 0])
    large = ndimage.uniform_filter(cube.astype(float), (7, 7, 1), mode="nearest") > np.median(cube[:, 260:])
    doubled = read(tmp_path / "large_out.tif")
    np.testing.assert_array_equal(doubled[:, 528:], large.repeat(2, axis=0).repeat(2, axis=1)[:, 528:])


def test_streams_end_in_cloud_optimised_files_when_asked(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth_scene(200, 300, 1))
    call_script(TOY, source, tmp_path / "out.tif", -1, 0, "refuse", "--cog")
    for name in ("out.tif", "large_out.tif"):
        check_cog(tmp_path / name)


def test_large_outputs_are_bigtiffs(source: Path, tmp_path: Path) -> None:
    for length, version in ((1000, 42), (60_000, 43)):
        opened = Raster(source)
        opened.shape = (length, length)
        layer = Layer(tmp_path / "large.tif", 3, np.dtype(np.uint16), 0)
        write_layer(layer.path, layer, opened, [])
        assert layer.path.read_bytes()[2] == version


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_percentiles_are_numpy_s(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0, 60, (40, 50, 2))
    cube = (np.abs(values) if kind[0] == "u" else values).astype(kind)
    path = write_raster(tmp_path / "scene.tif", cube)
    if kind[0] == "f":
        cube[3, 4, 0] = np.nan
        path = write_raster(tmp_path / "hole.tif", cube)
    data = cube[np.isfinite(cube.astype(float)).all(axis=2)]
    shares = (0, 12.5, 50, 99.9, 100)
    np.testing.assert_allclose(Raster(path).percentiles(shares), np.percentile(data, shares), rtol=1e-6)
    assert Raster(path).percentiles([0, 100]) == [data.min(), data.max()]
    path = write_raster(tmp_path / "empty.tif", np.zeros((4, 4, 1), kind), nodata=0)
    with pytest.raises(UserError, match="no pixel holds data"):
        Raster(path).percentiles([50])


def test_a_truncated_scene_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.img", CUBE, driver="ENVI")
    path.write_bytes(path.read_bytes()[:-100])
    for name in (path, path.with_suffix(".hdr")):
        with pytest.raises(UserError, match=r"has [\d,]+ bytes but scene.hdr describes [\d,]+ .*copy it again"):
            Raster(name)
    path = write_raster(tmp_path / "scene.tif", CUBE)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"scene.tif: cannot be read .*copy it again"):
        Raster(path).read((slice(0, 75), slice(0, 90)))


def test_what_is_no_scene_is_refused(source: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "pages.tif", np.moveaxis(CUBE, -1, 0), photometric="minisblack")
    with pytest.raises(UserError, match="holds its bands as pages"):
        Raster(tmp_path / "pages.tif")
    with pytest.raises(UserError, match="which can never be --no-data -1"):
        Raster(source, -1)
    path = write_raster(tmp_path / "complex.tif", CUBE.astype(np.complex64))
    with pytest.raises(UserError, match="holds values of type complex64"):
        Raster(path)


def test_a_missing_package_names_the_extra(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(
        UserError, match=r"rasterio is missing; install it with: pip install 'fullpaper-common\[raster\]'"
    ):
        Raster(source)


def test_only_files_that_can_be_read_by_windows_are_larger(source: Path, tmp_path: Path) -> None:
    envi = write_raster(tmp_path / "other.img", CUBE, driver="ENVI")
    for path in (source, envi, envi.with_suffix(".hdr")):
        assert larger_than(2 * CUBE.size * 6 - 1, str(path), 4) and not larger_than(2 * CUBE.size * 6, str(path), 4)
    np.save(tmp_path / "scene.npy", CUBE)
    for other in (tmp_path / "scene.npy", tmp_path / "missing.tif", "scene.mat:cube"):
        assert not larger_than(1, str(other), 4)


def test_windows_are_as_large_as_memory_allows() -> None:
    def needed(side: int) -> float:
        return (side + 10) ** 2

    assert window_side(1e9, needed) == 512
    assert window_side(400**2, needed) == 256
    assert window_side(100**2, needed) == 64
    with pytest.raises(UserError, match="--memory is too small for windows of this scene; add at least 5 MiB"):
        window_side(26**2 - 5 * 2**20, needed)


def test_tiles_leave_room_for_windows_of_twice_their_side() -> None:
    def needed(side: int, tile: int) -> float:
        return (side + 2 * tile) ** 2

    assert tile_side(160**2, needed, 300) == 40 and tile_side(160**2 - 1, needed, 300) == 32
    assert tile_side(1e9, needed, 30) == 24 and tile_side(1e9, needed, 10_000) == 256 and tile_side(0, needed, 30) == 8


def test_what_is_read_around_a_window() -> None:
    assert halo(5)(slice(3, 10), 12) == slice(0, 12) and halo(5)(slice(20, 30), 90) == slice(15, 35)
    assert len(boxes((75, 90), 32)) == WINDOWS


def test_the_cache_of_blocks_is_bounded(source: Path) -> None:
    Raster(source)
    assert int(raster.os.environ["GDAL_CACHEMAX"]) == raster.CACHE
