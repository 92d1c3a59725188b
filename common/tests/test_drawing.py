"""Pictures: which bands, which colours, and that legends say what the map shows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from common.figures import save
from common.hyperspectral.classification import drawing
from common.hyperspectral.scene import make_scene

LABELS = np.array([[0, 1, 2], [2, 2, 0]])
CUBE = np.random.default_rng(0).integers(0, 5000, (2, 3, 12)).astype(np.uint16)


def stretched(bands):
    picture = CUBE[..., bands].astype(float)
    low, high = np.percentile(picture, (2, 98), axis=(0, 1))
    return np.clip((picture - low) / (high - low), 0, 1)


@pytest.mark.parametrize(
    ("known", "bands"),
    [
        ({"wavelengths": np.linspace(400, 950, 12)}, [5, 3, 1]),
        ({"composite_bands": (7, 0, 11)}, [7, 0, 11]),
        ({}, [10, 6, 2]),
    ],
)
def test_composite_takes_the_right_bands(known, bands):
    picture = drawing.composite(make_scene("x", CUBE, **known))
    np.testing.assert_allclose(picture, stretched(bands), atol=1e-6)
    assert picture.dtype == np.float32


def test_a_constant_band_gives_a_finite_composite():
    assert np.isfinite(drawing.composite(make_scene("x", CUBE * 0))).all()


def test_class_colours_are_the_palettes():
    picture = drawing.class_colours(LABELS)
    expected = [drawing.UNLABELLED, drawing.PALETTE[0], drawing.PALETTE[1]]
    np.testing.assert_array_equal(picture[0], np.rint([np.multiply(to_rgb(colour), 255) for colour in expected]))
    np.testing.assert_array_equal(drawing.class_colours(np.array([[25]])), drawing.class_colours(np.array([[1]])))


def test_palette_colours_differ_for_every_eye():
    colours = np.array([to_rgb(colour) for colour in (drawing.UNLABELLED, *drawing.PALETTE)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    # Machado, Oliveira and Fernandes (2009): complete deuteranopia.
    sight = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    for matrix, least in ((np.eye(3), 20.0), (np.array(sight), 9.0)):
        seen = np.clip(linear @ matrix.T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(seen[None])[0]
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(lab))
        assert distance.min() > least


def test_legend_names_and_counts():
    figure = drawing.sheet(make_scene("scene", CUBE, LABELS, names={1: "soil", 2: "water"}), LABELS, title="map")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["1 soil (1)", "2 water (3)", "unlabelled (2)"]
    assert figure.axes[-1].get_title() == "map"


@pytest.mark.parametrize("shape", [(20, 24), (10, 60), (60, 10)])
def test_sheets_are_saved_without_a_display(tmp_path, shape):
    labels = np.arange(shape[0] * shape[1]).reshape(shape) % 16
    scene = make_scene("scene", np.random.default_rng(0).random((*shape, 4)), labels)
    figure = drawing.sheet(scene, scene.labels)
    assert [axis.get_title() for axis in figure.axes] == ["scene", "ground truth", "prediction"]
    assert save(figure, tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    unlabelled = drawing.sheet(make_scene("scene", np.zeros((*shape, 4))), labels)
    assert [axis.get_title() for axis in unlabelled.axes] == ["scene", "prediction"]


def test_confusion_shows_percent_of_the_true_class():
    figure = drawing.confusion_figure(np.array([[3, 1], [0, 500]]), ("soil", "water"))
    axis = figure.axes[0]
    assert [(text.get_position(), text.get_text()) for text in axis.texts] == [
        ((0, 0), "75"), ((1, 0), "25"), ((1, 1), "100")
    ]  # fmt: skip
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1 soil", "2 water"]
