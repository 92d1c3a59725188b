"""Tiles give the result of the whole image, and the memory budget is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from common.tiling import Tiling
from fftformer import create_model
from fftformer.images import read_rgb
from fftformer.tiling import MULTIPLE, peak_bytes, restore_tiled, tile_for_memory
from support.data import real_data
from support.seams import TOLERANCE, seams

SIZES = [(200, 330), (96, 512), (31, 400), (224, 97), (160, 160), (1, 300), (129, 257)]


def random_image(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), [(96, 32), (128, 64), (160, 0), ((96, 160), 64)])
def test_identity_returns_the_image(size: tuple[int, int], tile: int, overlap: int) -> None:
    image = random_image(*size)
    seen: list[int] = []
    restored = restore_tiled(nn.Identity(), image, tile, overlap, progress=seen.append)
    assert restored.shape == image.shape
    assert (restored - image).abs().max() < 1e-6
    assert sum(seen) == pytest.approx(image[0].numel(), abs=len(seen))


@pytest.mark.parametrize("size", SIZES)
def test_local_network_gives_the_result_of_the_whole_image(size: tuple[int, int]) -> None:
    """The kernel reaches overlap / 4 = 16 pixels and pads with zeros, so border pixels that are not blended differ."""
    torch.manual_seed(0)
    kernel = torch.rand(3, 1, 33, 33) / 33**2

    def blur(batch: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        padded = F.pad(batch, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="constant")
        return F.conv2d(padded, kernel, padding=16, groups=3)[..., :height, :width]

    # Multiples of 32, so that the whole image is not padded and has the same borders as the tiles.
    height, width = (-(-length // MULTIPLE) * MULTIPLE for length in size)
    image = random_image(height, width)
    whole = blur(image[None])[0]
    tiled = restore_tiled(blur, image, 128, 64)
    assert (tiled - whole).abs().max() < 1e-6
    # Without an overlap the borders differ, so the test can fail.
    if max(height, width) > 128:
        assert (restore_tiled(blur, image, 128, 0) - whole).abs().max() > 1e-3


def test_position_dependent_patches_fall_on_the_same_grid() -> None:
    """A network that works on blocks of 32 pixels, like FFTformer, must see the same blocks."""

    def block_means(batch: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(batch, 32), scale_factor=32, mode="nearest")

    image = random_image(288, 352)
    assert (restore_tiled(block_means, image, 160, 64) - block_means(image[None])[0]).abs().max() < 1e-6


def test_padding_is_by_reflection() -> None:
    sizes = []

    def network(batch: Tensor) -> Tensor:
        sizes.append(tuple(batch.shape[2:]))
        # 83 rows become 96: the 13 new rows are a reflection of rows 81 to 69.
        assert torch.equal(batch[0, :, 83:], batch[0, :, 69:82].flip(1))
        return batch

    restore_tiled(network, random_image(83, 300), 96, 32)
    assert all(height % MULTIPLE == 0 and width % MULTIPLE == 0 for height, width in sizes)
    assert len(sizes) > 1


def test_no_tile_is_larger_than_asked_and_few_pixels_are_computed_twice() -> None:
    computed = []

    def network(batch: Tensor) -> Tensor:
        computed.append(batch.shape[2] * batch.shape[3])
        return batch

    restore_tiled(network, random_image(736, 1280), 544, 64)
    assert max(computed) <= 544**2
    assert sum(computed) < 1.3 * 736 * 1280


def test_wrong_tiles_are_refused() -> None:
    for tile, overlap in [(100, 32), (96, 40), (64, 64), (0, 0), (64, -32)]:
        with pytest.raises(ValueError, match="multiples of 32"):
            restore_tiled(nn.Identity(), random_image(200, 200), tile, overlap)


def test_infinite_results_are_refused() -> None:
    with pytest.raises(UserError, match="mixed-precision no"):
        restore_tiled(lambda batch: batch * torch.inf, random_image(64, 64), 96, 32)


def test_tiles_fit_the_budget_with_the_least_work() -> None:
    model = create_model("fftformer_tiny")
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    whole = weights + peak_bytes(model, 736 * 1280)
    with torch.autocast("cpu", torch.bfloat16):
        assert peak_bytes(model, 736 * 1280) > 2 * (whole - weights), "whole maps instead of strips"
    assert tile_for_memory(model, whole, 720, 1280) == (736, 1280)
    for share in (0.9, 0.5, 0.12):
        rows, columns = tile_for_memory(model, int(share * whole), 720, 1280)
        assert weights + peak_bytes(model, rows * columns) <= share * whole
        assert rows % MULTIPLE == columns % MULTIPLE == 0
        seen = []

        def network(batch: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(batch.shape[2] * batch.shape[3])
            return batch

        restore_tiled(network, random_image(720, 1280), (rows, columns))
        assert max(seen) <= rows * columns
        assert sum(seen) < (1.3 if share > 0.4 else 2.5) * 736 * 1280
    with pytest.raises(UserError, match="--memory of 1 MiB is too small"):
        tile_for_memory(model, 2**20, 720, 1280)


def test_tiled_network_is_close_to_the_whole_image() -> None:
    """In principle an output pixel depends on pixels beyond the overlap; a larger overlap must reduce the error."""
    torch.manual_seed(0)
    model = create_model("fftformer_tiny").eval()
    image = random_image(64, 320)
    with torch.inference_mode():
        whole = model(image[None])[0]
    error = {o: (restore_tiled(model, image, 192, o) - whole).abs().max().item() for o in (0, 64, 128)}
    assert error[64] < error[0] / 20
    assert error[128] < error[64] / 4


@pytest.mark.parametrize("tile", [64, 96])
def test_a_photograph_shows_no_seam(tile: int) -> None:
    pixels = read_rgb(real_data("gopro_pairs") / "Istanbul_blur1.png")[:128, :160]
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    torch.manual_seed(0)
    model = create_model("fftformer_tiny").eval()
    whole, tiled = restore_tiled(model, image, 256), restore_tiled(model, image, tile, 32)
    largest, share = seams(model, image, Tiling(tile, 32, multiple=MULTIPLE))
    assert largest < TOLERANCE and 0 < share < 0.1
    assert (tiled - whole).abs().mean() < 0.05 * (whole - image).abs().mean()
