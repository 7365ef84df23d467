"""How pictures are looked at."""

import json
import math
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ImageSegmentationPipeline,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor, explain_pixel
from fcn_hf.errors import FCNError
from fcn_hf.prediction import InferenceMode, _starts, averaged_scores, load_model, predict, windowed_logits
from tests.helpers import Pointwise, save_tiny


@pytest.fixture
def pixel_values():
    return torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8))


# Windows


@pytest.mark.parametrize("window", [(40, 56), (400, 560)])
@torch.inference_mode()
def test_a_window_as_large_as_the_picture_is_the_whole_picture(tiny, pixel_values, picture, window):
    model, processor = tiny(), FCNImageProcessor(num_labels=5)
    whole = model(pixel_values=pixel_values).logits
    torch.testing.assert_close(windowed_logits(model, pixel_values, window), whole, rtol=0, atol=0)
    np.testing.assert_array_equal(
        predict(model, processor, picture, InferenceMode(window)), predict(model, processor, picture)
    )


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("window", [(16, 16), (40, 9), (7, 56), (39, 55)])
def test_windows_cover_every_pixel_with_at_least_the_overlap(pixel_values, window, overlap):
    model = Pointwise()
    for whole, edge in zip((40, 56), window, strict=True):
        starts = _starts(whole, edge, overlap)
        assert starts[0] == 0 and starts[-1] == whole - edge
        assert all(0 < step <= max(1, edge * (1 - overlap)) for step in np.diff(starts))
    logits = windowed_logits(model, pixel_values, window, overlap)
    torch.testing.assert_close(logits, model(pixel_values).logits)
    assert set(model.sizes[:-1]) == {window}


@torch.inference_mode()
def test_logits_are_averaged_where_windows_overlap(tiny, pixel_values):
    model = tiny()
    left, right = (model(pixel_values=pixel_values[..., part]).logits for part in (slice(0, 32), slice(24, 56)))
    expected = torch.cat([left[..., :24], (left[..., 24:] + right[..., :8]) / 2, right[..., 8:]], dim=-1)
    torch.testing.assert_close(windowed_logits(model, pixel_values, (40, 32), 0.25), expected)


def test_windows_of_a_net_with_coarser_logits_are_assembled_at_the_picture_s_size(pixel_values):
    assert windowed_logits(Pointwise(4), pixel_values, (16, 16)).shape == (1, 3, 40, 56)


# Scales and mirrors


@torch.inference_mode()
def test_scales_and_mirrors_average_probabilities(tiny, pixel_values):
    model = tiny()
    expected = torch.zeros(1, 5, 40, 56)
    for size in ((20, 28), (40, 56), (60, 84)):
        resized = torch.nn.functional.interpolate(pixel_values, size, mode="bilinear", antialias=True)
        for view in (lambda x: x, lambda x: x.flip(-1)):
            logits = view(model(pixel_values=view(resized)).logits)
            logits = torch.nn.functional.interpolate(logits, (40, 56), mode="bilinear")
            expected += logits.softmax(dim=1) / 6
    scores = averaged_scores(model, pixel_values, InferenceMode(scales=(0.5, 1, 1.5), mirror=True))
    torch.testing.assert_close(scores, expected)


def test_a_symmetric_picture_has_a_symmetric_map_when_mirrored(tiny, picture):
    model, processor = tiny(), FCNImageProcessor(num_labels=5)
    half = np.asarray(picture)
    picture = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    once, mirrored = (predict(model, processor, picture, InferenceMode(mirror=mirror)) for mirror in (False, True))
    assert (once != once[:, ::-1]).any(), "the net itself isn't symmetric"
    np.testing.assert_array_equal(mirrored, mirrored[:, ::-1])


@pytest.mark.parametrize(
    "mode",
    [
        InferenceMode(),
        InferenceMode((16, 16), 0.25),
        InferenceMode(scales=(0.5, 1.5)),
        InferenceMode((16, 16), 0, (0.75,), True),
    ],
    ids=["whole", "window", "scales", "all"],
)
@pytest.mark.parametrize("settings", [{}, {"do_resize": True, "size": {"shortest_edge": 32}}], ids=["own", "resized"])
def test_every_mode_ends_in_a_map_of_the_picture_s_own_size(tiny, picture, mode, settings):
    mask = predict(tiny(), FCNImageProcessor(num_labels=5, **settings), picture, mode)
    assert mask.shape == (40, 56) and mask.dtype == np.int64 and 0 <= mask.min() and mask.max() < 5


