"""What counts a split."""

import csv
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fcn_hf import ConfusionMatrix, FCNImageProcessor
from fcn_hf.datasets import DatasetError
from fcn_hf.evaluation import HubMeanIoU, MetricError, PictureScores, evaluate_split, label_arguments
from fcn_hf.metrics import BoundaryF1
from fcn_hf.prediction import InferenceMode, predict
from tests.helpers import Pointwise


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
    # 0.7 would count as class 0.
    rows[0]["label"] = Image.fromarray(np.full(rows[0]["label"].shape, 0.7, dtype=np.float32))
    with pytest.raises(DatasetError, match="Row 0: label has dtype float32; expected whole numbers"):
        score(rows)
    for column in ("label", "image"):
        rows[0][column] = None
        with pytest.raises(DatasetError, match=f"Row 0 has nothing in the column '{column}'"):
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
