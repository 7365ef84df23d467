"""The paper's four scores from one confusion matrix over a whole split (CVPR, section 5, "Metrics")."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class ConfusionMatrix:
    """Counts n_ij, the pixels of class i predicted as class j, over any number of pictures in constant memory.

    Scores of a split come from the counts of all its pictures together, never from averages of per-picture scores.

    Args:
        num_labels (`int`): number of classes C.
        ignore_index (`int`): label of the pixels that count nowhere.
        label_names (`Sequence[str]`, *optional*): names for `per_class_iou`; the ids as text without them.

    Attributes:
        counts (`np.ndarray` of int64, shape `(C, C)`): rows are true classes, columns predicted ones.
    """

    def __init__(self, num_labels: int, ignore_index: int = 255, label_names: Sequence[str] | None = None):
        self.num_labels = num_labels
        self.ignore_index = ignore_index
        self.label_names = list(label_names or map(str, range(num_labels)))
        self.counts = np.zeros((num_labels, num_labels), dtype=np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Count the pixels of one picture or one batch.

        Args:
            prediction (`np.ndarray` of integers, any shape): predicted class ids in 0..C-1.
            label (`np.ndarray` of integers, same shape): true class ids in 0..C-1 or `ignore_index`.

        Raises:
            `ValueError`: if the shapes differ, or an id that isn't ignored is outside 0..C-1.
        """
        prediction, label = np.asarray(prediction), np.asarray(label)
        if prediction.shape != label.shape:
            raise ValueError(
                f"prediction has shape {prediction.shape} and label {label.shape}; compare them at one size, the "
                "label's own (post_process_semantic_segmentation takes it as target_sizes)."
            )
        labelled = label != self.ignore_index
        true, predicted = label[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
        for name, ids in (("label", true), ("prediction", predicted)):
            if ids.size and (ids.min() < 0 or ids.max() >= self.num_labels):
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise ValueError(
                    f"{name} {wrong} is outside 0..{self.num_labels - 1}; pass its id as ignore_index or fix id2label."
                )
        pairs = np.bincount(true * self.num_labels + predicted, minlength=self.num_labels**2)
        self.counts += pairs.reshape(self.num_labels, self.num_labels)

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

        def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
            defined = denominator > 0
            return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=defined)

        def mean(values: np.ndarray) -> float:
            return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

        iou = ratio(hits, union)
        return {
            "mean_iou": mean(iou),
            "mean_accuracy": mean(ratio(hits, true)),
            "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
            "frequency_weighted_iou": float(np.nansum(true * iou) / total) if total else float("nan"),
            "per_class_iou": dict(zip(self.label_names, iou.tolist(), strict=True)),
        }
