"""A pixel's explanation against what nets do when pixels change."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TimmBackboneConfig

from fcn_hf import FCNImageProcessor, explain_pixel
from fcn_hf.errors import FCNError
from fcn_hf.receptive_fields import EVERYWHERE, Field, FollowedFields

SAME_PADDING = {"backbone": "auto", "backbone_config": TimmBackboneConfig(backbone="tf_efficientnet_lite0")}


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("settings", [{"geometry": "caffe"}, SAME_PADDING], ids=["vgg", "timm"])
def test_the_receptive_field_is_what_can_be_seen_and_no_more(tiny, settings):
    """NaN in all pixels around it leaves the scores alone, NaN in its first or last rows or columns reaches them."""
    # In float64 no convolution is done by a transform that would spread NaN further than its kernel does.
    model, processor, x, y = tiny(**settings).double(), FCNImageProcessor(), 601, 11
    picture = noise(1203, 40)
    explanation = explain_pixel(model, processor, picture, x, y)
    left, top, right, bottom = explanation.receptive_field
    assert 0 < left < x < right < 1203 and (top, bottom) == (0, 40)
    pixel_values = processor(picture, return_tensors="pt")["pixel_values"]
    spoilt = pixel_values.repeat(3, 1, 1, 1)
    spoilt[0, ..., :left] = spoilt[0, ..., right:] = spoilt[1, ..., left] = spoilt[2, ..., right - 1] = torch.nan
    with torch.no_grad():
        scores = model(spoilt).logits[..., y, x]
    assert scores.isfinite().all(dim=1).tolist() == [True, False, False]
    assert explanation.dependence.any()
    assert not explanation.dependence[:, :left].any() and not explanation.dependence[:, right:].any()


@pytest.mark.parametrize(
    ("settings", "reach"),
    [
        ({"hidden_sizes": (2, 2, 2, 2, 2), "depths": (2, 2, 3, 3, 3)}, 404),
        ({"backbone": "alexnet", "prediction_stride": 32}, 355),
    ],
    ids=["vgg16", "alexnet"],
)
def test_the_reach_is_what_the_paper_gives(tiny, settings, reach):
    """CVPR, table 1."""
    assert explain_pixel(tiny(**settings), FCNImageProcessor(), noise(40, 30), 3, 4).reach == (reach, reach)


@pytest.mark.parametrize("size", [{"shortest_edge": 96}, None, {"height": 30, "width": 90}], ids=str)
def test_probabilities_and_dependence_are_those_of_the_picture_s_pixel(tiny, size):
    model, picture, x, y = tiny(), noise(70, 50), 61, 3
    processor = FCNImageProcessor(do_resize=True, size=size) if size else FCNImageProcessor()
    explanation = explain_pixel(model, processor, picture, x, y)
    with torch.no_grad():
        outputs = model(processor(picture, return_tensors="pt")["pixel_values"])
    (scores,) = processor.post_process_semantic_segmentation(outputs, [(50, 70)], return_segmentation_scores=True)
    expected = scores.segmentation_scores.softmax(dim=0)[:, y, x]
    assert explanation.probabilities == pytest.approx(expected.numpy(), abs=1e-6)
    assert explanation.label == scores.segmentation[y, x]
    assert explanation.dependence.shape == (50, 70) and explanation.dependence.any()
    assert explanation.receptive_field == (0, 0, 70, 50)
    assert 0 < explanation.radius(0.5) < explanation.radius(1) <= 86


def test_a_score_that_depends_on_nothing_has_no_field(tiny):
    model = tiny(prediction_stride=32)
    torch.nn.init.zeros_(model.heads["semantic"].score_fr.weight)
    explanation = explain_pixel(model, FCNImageProcessor(), noise(70, 50), 3, 4)
    assert explanation.receptive_field == (0, 0, 0, 0) and not explanation.dependence.any()
    assert explanation.radius() == 0


def test_a_pixel_outside_of_the_picture_is_named(tiny):
    for x, y in ((70, 0), (0, 50), (-1, 0), (0.5, 0), (0, float("nan"))):
        with pytest.raises(FCNError, match=f"x is {x} and y is {y}.*70x50.*0..69.*0..49"):
            explain_pixel(tiny(), FCNImageProcessor(), noise(70, 50), x, y)


def test_what_looks_at_a_whole_map_sees_the_whole_picture():
    pixels = torch.rand(1, 2, 20, 20)
    with FollowedFields(pixels) as fields:
        half = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(pixels, (1, 0, 2, 0)), 3, 2)
        weighted = half * half.mean((2, 3), keepdim=True)
        joined = torch.cat([half, half.relu()], dim=1)
    assert fields.of(joined) == fields.of(half) == (Field(2, -2, 0), Field(2, -1, 1))
    assert fields.of(weighted) == fields.of(torch.rand(3)) == (EVERYWHERE, EVERYWHERE)
    assert Field(2, -2, 0).seen_by(0, 3, 20) == (0, 5) and Field(2, -9, -7).seen_by(0, 3, 20) == (0, 0)
    assert EVERYWHERE.seen_by(7, 8, 20) == (0, 20)
