"""The comparison as HTML: what a reader finds in it, and nothing that a file name or label could inject."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fcn_hf.palettes import voc_palette
from space import live
from space.disagreement import disagreement
from space.inference import Segmentation, Segmenter, shares
from space.panels import (
    comparison,
    data_uri,
    legend,
    message,
    milliseconds,
    model_panel,
    percent,
    quantity,
    truth_panel,
)

COLOURS = np.array(voc_palette(60), dtype=np.uint8)


def segmenter(name, labels):
    return Segmenter(name, f"folder/{name}", labels, 8, 2_612_345, model=None, processor=None)


@pytest.fixture
def mask():
    return np.random.default_rng(0).integers(0, 2, (30, 40), dtype=np.uint8)


def page(mask, labels, score=0.5, size=(40, 30)):
    result = Segmentation(mask, 0.0123, shares(mask, labels))
    panels = [model_panel(segmenter("FCN-8s", labels), result, score), truth_panel(mask, labels)]
    return comparison(Image.new("RGB", size), panels, labels, COLOURS[: len(labels)])


def test_a_rate_is_told_when_it_can_be_measured():
    moments = (0.0, 0.01, *(0.2 * number for number in range(1, 7)))
    assert [live.rate(moments[:count]) for count in range(live.COUNTED)] == [None] * live.COUNTED
    assert live.rate(moments) == pytest.approx(7 / 1.2)


def test_each_panel_has_time_parameters_score_and_shares(mask):
    html = page(mask, ("road", "sky"))
    assert html.count('class="fcn-panel"') == 2 and "12.3 ms" in html and "2.6 M" in html and "50.0 %" in html
    assert percent(float((mask == 0).mean())) in html and "Ground truth" in html


def test_there_is_one_legend(mask):
    html = page(mask, ("road", "sky", "car"))
    assert html.count('class="fcn-legend"') == 1 and html.count('class="fcn-class"') == 3


def test_large_label_sets_show_the_classes_that_occur(mask):
    html = page(mask, tuple(f"class {index}" for index in range(60)))
    assert html.count('class="fcn-class"') == 2


def test_without_truth_there_is_no_score(mask):
    assert "Mean IoU" not in page(mask, ("road", "sky"), score=None)


def test_pictures_are_shown_small_and_nothing_is_sent_at_full_size():
    """The label map at its own size is asked for when it is wanted: see test_browser.py."""
    mask = np.zeros((1500, 2000), dtype=np.uint8)
    html = page(mask, ("road", "sky"), size=(2000, 1500))
    sent = re.findall(r'data:image/\w+;base64,([^")]+)', html)
    assert [Image.open(io.BytesIO(base64.b64decode(text))).size for text in sent] == [(1024, 768)] * 3
    assert 'data-width="2000" data-height="1500"' in html and html.count('class="fcn-download"') == 2


def test_a_network_that_knows_fewer_classes_says_so(mask):
    network = replace(segmenter("FCN-8s", ("sky", "road")), beside=("road", "sky", "car"))
    result = Segmentation(mask, 0.0123, shares(mask, network.classes))
    assert model_panel(network, result, 0.5).note == "one score every 8 pixels, knows 2 of 3 classes"
    assert network.ids.tolist() == [1, 0]


def test_names_are_escaped(mask):
    assert "<script>" not in page(mask, ("<script>", "sky")) and "<script>" not in message("<script>")


def test_an_error_is_announced():
    assert 'role="alert"' in message("No.", "error") and 'role="status"' in message("Choose.")


def test_numbers_read_well():
    assert [milliseconds(s) for s in (0.0123, 0.1234, 1.5)] == ["12.3 ms", "123 ms", "1,500 ms"]
    assert [quantity(n) for n in (999, 12_345, 2_612_345, 134_500_000)] == ["999", "12.3 k", "2.6 M", "134.5 M"]
    assert percent(float("nan")) == "–"


def test_data_uri_holds_the_file():
    assert data_uri(Image.new("RGB", (8, 6)), "PNG").startswith("data:image/png;base64,iVBOR")


def test_legend_names_each_class_and_escapes_it():
    html = legend(["road", "<b>"], COLOURS[:2])
    assert html.count("<button") == 2 and ">road<" in html and "<b>" not in html


def test_the_map_of_disagreement_has_the_colours_of_its_list():
    masks = [np.zeros((6, 8), np.uint8), np.pad(np.ones((3, 8), np.uint8), ((0, 3), (0, 0)))]
    panels = [truth_panel(mask, ("road", "sky")) for mask in masks]
    html = comparison(Image.new("RGB", (8, 6)), panels, ("road", "sky"), COLOURS[:2], disagreement(masks, ("a", "b")))
    part = html[html.index("fcn-disagreement") :]
    layer = Image.open(io.BytesIO(base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', part)[1])))
    colour = [int(channel) for channel in re.search(r'data-colour="([^"]+)"', part)[1].split(",")]
    pixels = np.asarray(layer.convert("RGBA"))
    assert (pixels[:3] == [*colour, 255]).all() and (pixels[3:, :, 3] == 0).all()
    assert "differ on 50.0 %" in part and "2 different answers <b>50.0 %" in part


def test_networks_that_are_right_are_named_and_escaped(mask):
    masks = [mask, 1 - mask]
    panels = [truth_panel(mask, ("road", "sky"))]
    found = disagreement(masks, ("<a>", "b"), mask)
    html = comparison(Image.new("RGB", (40, 30)), panels, ("road", "sky"), COLOURS[:2], found)
    assert "only &lt;a&gt; is right <b>100.0 %" in html and "<a>" not in html
