"""The four scores: the paper's formulas, over the whole split."""

import numpy as np
import pytest

from fcn_hf import ConfusionMatrix


def paper_scores(prediction, label, num_labels, ignore_index=255):
    """The formulas of CVPR, section 5, one class at a time."""
    kept = label != ignore_index
    prediction, label = prediction[kept], label[kept]
    hits = np.array([np.sum((label == i) & (prediction == i)) for i in range(num_labels)])
    true = np.array([np.sum(label == i) for i in range(num_labels)])
    union = true + np.array([np.sum(prediction == i) for i in range(num_labels)]) - hits
    return {
        "pixel_accuracy": hits.sum() / true.sum(),
        "mean_accuracy": np.mean(hits / true),
        "mean_iou": np.mean(hits / union),
        "frequency_weighted_iou": np.sum(true * hits / union) / true.sum(),
    }


def test_scores_of_many_updates_are_those_of_all_pixels_at_once():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 5, (6, 20, 30)).astype(np.uint8)
    prediction = np.where(generator.random(label.shape) < 0.6, label, generator.integers(0, 5, label.shape))
    label[generator.random(label.shape) < 0.1] = 255
    matrix = ConfusionMatrix(5, label_names=list("abcde"))
    for one_prediction, one_label in zip(prediction, label, strict=True):
        matrix.update(one_prediction, one_label)
    scores = matrix.compute()
    for name, expected in paper_scores(prediction, label, 5).items():
        assert scores[name] == pytest.approx(expected, abs=1e-12), name
    assert list(scores["per_class_iou"]) == list("abcde")
    assert matrix.counts.dtype == np.int64 and matrix.counts.sum() == np.sum(label != 255)


def test_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 1], [1, 1, 0]]), np.array([[0, 0, 0], [1, 1, 255]]))
    scores = matrix.compute()
    assert scores["per_class_iou"]["0"] == pytest.approx(2 / 3)
    assert scores["per_class_iou"]["1"] == pytest.approx(2 / 3)
    assert np.isnan(scores["per_class_iou"]["2"]), "a class that neither occurs nor is predicted has no IoU"
    assert scores["mean_iou"] == pytest.approx(2 / 3)
    assert scores["pixel_accuracy"] == pytest.approx(4 / 5)


def test_without_labelled_pixels_nothing_is_claimed():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((4, 4), int), np.full((4, 4), 255))
    assert np.isnan(matrix.compute()["mean_iou"]) and np.isnan(matrix.compute()["pixel_accuracy"])


def test_wrong_input_is_named_and_counts_nothing():
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match="label 7 is outside 0..2"):
        matrix.update(np.zeros((2, 2), int), np.full((2, 2), 7))
    with pytest.raises(ValueError, match="prediction -1 is outside 0..2"):
        matrix.update(np.full((2, 2), -1), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        matrix.update(np.zeros((2, 2), int), np.zeros((2, 3), int))
    assert matrix.counts.sum() == 0
