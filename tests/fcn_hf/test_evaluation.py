"""How pictures are looked at, and what counts them."""

import csv
import math
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_hf import ConfusionMatrix, FCNImageProcessor
from fcn_hf.evaluation import (
    DatasetError,
    HubMeanIoU,
    InferenceMode,
    MetricError,
    PictureScores,
    _starts,
    averaged_scores,
    evaluate_split,
    label_arguments,
    predict,
    windowed_logits,
)
from fcn_hf.metrics import BoundaryF1


@pytest.fixture
def pixel_values():
    return torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8))


class Pointwise(torch.nn.Module):
    """A net that sees single pixels alone: whatever the window or the mirror, its logits are the same."""

    def __init__(self, output_stride=1):
        super().__init__()
        self.config = SimpleNamespace(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
        self.device = torch.device("cpu")
        self.output_stride = output_stride
        self.sizes = []

    def forward(self, pixel_values):
        self.sizes.append(tuple(pixel_values.shape[-2:]))
        step = self.output_stride
        return SimpleNamespace(logits=pixel_values[..., ::step, ::step] * torch.tensor([1.0, 2, -1])[:, None, None])


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


# Splits


@pytest.fixture
def rows():
    """Four pictures of four sizes; the third is all in class 0, the last without labels."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(4):
        picture, label = generator.integers(0, 256, (20, 24 + index, 3)), generator.integers(0, 3, (20, 24 + index))
        label = {2: label * 0, 3: label * 0 + 255}.get(index, label)
        rows.append({"image": Image.fromarray(picture.astype(np.uint8)), "label": label.astype(np.uint8)})
    return rows


def score(rows, metrics=None, **mode):
    processor = FCNImageProcessor(do_normalize=False)
    return evaluate_split(Pointwise(), processor, rows, ("image", "label"), InferenceMode(**mode), metrics)


def test_a_split_s_scores_are_those_of_one_confusion_matrix(rows):
    matrix = ConfusionMatrix(*label_arguments(Pointwise().config))
    for row in rows:
        matrix.update(predict(Pointwise(), FCNImageProcessor(do_normalize=False), row["image"]), row["label"])
    np.testing.assert_equal(score(rows), matrix.compute())
    np.testing.assert_equal(score(rows, window=(8, 8)), matrix.compute())


def test_boundary_f1_comes_only_when_asked_for(rows):
    arguments = label_arguments(Pointwise().config)
    plain, scores = score(rows), score(rows, [ConfusionMatrix(*arguments), BoundaryF1(*arguments)])
    assert list(scores) == [*plain, "boundary_f1", "per_class_boundary_f1"]
    assert 0 <= scores["boundary_f1"] <= 1 and list(scores["per_class_boundary_f1"]) == ["a", "b", "c"]


def test_single_pictures_are_told_worst_first(rows, tmp_path):
    metric = PictureScores(*label_arguments(Pointwise().config))
    assert score(rows, [metric]) == {}, "single pictures' scores are no score of the split"
    listed = list(metric.worst_first())
    assert sorted(row for row, _, _ in listed) == [0, 1, 2, 3] and listed[-1][0] == 3 and math.isnan(listed[-1][1])
    assert listed[0][1] <= listed[1][1] <= listed[2][1]
    for row, mean_iou, pixel_accuracy in listed[:3]:
        alone = score([rows[row]])
        assert (mean_iou, pixel_accuracy) == (alone["mean_iou"], alone["pixel_accuracy"])
    metric.write_csv(tmp_path / "pictures.csv")
    with (tmp_path / "pictures.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(line["row"]) for line in table] == [row for row, _, _ in listed]
    assert float(table[0]["mean_iou"]) == pytest.approx(listed[0][1], abs=1e-6) and table[3]["pixel_accuracy"] == ""


def test_a_row_that_cannot_be_scored_is_named(rows):
    rows[1]["label"] = rows[1]["label"][1:]
    with pytest.raises(DatasetError, match="Row 1: prediction has shape"):
        score(rows)


# evaluate's own module


def test_the_hub_s_metric_comes_under_our_names(rows, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    calls = SimpleNamespace(predictions=[], references=[], arguments=None)

    class Module:
        def add_batch(self, *, predictions, references):
            calls.predictions += predictions
            calls.references += references

        def compute(self, **arguments):
            calls.arguments = arguments
            return {
                "mean_iou": np.float64(0.5),
                "mean_accuracy": np.float64(0.6),
                "overall_accuracy": np.float64(0.7),
                "per_category_iou": np.array([0.25, 0.75, np.nan]),
                "per_category_accuracy": np.array([0.6, 0.6, np.nan]),
            }

    monkeypatch.setattr(evaluate, "load", lambda name: {"mean_iou": Module()}[name])
    arguments = label_arguments(Pointwise().config)
    scores = score(rows, [ConfusionMatrix(*arguments), HubMeanIoU(*arguments)])
    expected = {
        "mean_iou": 0.5,
        "mean_accuracy": 0.6,
        "pixel_accuracy": 0.7,
        "frequency_weighted_iou": math.nan,
        "per_class_iou": {"a": 0.25, "b": 0.75, "c": math.nan},
    }
    np.testing.assert_equal(scores, expected)
    assert calls.arguments == {"num_labels": 3, "ignore_index": 255}
    assert len(calls.predictions) == 4 and calls.predictions[0].dtype.itemsize <= 4
    np.testing.assert_array_equal(calls.references[1], rows[1]["label"])


def test_without_a_network_or_evaluate_the_hub_s_metric_says_so(monkeypatch):
    pytest.importorskip("evaluate")
    with pytest.raises(MetricError, match="can't be fetched from the Hub.*mean_iou"):
        HubMeanIoU(3, 255, ["a", "b", "c"])
    monkeypatch.setitem(sys.modules, "evaluate", None)
    with pytest.raises(ImportError, match=r"pip install 'fcn-hf\[evaluate\]'"):
        HubMeanIoU(3, 255, ["a", "b", "c"])
