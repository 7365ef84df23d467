"""The scores of `metrics.py` as a module for `evaluate`: `evaluate.load("fcn_hf/segmentation_scores.py")`.

`evaluate` copies this file and metrics.py to its own folder, so they work without the rest of the package; it needs no
network. Nothing in the package imports this file: `evaluate` is an extra.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics import ConfusionMatrix

DESCRIPTION = """
Pixel accuracy, mean accuracy, mean IU and frequency-weighted IU of semantic segmentation, and the IoU of each class,
from one confusion matrix over all pictures ("Fully Convolutional Networks for Semantic Segmentation", section 5).
"""

INPUTS = """
Args:
    predictions: label maps, each of integers in 0..num_labels-1 and of shape (height, width).
    references: true label maps, each of the shape of its prediction; pictures may differ in size.
    num_labels (`int`): number of classes; at `compute`.
    ignore_index (`int`, defaults to 255): label of the pixels that count nowhere; at `compute`.
    label_names (`Sequence[str]`, *optional*): names of the classes, in the order of their ids; at `compute`.

Returns:
    `dict` with `mean_iou`, `mean_accuracy`, `pixel_accuracy`, `frequency_weighted_iou` (`float` in 0..1) and
    `per_class_iou` (`dict` of class name to `float`, NaN for a class that neither occurs nor is predicted).
"""

CITATION = """
@inproceedings{long2015fully,
  title={Fully Convolutional Networks for Semantic Segmentation},
  author={Long, Jonathan and Shelhamer, Evan and Darrell, Trevor},
  booktitle={CVPR},
  year={2015}
}
"""


class SegmentationScores(evaluate.Metric):
    """The four scores and each class's IoU.

    `evaluate` keeps what it is given in a file until `compute`, and maps of 360x480 as pictures or lists cost 12 to 42
    times as much as counting them. So each pair of maps is counted when it is added, and only the pairs of ids that
    occur in it are kept, with their number of pixels: a few hundred bytes a picture. The files of several processes
    (`num_process`, `process_id`) are still put together by `evaluate`.
    """

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": ids, "references": {"ids": ids, "pixels": ids}}),
            reference_urls=["https://arxiv.org/abs/1411.4038"],
        )

    def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Any]) -> None:
        """Add label maps: arrays, tensors or nested lists, as many predictions as references.

        Raises:
            `ValueError`: if their number or the shapes of two that belong together differ.
        """
        pairs = [_count_pairs(*maps) for maps in zip(predictions, references, strict=True)]
        super().add_batch(
            predictions=[predicted for predicted, _, _ in pairs],
            references=[{"ids": true, "pixels": pixels} for _, true, pixels in pairs],
        )

    def add(self, *, prediction: Any, reference: Any) -> None:
        """Add the two label maps of one picture."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(
        self,
        predictions: Sequence[Sequence[int]],
        references: Sequence[dict[str, Sequence[int]]],
        num_labels: int,
        ignore_index: int = 255,
        label_names: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        matrix = ConfusionMatrix(num_labels, ignore_index, label_names)
        for predicted, true in zip(predictions, references, strict=True):
            ids, pixels = (np.asarray(true[name], dtype=np.int64) for name in ("ids", "pixels"))
            matrix.update(np.asarray(predicted, dtype=np.int64), ids, pixels)
        return matrix.compute()


def _count_pairs(prediction: Any, reference: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted id, true id and number of pixels of each pair of ids that occurs in two maps; three int64 arrays."""
    predicted, true = np.asarray(prediction), np.asarray(reference)
    if predicted.shape != true.shape:
        raise ValueError(f"a prediction has shape {predicted.shape} and its reference {true.shape}; they must agree.")
    # Two ids in one number: a sort of single numbers is many times faster than one of pairs.
    pairs, pixels = np.unique((true.astype(np.int64) << 32) + predicted.astype(np.int64), return_counts=True)
    true_ids = (pairs + 2**31) >> 32
    return pairs - (true_ids << 32), true_ids, pixels
