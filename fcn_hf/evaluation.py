"""A dataset split and a model -> scores, and what counts them."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .datasets import DatasetError, check_filled, numbered_rows
from .errors import UNREACHABLE, FCNError, hub_reason, in_one_line
from .image_inputs_fcn import LOSSY_MAP, is_lossy, reduced_labels
from .metrics import ConfusionMatrix, distinct_names
from .prediction import WHOLE_PICTURE, InferenceMode, predict


class Metric(Protocol):
    """What counts a split: `ConfusionMatrix`, `BoundaryF1` and the classes below."""

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None: ...

    def compute(self) -> dict[str, Any]: ...


def label_arguments(config) -> tuple[int, int, list[str]]:
    """Number of labels, ignored label and names of a model's classes, as every metric takes them."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    return config.num_labels, getattr(config, "semantic_loss_ignore_index", 255), names


def evaluate_split(
    model,
    processor,
    rows: Iterable[Mapping[str, Any]],
    columns: tuple[str, str],
    mode: InferenceMode = WHOLE_PICTURE,
    metrics: Sequence[Metric] | None = None,
    numbers: Iterable[int] | None = None,
) -> dict[str, Any]:
    """The scores of a model on a split, each picture at its own size, from one confusion matrix.

    Args:
        processor: the model's image processor; where it has `do_reduce_labels`, label maps are reduced by 1.
        rows: of a dataset, with PIL pictures.
        columns: names of the image and the label column.
        mode: window, scales and mirroring.
        metrics: what counts the pictures, each made with `*label_arguments(model.config)`; `ConfusionMatrix` alone if
            left out. Boundary F1 is `metrics=[ConfusionMatrix(*arguments), BoundaryF1(*arguments)]`.
        numbers: of the rows, by which errors name them; 0, 1, 2, ... if left out.

    Returns:
        What the metrics' `compute` give, a later one over an earlier one. By default that is `mean_iou`,
        `mean_accuracy`, `pixel_accuracy`, `frequency_weighted_iou` and `per_class_iou`, all in 0..1.

    Raises:
        `DatasetError`: naming the row that can't be read, that the model or its processor can't take, or whose label
            map has another size, ids that the model doesn't know, or values that are none.
    """
    arguments = label_arguments(model.config)
    if metrics is None:
        metrics = [ConfusionMatrix(*arguments)]
    _, ignore_index, _ = arguments
    reduces = getattr(processor, "do_reduce_labels", False)
    image_column, label_column = columns
    for where, row in numbered_rows(rows, numbers=numbers):
        check_filled(row, columns, where)
        try:
            if is_lossy(row[label_column]):
                raise DatasetError(f"its label map {LOSSY_MAP}.")
            prediction, label = predict(model, processor, row[image_column], mode), np.asarray(row[label_column])
            label = reduced_labels(label, ignore_index) if reduces else label
            for metric in metrics:
                metric.update(prediction, label)
        except Exception as error:  # a model or processor of another kind passes on whatever it meets
            raise DatasetError(f"{where}: {in_one_line(error)}") from error
    return computed(metrics)


def computed(metrics: Iterable[Metric]) -> dict[str, Any]:
    """The scores of several metrics, a later one's over an earlier one's."""
    return {name: value for metric in metrics for name, value in metric.compute().items()}


