"""The steps from an FCN's coarse scores to its mask."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TimmBackboneConfig

from fcn_hf import FCNImageProcessor, predict, refinement

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
LARGER = FCNImageProcessor(do_resize=True, size={"shortest_edge": 140})
TIMM = {"backbone": "auto", "backbone_config": TimmBackboneConfig(backbone="test_efficientnet")}


@pytest.mark.parametrize("processor", [FCNImageProcessor(), LARGER], ids=["own-size", "enlarged"])
@pytest.mark.parametrize("settings", [{}, {"geometry": "caffe"}, TIMM, {"prediction_stride": 32}], ids=str)
def test_the_last_step_is_the_mask_and_each_says_what_it_changed(tiny, settings, processor):
    model = tiny(**settings)
    steps = refinement(model, processor, PICTURE)
    names = ["coarse", "bilinear", "upsampled", "pool4", "pool3"]
    assert [step.name for step in steps] == (names[:3] if "prediction_stride" in settings else names)
    assert np.array_equal(steps[-1].mask, predict(model, processor, PICTURE)) and not steps[0].changed.any()
    for before, step in zip(steps, steps[1:], strict=False):
        assert step.mask.shape == (70, 90) and np.array_equal(step.changed, step.mask != before.mask)


def test_coarse_scores_are_drawn_as_squares_and_their_shapes_are_those_of_the_maps(tiny):
    steps = refinement(tiny(), FCNImageProcessor(), PICTURE)
    assert [step.scores_shape for step in steps] == [(3, 3, 5)] * 3 + [(5, 6, 5), (9, 12, 5)]
    mask = np.pad(steps[0].mask, ((0, 26), (0, 6)), mode="edge").reshape(3, 32, 3, 32)
    assert (mask == mask[:, :1, :, :1]).all()


def test_plain_bilinear_is_what_transposed_convolutions_start_from(tiny):
    model = tiny(prediction_stride=32)
    upsampling = model.heads["semantic"].upscore32
    with torch.no_grad():
        model._init_weights(upsampling)
    steps = {step.name: step for step in refinement(model, FCNImageProcessor(), PICTURE)}
    assert np.array_equal(steps["upsampled"].mask, steps["bilinear"].mask) and not steps["upsampled"].changed.any()
