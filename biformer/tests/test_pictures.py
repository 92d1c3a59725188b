"""Figures of the routing: which part of the photograph is bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biformer import BiFormer
from biformer.augmentation import evaluation_transform
from biformer.photographs import demo_pictures
from biformer.pictures import prediction_sheet, region_at, region_box, routes_of, routing_figure, routing_sheet


@pytest.fixture(scope="module")
def model() -> BiFormer:
    torch.manual_seed(0)
    dims = (32, 64, 128, 256)
    return BiFormer(depths=(1, 2, 1, 1), dims=dims, num_classes=12, num_regions=4, top_k=(1, 3, 5)).eval()


def test_routes_of_every_attention_in_order(model: BiFormer) -> None:
    routes = routes_of(model, torch.randn(1, 3, 64, 64))
    assert [tuple(table.shape) for table in routes] == [(16, 1), (16, 3), (16, 3), (16, 5)]
    assert all(len(set(row)) == len(row) and max(row) < 16 for table in routes for row in table.tolist())
    assert not model.stages[0].blocks[0].attn._forward_pre_hooks


def test_regions_cover_the_image_once() -> None:
    """Also for a padded map: 70 pixels are 18 tokens of the first map, and a region has 5."""
    covered = np.zeros((70, 64), int)
    for region in range(16):
        left, top, width, height = region_box(region, 4, 4, 70, 64)
        covered[top : top + height, left : left + width] += 1
    assert (covered == 1).all()
    assert region_box(5, 4, 4, 70, 64) == (16, 20, 16, 20) and region_box(15, 4, 4, 70, 64) == (48, 60, 16, 10)


def test_a_query_lies_in_its_region() -> None:
    for query in ((0.0, 0.0), (0.45, 0.5), (0.99, 0.99), (0.2, 0.8)):
        left, top, width, height = region_box(region_at(query, 4, 4, 70, 64), 4, 4, 70, 64)
        assert top <= query[0] * 70 < top + height and left <= query[1] * 64 < left + width


def test_the_chosen_regions_are_the_bright_ones(model: BiFormer) -> None:
    torch.manual_seed(1)
    image = torch.rand(1, 3, 64, 64) + 0.5
    figure = routing_figure(model, image, [(0.45, 0.5)], ["noise"])
    routes = routes_of(model, image)
    original = figure.axes[0].images[0].get_array()
    for axis, table, count in zip(figure.axes[1:], (routes[0], routes[2], routes[3]), (1, 3, 5), strict=True):
        shown = axis.images[0].get_array()
        chosen = table[region_at((0.45, 0.5), 4, 4, 64, 64)].tolist()
        for region in range(16):
            left, top, width, height = region_box(region, 4, 4, 64, 64)
            window = (slice(top, top + height), slice(left, left + width))
            assert np.allclose(shown[window], original[window]) == (region in chosen)
        assert f"{count} of 16 regions" in axis.get_title() and len(axis.patches) == 1


def test_figures_are_drawn(model: BiFormer, tmp_path: Path) -> None:
    _, test = demo_pictures(2, 2)
    arguments = (model, test, evaluation_transform(64), torch.device("cpu"))
    for draw, name in ((routing_sheet, "routing.png"), (prediction_sheet, "classes.png")):
        picture = np.asarray(Image.open(draw(*arguments, tmp_path / name)).convert("RGB"))
        assert min(picture.shape[:2]) > 300 and picture.std() > 20
