"""Colours: the model's own before VOC's, exact at the ends of the opacity, and label maps that keep their ids."""

import io

import numpy as np
import pytest
from PIL import Image

from fcn_hf import FCNConfig
from fcn_hf.palettes import _cielab, class_colours, distinct_palette, label_picture, overlay, voc_palette

COLOURS = class_colours(FCNConfig(num_labels=11))


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))


@pytest.fixture
def mask():
    return np.random.default_rng(1).integers(0, len(COLOURS), (6, 8), dtype=np.uint8)


# The development kit's colours: background, aeroplane, bicycle, train, tvmonitor and the border of ignored pixels.
@pytest.mark.parametrize(
    "index, colour",
    [
        (0, [0, 0, 0]),
        (1, [128, 0, 0]),
        (2, [0, 128, 0]),
        (19, [128, 192, 0]),
        (20, [0, 64, 128]),
        (255, [224, 224, 192]),
    ],
)
def test_colours_are_those_of_the_development_kit(index, colour):
    assert voc_palette(256)[index] == colour


def test_colours_differ_and_do_not_depend_on_their_number():
    colours = voc_palette(300)
    assert len(set(map(tuple, colours))) == 300
    assert voc_palette(21) == colours[:21] and voc_palette(0) == []


def test_colour_blind_eyes_tell_distinct_colours_apart():
    """By distances in CIELAB, whose values for sRGB's white and red are known; 10 is told at a glance."""

    def least_distance(colours):
        lab = _cielab(np.array(colours, dtype=float))
        distances = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
        return distances[:, ~np.eye(len(colours), dtype=bool)].min(axis=1)

    seen = _cielab(np.array([[255, 255, 255], [255, 0, 0]]))
    assert np.allclose(seen[0], [[100, 0, 0], [53.24, 80.09, 67.20]], atol=0.05)
    assert np.allclose(seen[:, 0], [100, 0, 0], atol=0.05)
    colours = distinct_palette(21)
    assert (least_distance(colours) > 10).all() and (least_distance(voc_palette(21)[:21]) < 10).any()
    assert distinct_palette(255)[:21] == colours and colours[0] == [0, 0, 0]
    assert len(set(map(tuple, distinct_palette(255)))) == 255
    assert distinct_palette(4, (224, 64, 0))[0] == [224, 64, 0]


def test_colours_are_the_model_s_own_and_voc_s_beyond_them():
    assert class_colours(FCNConfig(num_labels=4)).tolist() == voc_palette(4)
    own = [[1, 2, 3], [4, 5, 6]]
    assert class_colours(FCNConfig(num_labels=4, palette=own)).tolist() == [*own, *voc_palette(4)[2:]]
    colours = class_colours(FCNConfig(num_labels=1, palette=own))
    assert colours.tolist() == own[:1] and colours.dtype == np.uint8


def test_opacity_0_is_the_picture(picture, mask):
    assert np.array_equal(overlay(picture, mask, COLOURS, 0), picture)


def test_opacity_1_is_the_colours(picture, mask):
    assert np.array_equal(overlay(picture, mask, COLOURS, 1), COLOURS[mask])


def test_opacity_in_between_is_the_mean(picture, mask):
    expected = (np.asarray(picture).astype(float) + COLOURS[mask]) / 2
    assert np.abs(np.asarray(overlay(picture, mask, COLOURS, 0.5)) - expected).max() <= 0.5


def test_pixels_without_a_class_show_the_picture(picture, mask):
    for missing in (255, len(COLOURS), -100):
        ids = mask.astype(int)
        ids[0] = missing
        assert np.array_equal(np.asarray(overlay(picture, ids, COLOURS, 1))[0], np.asarray(picture)[0])


def test_colours_are_fitted_to_a_picture_of_another_size(picture):
    ids = np.repeat([[0, 1]], 3, axis=0).repeat(2, axis=1)
    shown = np.asarray(overlay(picture, ids, COLOURS, 1))
    assert np.array_equal(shown[:, :4], np.broadcast_to(COLOURS[0], (6, 4, 3)))
    assert np.array_equal(shown[:, 4:], np.broadcast_to(COLOURS[1], (6, 4, 3)))


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize("count", [1, 2, 11, 255, 256])
def test_a_label_picture_keeps_ids_and_shows_colours(count, unlabelled):
    colours, buffer = class_colours(FCNConfig(num_labels=count)), io.BytesIO()
    mask = np.random.default_rng(1).integers(0, count, (6, 8))
    mask[0, 0] = 255 if unlabelled else 0
    label_picture(mask, colours).save(buffer, "PNG")
    reopened = Image.open(buffer)
    assert reopened.mode == "P" and np.array_equal(reopened, mask)
    shown = np.asarray(reopened.convert("RGBA"))
    assert np.array_equal(shown[1:, :, :3], colours[mask[1:]]) and (shown[1:, :, 3] == 255).all()
    assert (shown[0, 0, 3] == 0) == (unlabelled and count < 256)