def test_by_default_the_whole_picture_is_seen_once(pixel_values):
    model = Pointwise(4)
    assert averaged_scores(model, pixel_values, InferenceMode()).shape == (1, 3, 10, 14), "logits as the model has them"
    assert model.sizes == [(40, 56)]


def test_many_views_need_no_more_memory_than_few(pixel_values):
    """One sum of scores, whatever the number of scales: no tensor of an earlier view is alive in a later one."""
    alive = []

    class Watched(Pointwise):
        def forward(self, pixel_values):
            alive.append(sum(reference() is not None for reference in seen))
            outputs = super().forward(pixel_values)
            seen.append(weakref.ref(outputs.logits))
            return outputs

    seen: list = []
    averaged_scores(Watched(), pixel_values, InferenceMode((16, 16), 0.5, (0.5, 1.0, 1.5), True))
    assert len(alive) > 50 and max(alive) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": (0, 5)}, r"window is \(0, 5\)"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"scales": (1.0, 0.0)}, r"scales are \(1.0, 0.0\)"),
        ({"scales": (math.nan,)}, "scales are"),
        ({"scales": ()}, "scales are"),
    ],
)
def test_impossible_modes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InferenceMode(**arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id2label": {"0": "a", "2": "b", "3": "c", "4": "d", "5": "e"}}, "id2label has the ids .*without gaps"),
        ({"id2label": {"0": "a", "00": "b", "1": "c"}}, "id2label has the ids .*each once"),
        ({"id2label": {"road": "0"}}, "id2label has the id 'road'"),
        ({"id2label": {"0": None}}, "id2label=.* must name each class id with a text"),
        ({"id2label": None, "num_labels": "five"}, "num_labels='five' must be a whole number"),
        ({"prediction_stride": "8"}, "config can't be right: .*'prediction_stride' expected int"),
        ({"depths": [10**9, 1, 1, 1, 1]}, "depths=.* each at most"),
        ({"palette": [[0, 0, "red"]]}, "palette holds .* expected lists"),
        ({"skip_scales": [float("nan"), 1]}, "skip_scales=.* finite"),
        ({"hidden_size": 16}, "weights aren't of the shapes"),
        ({"use_batch_norm": True}, "weights lack .*bn"),
        ({"upsampling": "interpolate"}, "weights hold .*upscore8.weight, for which its config has no place"),
    ],
)
def test_a_config_that_cannot_be_is_told_of_as_it_is_loaded(tmp_path, changed, message):
    path = save_tiny(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(FCNError, match=f"^No model could be loaded from .*: .*{message}") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_scores_that_are_not_finite_are_no_mask(tiny, picture):
    """Weights may be finite, and what the net makes of them beyond its dtype all the same."""
    model, processor = tiny(), FCNImageProcessor(num_labels=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e12)
    for mode in (InferenceMode(), InferenceMode(scales=(0.5, 1.0)), InferenceMode(window=(16, 16))):
        with pytest.raises(FCNError, match="its scores aren't finite, .* numbers exceed torch.float32"):
            predict(model, processor, picture, mode)
    with pytest.raises(FCNError, match="its scores aren't finite"):
        explain_pixel(model, processor, picture, 3, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_models_get_pixels_of_their_weights_dtype(dtype, picture):
    config = SegformerConfig(
        hidden_sizes=[4] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, sr_ratios=[1] * 4, num_labels=3
    )
    model = SegformerForSemanticSegmentation(config).eval().to(dtype)
    processor = SegformerImageProcessor(size={"height": 32, "width": 32})
    for mode in (InferenceMode(), InferenceMode(scales=(0.5, 1.0)), InferenceMode(window=(16, 16))):
        assert predict(model, processor, picture, mode).shape == (40, 56)


def test_classes_of_other_models_are_checked_too(tmp_path):
    config = SegformerConfig(
        hidden_sizes=[4] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, id2label={0: "a", 2: "b"}
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    SegformerImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(FCNError, match="id2label has the ids .*without gaps"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "changed",
    [
        {"image_std": [0, 0, 0]}, {"image_mean": [float("nan")] * 3}, {"rescale_factor": 0},
        {"rescale_factor": []}, {"rescale_factor": [0.1]}, {"image_mean": [None] * 3}, {"resample": 99},
        {"size": {"height": -5, "width": 4}}, {"size": {"shortest_edge": "x"}}, {"do_resize": "yes"},
    ],
)  # fmt: skip
def test_a_processor_that_cannot_be_is_told_of_as_it_is_loaded(tmp_path, changed):
    path = save_tiny(tmp_path) / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(FCNError, match=f"^No model could be loaded from .*: {next(iter(changed))} is "):
        load_model(str(tmp_path))


@pytest.mark.parametrize("switch", [False, None])
def test_what_is_not_normalised_needs_no_statistics(tmp_path, switch):
    path = save_tiny(tmp_path) / "preprocessor_config.json"
    changed = {"do_normalize": switch, "image_mean": None, "image_std": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert predict(*load_model(str(tmp_path)), Image.new("RGB", (24, 20))).shape == (20, 24)


@pytest.mark.parametrize("settings", [{}, {"do_resize": True, "size": {"height": 24, "width": 32}}])
def test_batches_of_the_pipeline_are_what_each_picture_gives_alone(tmp_path, settings):
    save_tiny(tmp_path)
    sizes = [(32, 24), (40, 30), (24, 32), (40, 30), (32, 24)]
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in sizes]
    segment = pipeline("image-segmentation", model=str(tmp_path), image_processor=FCNImageProcessor(**settings))
    for picture, parts in zip(pictures, segment(pictures, batch_size=4), strict=True):
        alone = segment(picture)
        assert {part["mask"].size for part in parts} == {picture.size}
        assert len(alone) > 1 and [part["label"] for part in alone] == [part["label"] for part in parts]
        masks = [np.stack([np.asarray(part["mask"]) for part in each]) for each in (alone, parts)]
        assert np.mean(masks[0] != masks[1]) < 0.01


def test_a_batch_of_several_sizes_goes_through_the_net_once_for_each(tmp_path, monkeypatch):
    segment = pipeline("image-segmentation", model=str(save_tiny(tmp_path)))
    seen, forward = [], segment.model.forward
    monkeypatch.setattr(
        segment.model, "forward", lambda pixel_values: seen.append(pixel_values.shape) or forward(pixel_values)
    )
    segment([Image.new("RGB", size) for size in ((32, 24), (40, 30), (32, 24))], batch_size=3)
    assert seen == [(2, 3, 24, 32), (1, 3, 30, 40)]


def test_the_pipeline_of_other_models_is_that_of_transformers():
    """Their batches are joined to one tensor, as they'd be without `fcn_hf`."""
    model = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=3, hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4)
    ).eval()
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    segment = pipeline("image-segmentation", model=model, image_processor=processor)
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((40, 30), (32, 24))]
    plain = ImageSegmentationPipeline(model=model, image_processor=processor)
    assert isinstance(segment.preprocess(pictures[0])["pixel_values"], torch.Tensor)
    for ours, theirs in zip(segment(pictures, batch_size=2), plain(pictures, batch_size=2), strict=True):
        assert [part["label"] for part in ours] == [part["label"] for part in theirs]
        assert [part["mask"].tobytes() for part in ours] == [part["mask"].tobytes() for part in theirs]


def test_batches_of_the_pipeline_take_any_size_up_to_what_is_padded_to(tmp_path):
    """Masks have each picture's own size, and are those of the picture with zeros at its right and bottom."""
    model = FCNForSemanticSegmentation.from_pretrained(save_tiny(tmp_path)).eval()
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((32, 24), (40, 30))]
    padding = FCNImageProcessor(pad_size={"height": 33, "width": 40})
    segment = pipeline("image-segmentation", model=str(tmp_path), image_processor=padding)
    for picture, parts in zip(pictures, segment(pictures, batch_size=2), strict=True):
        (width, height), pixels = picture.size, FCNImageProcessor()(picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            scores = model(torch.nn.functional.pad(pixels, (0, 40 - width, 0, 33 - height))).logits[0]
        expected = scores[:, :height, :width].argmax(dim=0).numpy()
        for part in parts:
            seen = np.asarray(part["mask"]) > 0
            assert np.mean(seen != (expected == model.config.label2id[part["label"]])) < 0.01
