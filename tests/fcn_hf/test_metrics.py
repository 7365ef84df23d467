"""The four scores: the paper's formulas, over the whole split. Boundary F1. And both as others see them."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

import fcn_hf
from fcn_hf import ConfusionMatrix
from fcn_hf.metrics import BoundaryF1

MODULE = Path(fcn_hf.__file__).parent / "segmentation_scores.py"


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


def test_entries_may_stand_for_many_pixels():
    matrix, one_by_one = ConfusionMatrix(3), ConfusionMatrix(3)
    matrix.update(np.array([0, 2, 1]), np.array([0, 1, 255]), np.array([4, 3, 9]))
    one_by_one.update(np.array([0] * 4 + [2] * 3), np.array([0] * 4 + [1] * 3))
    np.testing.assert_array_equal(matrix.counts, one_by_one.counts)


def random_maps(pictures=4, num_labels=5, seed=0):
    """Predictions and labels in blocks of 4x4, of several sizes; a tenth of the labels is 255."""
    generator = np.random.default_rng(seed)
    predictions, labels = [], []
    for index in range(pictures):
        label = generator.integers(0, num_labels, (5, 6 + index)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        noise = generator.integers(0, num_labels, label.shape)
        predictions.append(np.where(generator.random(label.shape) < 0.8, np.roll(label, index, 1), noise))
        label[generator.random(label.shape) < 0.1] = 255
        labels.append(label)
    return predictions, labels


@pytest.mark.parametrize("metric", [ConfusionMatrix, BoundaryF1])
def test_parts_of_a_split_add_up(metric):
    predictions, labels = random_maps()
    whole, parts = metric(5), [metric(5), metric(5)]
    for index, maps in enumerate(zip(predictions, labels, strict=True)):
        whole.update(*maps)
        parts[index % 2].update(*maps)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].counts, whole.counts)
    whole.all_reduce()
    np.testing.assert_array_equal(parts[0].counts, whole.counts, "a single process has nothing to add")
    with pytest.raises(ValueError, match="the 3 classes.*the 5 classes"):
        whole.merge(metric(3))


def count_a_part(rank, store, sums):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    matrix = ConfusionMatrix(2)
    matrix.update(np.full(3 + rank, rank), np.full(3 + rank, rank))
    matrix.all_reduce()
    sums.put(matrix.counts.tolist())


def test_processes_add_up(tmp_path):
    # Forked, because fresh interpreters would take ten seconds to import torch.
    context = multiprocessing.get_context("fork")
    sums = context.Queue()
    processes = [context.Process(target=count_a_part, args=(rank, tmp_path / "store", sums)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        assert [sums.get(timeout=30) for _ in processes] == [[[3, 0], [0, 4]]] * 2
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()


# Boundary F1


def boundary_by_brute_force(ids, labelled, wanted):
    """Pixels of one class with one of their four neighbours in another, all looked at one by one."""
    height, width = ids.shape
    found = []
    for y, x in np.argwhere((ids == wanted) & labelled):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and labelled[v, u] and ids[v, u] != wanted:
                found.append((y, x))
                break
    return np.array(found, dtype=float).reshape(-1, 2)


@pytest.mark.parametrize("tolerance", [0.0075, 0.03, 0.08])
def test_boundary_counts_are_those_of_all_distances(tolerance):
    predictions, labels = random_maps(pictures=2)
    metric = BoundaryF1(5, tolerance=tolerance)
    expected = np.zeros((5, 4))
    for prediction, label in zip(predictions, labels, strict=True):
        metric.update(prediction, label)
        limit = tolerance * np.hypot(*label.shape)
        for index in range(5):
            predicted, true = (boundary_by_brute_force(ids, label != 255, index) for ids in (prediction, label))
            near = np.linalg.norm(predicted[:, None] - true[None], axis=-1) <= limit
            expected[index] += len(predicted), near.any(axis=1).sum(), len(true), near.any(axis=0).sum()
    np.testing.assert_array_equal(metric.counts, expected)
    predicted, predicted_near, true, true_near = expected.T
    precision, recall = predicted_near / predicted, true_near / true
    f1 = 2 * precision * recall / (precision + recall)
    scores = metric.compute()
    assert list(scores["per_class_boundary_f1"].values()) == pytest.approx(f1.tolist())
    assert scores["boundary_f1"] == pytest.approx(f1.mean())


def test_a_boundary_within_the_tolerance_is_right_and_beyond_it_wrong():
    columns = np.ones((60, 1), dtype=int) * np.arange(80)
    # The diagonal is 100 pixels, so that a tolerance of 0.03 is 3 of them.
    for shift, expected in ((0, 1.0), (3, 1.0), (4, 0.0)):
        metric = BoundaryF1(3, tolerance=0.03)
        metric.update((columns >= 40 + shift).astype(int), (columns >= 40).astype(int))
        assert metric.compute()["boundary_f1"] == expected, shift
    assert np.isnan(metric.compute()["per_class_boundary_f1"]["2"])


def test_ignored_pixels_are_no_boundary():
    label = np.zeros((20, 20), dtype=np.uint8)
    label[:, 8:12] = 255
    label[:, 12:] = 1
    metric = BoundaryF1(2)
    metric.update(np.where(np.arange(20) < 10, 0, 1) * np.ones((20, 1), int), label)
    assert metric.counts.sum() == 0 and np.isnan(metric.compute()["boundary_f1"])
    metric.update(np.zeros((20, 20), int), np.eye(20, dtype=int))
    assert metric.compute() == {"boundary_f1": 0, "per_class_boundary_f1": {"0": 0, "1": 0}}, "all boundaries missed"


def test_boundaries_are_those_of_one_picture():
    with pytest.raises(ValueError, match=r"\(2, 4, 4\).*one picture"):
        BoundaryF1(2).update(np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int))


# The module for `evaluate`


@pytest.fixture(scope="module")
def evaluate():
    return pytest.importorskip("evaluate")


def histogram_scores(predictions, labels, num_labels, ignore_index):
    """
    What `evaluate`'s mean_iou module computes, in its definition: for each class the histograms of the labels, of the
    predictions and of where they agree, over the pixels that aren't ignored; ids that no bin is for are dropped.
    """
    true, predicted, hits = np.zeros(num_labels), np.zeros(num_labels), np.zeros(num_labels)
    for prediction, label in zip(predictions, labels, strict=True):
        kept = label != ignore_index
        for index in range(num_labels):
            true[index] += np.sum(label[kept] == index)
            predicted[index] += np.sum(prediction[kept] == index)
            hits[index] += np.sum((label[kept] == index) & (prediction[kept] == index))
    with np.errstate(invalid="ignore"):
        iou, accuracy = hits / (true + predicted - hits), hits / true
    return {
        "mean_iou": np.nanmean(iou),
        "mean_accuracy": np.nanmean(accuracy),
        "overall_accuracy": hits.sum() / true.sum(),
        "per_category_iou": iou,
    }


def test_scores_are_those_of_evaluate_s_mean_iou_on_ordinary_input():
    predictions, labels = random_maps()
    matrix = ConfusionMatrix(6)
    for maps in zip(predictions, labels, strict=True):
        matrix.update(*maps)
    scores, theirs = matrix.compute(), histogram_scores(predictions, labels, 6, 255)
    for ours, name in (("mean_iou",) * 2, ("mean_accuracy",) * 2, ("pixel_accuracy", "overall_accuracy")):
        assert scores[ours] == pytest.approx(theirs[name], abs=1e-12), name
    np.testing.assert_allclose(list(scores["per_class_iou"].values()), theirs["per_category_iou"])
    assert np.isnan(theirs["per_category_iou"][5]), "a class without pixels has no IoU in either"


def test_evaluate_s_mean_iou_lets_unknown_labels_count_against_a_class_where_we_refuse_them():
    prediction, label = np.array([[0, 0, 1, 1]]), np.array([[0, 7, 1, 1]])
    theirs = histogram_scores([prediction], [label], 2, 255)
    assert theirs["per_category_iou"].tolist() == [0.5, 1.0] and theirs["overall_accuracy"] == 1
    with pytest.raises(ValueError, match="label 7 is outside 0..1"):
        ConfusionMatrix(2).update(prediction, label)


def test_evaluate_loads_the_module_from_its_file_and_gets_the_same_scores(evaluate):
    predictions, labels = random_maps()
    matrix = ConfusionMatrix(5, label_names=list("abcde"))
    for maps in zip(predictions, labels, strict=True):
        matrix.update(*maps)
    module = evaluate.load(str(MODULE))
    assert not type(module).__module__.startswith("fcn_hf"), "evaluate works with a copy of its own"
    module.add_batch(predictions=predictions[:2], references=labels[:2])
    module.add(prediction=torch.as_tensor(predictions[2]), reference=labels[2].tolist())
    scores = module.compute(predictions=predictions[3:], references=labels[3:], num_labels=5, label_names=list("abcde"))
    assert scores == matrix.compute()
    ignored = module.compute(predictions=[[[0, 1]]], references=[[[0, 9]]], num_labels=2, ignore_index=9)
    assert ignored["pixel_accuracy"] == 1, "each compute starts anew"


def test_the_module_keeps_pairs_of_ids_and_not_maps(evaluate):
    module = evaluate.load(str(MODULE))
    maps = np.zeros((3, 500, 500), dtype=np.uint8)
    maps[:, 250:] = 255
    module.add_batch(predictions=np.zeros_like(maps), references=maps)
    module._finalize()
    assert module.data.data.nbytes < 1000
    assert module.data[0] == {"predictions": [0, 0], "references": {"ids": [0, 255], "pixels": [125000, 125000]}}


def test_the_module_says_what_is_wrong(evaluate):
    module = evaluate.load(str(MODULE))
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(2, 1\)"):
        module.add(prediction=[[0, 1]], reference=[[0], [1]])
    with pytest.raises(ValueError, match="label -1 is outside 0..1"):
        module.compute(predictions=[[[0, 1]]], references=[[[0, -1]]], num_labels=2)
