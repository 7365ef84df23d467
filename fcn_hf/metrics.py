"""The paper's four scores (CVPR, section 5, "Metrics") and boundary F1, from counts over a whole split.

Scores of a split come from the counts of all its pictures together, never from averages of per-picture scores. So the
memory needed doesn't grow with the split, and the counts of several processes add up.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np


def distinct_names(names: Iterable[str]) -> list[str]:
    """Names of classes by which each can be found: one that several have is followed by the class's id."""
    distinct = list(names)
    while len(set(distinct)) < len(distinct):
        counts = Counter(distinct)
        distinct = [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(distinct)]
    return distinct


class _Counts:
    """Whole numbers that add up over pictures and processes, and the labels that they are about."""

    def __init__(self, num_labels: int, ignore_index: int, label_names: Sequence[str] | None, columns: int):
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self.label_names = distinct_names(label_names or map(str, range(num_labels)))
        self.counts = np.zeros((num_labels, columns), dtype=np.int64)

    def merge(self, other: Self) -> None:
        """Add the counts of another object of the same kind, as from another part of the split.

        Raises:
            `ValueError`: if the other counts other classes.
        """
        if other.counts.shape != self.counts.shape or other.label_names != self.label_names:
            raise ValueError(
                f"can't merge counts of the {other.num_labels} classes {other.label_names} into those of the "
                f"{self.num_labels} classes {self.label_names}; count both with the same num_labels and label_names."
            )
        self.counts += other.counts

    def all_reduce(self) -> None:
        """Replace the counts by their sum over all processes of `torch.distributed`; nothing happens outside of it.

        Every process calls it once, after its own last `update`. Parts of the split must not overlap: a sampler that
        repeats pictures to make the parts equally long has them counted twice.
        """
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            parts: list[Any] = [None] * distributed.get_world_size()
            # Of the collectives, this one takes arrays on the CPU with every backend.
            distributed.all_gather_object(parts, self.counts)
            self.counts = np.sum(parts, axis=0)

    def _checked(self, prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both as arrays, and where the label counts."""
        prediction, label = np.asarray(prediction), np.asarray(label)
        if prediction.shape != label.shape:
            raise ValueError(
                f"prediction has shape {prediction.shape} and label {label.shape}; compare them at one size, the "
                "label's own (post_process_semantic_segmentation takes it as target_sizes)."
            )
        for name, array in (("label", label), ("prediction", prediction)):
            if array.dtype.kind not in "uib":
                raise ValueError(f"{name} has dtype {array.dtype}; expected whole numbers, the class id of each pixel.")
        labelled = label != self.ignore_index
        for name, ids in (("label", label[labelled]), ("prediction", prediction[labelled])):
            if ids.size and (ids.min() < 0 or ids.max() >= self.num_labels):
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise ValueError(
                    f"{name} {wrong} is outside 0..{self.num_labels - 1}; pass its id as ignore_index or fix id2label."
                )
        return prediction, label, labelled

    def _by_name(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.label_names, values.tolist(), strict=True))


class ConfusionMatrix(_Counts):
    """Counts n_ij, the pixels of class i predicted as class j, over any number of pictures in constant memory.

    The same definitions as `evaluate`'s `mean_iou` module, and on ordinary input the same values. Where they differ:

    - A label that is neither in 0..C-1 nor `ignore_index` is an error here. There it is dropped from the labels but the
      prediction at its place is still counted, which enlarges that class's union.
    - Frequency-weighted IU exists here alone; pixel accuracy is called `overall_accuracy` there.
    - There is no `label_map` and no `reduce_labels` here: labels are mapped before they are scored.
    - Without labelled pixels both give NaN; numpy warns of it there.

    Args:
        num_labels (`int`): number of classes C.
        ignore_index (`int`): label of the pixels that count nowhere.
        label_names (`Sequence[str]`, *optional*): names for `per_class_iou`; the ids as text without them. A name that
            several classes have is followed by their ids there.

    Attributes:
        counts (`np.ndarray` of int64, shape `(C, C)`): rows are true classes, columns predicted ones.
    """

    def __init__(self, num_labels: int, ignore_index: int = 255, label_names: Sequence[str] | None = None):
        super().__init__(num_labels, ignore_index, label_names, columns=num_labels)

    def update(self, prediction: np.ndarray, label: np.ndarray, pixels: np.ndarray | None = None) -> None:
        """Count the pixels of one picture or one batch.

        Args:
            prediction (`np.ndarray` of integers, any shape): predicted class ids in 0..C-1.
            label (`np.ndarray` of integers, same shape): true class ids in 0..C-1 or `ignore_index`.
            pixels (`np.ndarray` of integers, same shape, *optional*): how many pixels each entry stands for; 1 without.

        Raises:
            `ValueError`: if the shapes differ, they aren't integers, or an id that isn't ignored is outside 0..C-1.
        """
        prediction, label, labelled = self._checked(prediction, label)
        true, predicted = label[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
        weights = None if pixels is None else np.asarray(pixels)[labelled]
        # With weights the sums are float64, exact up to 2**53 pixels.
        pairs = np.bincount(true * self.num_labels + predicted, weights, minlength=self.num_labels**2)
        self.counts += pairs.astype(np.int64).reshape(self.num_labels, self.num_labels)

    def compute(self) -> dict[str, Any]:
        """The scores, all in 0..1.

        Returns:
            `dict` with `mean_iou`, `mean_accuracy`, `pixel_accuracy`, `frequency_weighted_iou` (`float`) and
            `per_class_iou` (`dict` of label name to `float`). A class that is neither in the labels nor predicted has
            no IoU: NaN, which stays out of the mean, as in `evaluate`'s mean_iou. Without labelled pixels all are NaN.
        """
        hits = np.diag(self.counts).astype(np.float64)
        true = self.counts.sum(axis=1).astype(np.float64)
        union = true + self.counts.sum(axis=0) - hits
        total = true.sum()
        iou = _ratio(hits, union)
        return {
            "mean_iou": _mean(iou),
            "mean_accuracy": _mean(_ratio(hits, true)),
            "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
            "frequency_weighted_iou": float(np.nansum(true * iou) / total) if total else float("nan"),
            "per_class_iou": self._by_name(iou),
        }


class BoundaryF1(_Counts):
    """How well boundaries are drawn: F1 of each class's boundary pixels, over any number of pictures.

    After Csurka, Larlus, Perronnin ("What is a good evaluation measure for semantic segmentation?", BMVC 2013). A
    boundary pixel of a class touches, at a side, a pixel of another class. Precision is the share of a class's
    predicted boundary pixels that have a true one of that class no further away than the tolerance, recall the share of
    the true ones that have a predicted one as near, and F1 is 2 precision recall / (precision + recall).

    Where the paper averages the F1 of pictures, the four counts behind precision and recall are summed over the split
    here, as all other scores are: a picture weighs as much as it has boundary. Pixels with the label `ignore_index` are
    no boundary in either map, and neither are those that only touch such pixels; the edge of the picture isn't one.

    Args:
        num_labels, ignore_index, label_names: as in [`ConfusionMatrix`].
        tolerance (`float`): distance between pixel centres up to which a boundary pixel is matched, as a share of the
            picture's diagonal; the paper's 0.75 % is 4.5 pixels at 360x480.

    Attributes:
        counts (`np.ndarray` of int64, shape `(C, 4)`): predicted boundary pixels, those matched, true boundary pixels,
            those matched.

    Raises:
        `ImportError`: if scipy isn't installed.
    """

    def __init__(
        self,
        num_labels: int,
        ignore_index: int = 255,
        label_names: Sequence[str] | None = None,
        tolerance: float = 0.0075,
    ):
        super().__init__(num_labels, ignore_index, label_names, columns=4)
        self.tolerance = tolerance
        try:
            from scipy.spatial import KDTree
        except ImportError as error:
            raise ImportError("Boundary F1 needs scipy: pip install 'fcn-hf[evaluate]'.") from error
        self._tree = KDTree

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Count the boundaries of one picture.

        Args:
            prediction (`np.ndarray` of integers, shape `(H, W)`): predicted class ids in 0..C-1.
            label (`np.ndarray` of integers, shape `(H, W)`): true class ids in 0..C-1 or `ignore_index`.

        Raises:
            `ValueError`: if the shapes differ or aren't of one picture, they aren't integers, or an id that isn't
                ignored is outside 0..C-1.
        """
        prediction, label, labelled = self._checked(prediction, label)
        if label.ndim != 2:
            raise ValueError(f"label has shape {label.shape}; boundaries are counted one picture (H, W) at a time.")
        distance = self.tolerance * float(np.hypot(*label.shape))
        predicted_points, predicted_ids = _boundary(prediction, labelled)
        true_points, true_ids = _boundary(label, labelled)
        for index in np.union1d(predicted_ids, true_ids):
            predicted, true = predicted_points[predicted_ids == index], true_points[true_ids == index]
            self.counts[index] += (
                len(predicted),
                self._matched(predicted, true, distance),
                len(true),
                self._matched(true, predicted, distance),
            )

    def compute(self) -> dict[str, Any]:
        """The scores, in 0..1.

        Returns:
            `dict` with `boundary_f1` (`float`), the mean over the classes, and `per_class_boundary_f1` (`dict` of label
            name to `float`). A class without any boundary, true or predicted, has NaN, which stays out of the mean.
        """
        predicted, predicted_matched, true, true_matched = self.counts.T.astype(np.float64)
        precision, recall = _ratio(predicted_matched, predicted), _ratio(true_matched, true)
        f1 = _ratio(2 * precision * recall, precision + recall)
        # With boundaries and no match, or boundaries in one of the maps alone, precision and recall leave F1 open.
        f1[(predicted + true > 0) & np.isnan(f1)] = 0
        return {"boundary_f1": _mean(f1), "per_class_boundary_f1": self._by_name(f1)}

    def _matched(self, points: np.ndarray, others: np.ndarray, distance: float) -> int:
        if not len(points) or not len(others):
            return 0
        # The bound itself is excluded there.
        distances, _ = self._tree(others).query(points, distance_upper_bound=np.nextafter(distance, np.inf))
        return int(np.isfinite(distances).sum())


def _boundary(ids: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places, shape `(N, 2)`, and ids, shape `(N,)`, of the pixels that touch another class at a side."""
    edges = np.zeros(ids.shape, dtype=bool)
    for axis in (0, 1):
        map_, here, marks = (np.moveaxis(array, axis, 0) for array in (ids, labelled, edges))
        differ = (map_[:-1] != map_[1:]) & here[:-1] & here[1:]
        marks[:-1] |= differ
        marks[1:] |= differ
    return np.argwhere(edges), ids[edges]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0 or NaN."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