class PictureScores:
    """Scores of single pictures, to find the worst ones; two numbers are kept of each.

    Args:
        num_labels, ignore_index, label_names: as in `ConfusionMatrix`.
    """

    COLUMNS = ("row", "mean_iou", "pixel_accuracy")

    def __init__(self, num_labels: int, ignore_index: int = 255, label_names: Sequence[str] | None = None):
        self._arguments = (num_labels, ignore_index, label_names)
        self._scores: list[tuple[float, float]] = []

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Count one picture; arguments and errors are those of `ConfusionMatrix.update`."""
        matrix = ConfusionMatrix(*self._arguments)
        matrix.update(prediction, label)
        scores = matrix.compute()
        self._scores.append((scores["mean_iou"], scores["pixel_accuracy"]))

    def compute(self) -> dict[str, Any]:
        """Nothing: single pictures' scores are no score of the split."""
        return {}

    def worst_first(self) -> Iterator[tuple[int, float, float]]:
        """Row number from 0, mean IoU of the classes that occur or are predicted, and pixel accuracy, both 0..1.

        Pictures without a label have NaN and come last.
        """
        rows = [(index, *scores) for index, scores in enumerate(self._scores)]
        return iter(sorted(rows, key=lambda row: (np.isnan(row[1]), row[1])))

    def write_csv(self, path: Path) -> None:
        """Write `worst_first` as a table with the columns row, mean_iou and pixel_accuracy; NaN is left empty."""
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(self.COLUMNS)
            for row, *scores in self.worst_first():
                table.writerow([row, *("" if np.isnan(score) else f"{score:.6f}" for score in scores)])

    @classmethod
    def wrote(cls, path: Path) -> bool:
        """Whether a file is a table of `write_csv`."""
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(100).rstrip("\n") == ",".join(cls.COLUMNS)


def write_json(scores: Mapping[str, Any], path: Path) -> None:
    """Write a split's scores, NaN as `null`: JSON knows no NaN, which a class that never occurs has for its IoU."""
    path.write_text(json.dumps(_nan_to_null(scores), indent=2) + "\n")


def _nan_to_null(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _nan_to_null(value) if isinstance(value, Mapping) else None if math.isnan(value) else value
        for name, value in scores.items()
    }


def is_json_of_scores(path: Path) -> bool:
    """Whether a file is one of `write_json`."""
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(scores, dict) and {"mean_iou", "per_class_iou"} <= scores.keys()


class MetricError(FCNError):
    """A metric can't be had; the message is one sentence for the person who asked."""


class HubMeanIoU:
    """`evaluate`'s own mean_iou module, fetched from the Hub, with its results under our names.

    It keeps all label maps of a split until `compute`, so its memory grows with the split, and it knows no
    frequency-weighted IU, which is NaN.

    Args:
        num_labels, ignore_index, label_names: as in `ConfusionMatrix`.

    Raises:
        `ImportError`: if `evaluate` isn't installed.
        `MetricError`: if the module can't be fetched.
    """

    def __init__(self, num_labels: int, ignore_index: int, label_names: Sequence[str]):
        self.num_labels, self.ignore_index, self.label_names = num_labels, ignore_index, distinct_names(label_names)
        try:
            import evaluate
        except ImportError as error:
            raise ImportError("The metric mean_iou needs evaluate: pip install 'fcn-hf[evaluate]'.") from error
        try:
            self._module = evaluate.load("mean_iou")
        except (OSError, ValueError, ImportError, *UNREACHABLE) as error:
            reason = hub_reason(error)
            raise MetricError(
                f"The metric mean_iou can't be fetched from the Hub (is there a network?): {reason} "
                "Without --metric the same scores need no network."
            ) from error

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Hand one picture's maps over; ids beyond the model's have to be refused before (`ConfusionMatrix` does)."""
        # The module stores maps as pictures, for which int64 is too wide.
        maps = [ids if ids.dtype == np.uint8 else ids.astype(np.int32) for ids in (prediction, label)]
        self._module.add_batch(predictions=maps[:1], references=maps[1:])

    def compute(self) -> dict[str, Any]:
        """The keys of `ConfusionMatrix.compute`, from the module's results."""
        scores = self._module.compute(num_labels=self.num_labels, ignore_index=self.ignore_index)
        return {
            "mean_iou": float(scores["mean_iou"]),
            "mean_accuracy": float(scores["mean_accuracy"]),
            "pixel_accuracy": float(scores["overall_accuracy"]),
            "frequency_weighted_iou": float("nan"),
            "per_class_iou": dict(zip(self.label_names, map(float, scores["per_category_iou"]), strict=True)),
        }
