"""Windows against plain slicing; whole-scene prediction against the network on single windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.errors import UserError
from lsgavit import SceneWindows, create_model, predict_pixels


def model_in_use(size: tuple[int, int], **overrides: object) -> torch.nn.Module:
    """A small float64 network whose batch norms have seen data."""
    torch.manual_seed(0)
    small = {"image_size": size, "bands": 6, "num_classes": 4, "embed_dim": 12, "num_heads": (3,)}
    model = create_model("lsgavit", **small | overrides).double()
    for _ in range(3):
        model(torch.randn(8, 6, *size, dtype=torch.float64) + 1)
    return model.eval()


@pytest.mark.parametrize("size", [(9, 9), (5, 7), (4, 6), (1, 1)])
def test_windows_equal_slices_of_the_padded_scene(size: tuple[int, int]) -> None:
    scene = np.random.default_rng(0).standard_normal((11, 13, 3))
    height, width = size
    padded = np.pad(scene, ((height // 2, height), (width // 2, width), (0, 0)))
    pixels = torch.tensor([0, 12, 70, 142])
    windows = SceneWindows(scene, size)[pixels]
    for pixel, window in zip(pixels.tolist(), windows, strict=True):
        row, column = divmod(pixel, 13)
        expected = padded[row : row + height, column : column + width].transpose(2, 0, 1)
        np.testing.assert_array_equal(window.numpy(), expected)
        assert window[0, height // 2, width // 2] == scene[row, column, 0]


@pytest.mark.parametrize("size", [(9, 9), (5, 5), (5, 7), (8, 6), (3, 9)])
def test_whole_scene_equals_single_windows(size: tuple[int, int]) -> None:
    model = model_in_use(size)
    scene = np.random.default_rng(1).standard_normal((14, 11, 6))
    windows = SceneWindows(scene, size)
    every = torch.arange(14 * 11)
    with torch.inference_mode():
        expected = model(windows[every])
    pixels, logits = (torch.cat(parts) for parts in zip(*predict_pixels(model, windows, rows=5), strict=True))
    assert torch.equal(pixels, every)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_selected_pixels_only() -> None:
    model = model_in_use((5, 5))
    windows = SceneWindows(np.random.default_rng(1).standard_normal((14, 11, 6)), (5, 5))
    chosen = np.array([3, 40, 41, 152])
    pixels, logits = (torch.cat(parts) for parts in zip(*predict_pixels(model, windows, chosen), strict=True))
    assert pixels.tolist() == chosen.tolist()
    with torch.inference_mode():
        torch.testing.assert_close(logits, model(windows[torch.from_numpy(chosen)]), rtol=0, atol=1e-12)


def test_a_window_larger_than_the_scene_is_refused() -> None:
    with pytest.raises(UserError, match="window of 9 × 9 pixels is larger than the scene of 8 × 20"):
        SceneWindows(np.zeros((8, 20, 3)), (9, 9))
