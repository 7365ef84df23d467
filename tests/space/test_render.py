"""Colours: exact at the ends of the opacity, one per class, and label maps that keep their ids."""

import io

import numpy as np
import pytest
from PIL import Image

from space.render import STREET_COLOURS, data_uri, label_map, legend, overlay, palette

STREET = tuple(STREET_COLOURS)


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))


@pytest.fixture
def mask():
    return np.random.default_rng(1).integers(0, len(STREET), (6, 8), dtype=np.uint8)


def test_opacity_0_is_the_picture(picture, mask):
    assert np.array_equal(overlay(picture, mask, palette(STREET), 0), picture)


def test_opacity_1_is_the_colours(picture, mask):
    colours = palette(STREET)
    assert np.array_equal(overlay(picture, mask, colours, 1), colours[mask])


def test_opacity_in_between_is_the_mean(picture, mask):
    colours = palette(STREET)
    expected = (np.asarray(picture).astype(float) + colours[mask]) / 2
    assert np.abs(np.asarray(overlay(picture, mask, colours, 0.5)) - expected).max() <= 0.5


def test_unlabelled_pixels_show_the_picture(picture, mask):
    mask[0] = 255
    assert np.array_equal(np.asarray(overlay(picture, mask, palette(STREET), 1))[0], np.asarray(picture)[0])


@pytest.mark.parametrize("count", [1, 2, 21, 60, 150, 255])
def test_any_label_set_has_distinct_colours(count):
    colours = palette([f"class {index}" for index in range(count)])
    assert colours.shape == (count, 3) and len(np.unique(colours, axis=0)) == count


def test_street_classes_keep_their_colour_in_another_label_set():
    colours = palette(["background", "Road", "dog", "sky"])
    assert tuple(colours[1]) == STREET_COLOURS["road"] and tuple(colours[3]) == STREET_COLOURS["sky"]


def test_label_map_keeps_ids_and_shows_colours(mask):
    mask[0, 0] = 255
    colours, buffer = palette(STREET), io.BytesIO()
    label_map(mask, colours).save(buffer, "PNG")
    reopened = Image.open(buffer)
    assert reopened.mode == "P" and np.array_equal(reopened, mask)
    shown = np.asarray(reopened.convert("RGBA"))
    assert np.array_equal(shown[1:, :, :3], colours[mask[1:]])
    assert shown[0, 0, 3] == 0 and (shown[1:, :, 3] == 255).all()


def test_data_uri_holds_the_file(picture):
    assert data_uri(picture, "PNG").startswith("data:image/png;base64,iVBOR")


def test_legend_names_each_class_and_escapes_it():
    html = legend(["road", "<b>"], palette(["road", "<b>"]))
    assert html.count("<button") == 2 and ">road<" in html and "<b>" not in html
