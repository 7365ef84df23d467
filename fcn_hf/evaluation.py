"""A dataset split and a model -> the four scores; and what it takes to read any segmentation dataset."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .hub_errors import UNREACHABLE, hub_reason
from .metrics import ConfusionMatrix

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "mask", "annotation", "semantic_segmentation", "segmentation_mask")


class DatasetError(ValueError):
    """A dataset can't be used as it was asked for; the message is one sentence for the person who asked."""


def load_splits(
    name: str, config_name: str | None = None, streaming: bool = False
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """All splits of a dataset.

    Args:
        name: Hub id or folder, as `datasets.load_dataset` takes it.
        config_name: the dataset's configuration, where it has several.
        streaming: read rows as they are asked for, without storing the dataset.

    Raises:
        `DatasetError`: if there is no such dataset, or it can't be read.
    """
    if os.path.exists(name) and not os.path.isdir(name):
        raise DatasetError(f"{name!r} is a file; pass the dataset's folder or its Hub id.")
    try:
        return datasets.load_dataset(name, config_name, streaming=streaming)
    except (datasets.exceptions.DatasetNotFoundError, OSError, ValueError, *UNREACHABLE) as error:
        raise DatasetError(f"The dataset {name!r} can't be loaded: {hub_reason(error)}") from error


def find_split(splits: Mapping[str, Any], split: str) -> Any:
    """One split by name, or several behind one another by their names with "+" between, such as "train+validation".

    Raises:
        `DatasetError`: naming the splits that exist.
    """
    names = split.split("+")
    unknown = [name for name in names if name not in splits]
    if unknown:
        raise DatasetError(f"The dataset has no split {unknown[0]!r}; it has {', '.join(splits)}.")
    if len(names) == 1:
        return splits[split]
    return datasets.concatenate_datasets([splits[name] for name in names])


def find_columns(
    features: Mapping[str, Any], image_column: str | None = None, label_column: str | None = None
) -> tuple[str, str]:
    """The image and the label column: those named, else the first common name among the columns of pictures.

    Raises:
        `DatasetError`: if a named column is absent, or none is recognised.
    """
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]

    def choose(kind: str, named: str | None, common: tuple[str, ...]) -> str:
        if named is not None:
            if named not in features:
                raise DatasetError(f"The dataset has no column {named!r}; its columns are {', '.join(features)}.")
            return named
        found = [name for name in common if name in pictures]
        if not found:
            raise DatasetError(f"No {kind} column recognised among the image columns {pictures}; name it.")
        return found[0]

    return choose("image", image_column, IMAGE_COLUMNS), choose("label", label_column, LABEL_COLUMNS)


@dataclass(frozen=True)
class InferenceMode:
    """How a picture is looked at. The default is once and whole.

    All sizes are in pixels of what the network sees: the picture's own, unless its image processor resizes.

    Args:
        window: (height, width) of a window that slides over the picture, for pictures that don't fit into memory or
            nets that know one size. Where windows overlap, their logits are averaged. A picture smaller than the window
            is one window.
        overlap: share of the window, 0 to below 1, by which two neighbours overlap at least.
        scales: factors by which the picture is resized (bilinear, antialiased) before the network sees it. The scores
            of each are resized back, and their probabilities averaged: logits of different scales differ in range.
        mirror: average with the probabilities of the picture mirrored left to right, at each scale.

    Raises:
        `ValueError`: if a value is out of range.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.window is not None and (len(self.window) != 2 or min(self.window) < 1):
            raise ValueError(f"window is {self.window}; expected (height, width), both positive.")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}; expected a share of the window from 0 to below 1.")
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise ValueError(f"scales are {self.scales}; expected one or more positive factors, such as 0.75, 1, 1.25.")


WHOLE_PICTURE = InferenceMode()


@contextmanager
def evaluation_mode(model) -> Iterator[None]:
    """Put a model in evaluation mode for a while; each of its modules has its own mode again afterwards."""
    # Module by module: parts of a model in training may be frozen in evaluation mode.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


# Not inference_mode: what a sharded model (FSDP) gathers in it can't be trained with afterwards.
@torch.no_grad()
def predict(model, processor, picture: Image.Image, mode: InferenceMode = WHOLE_PICTURE) -> np.ndarray:
    """The label map of one picture.

    Args:
        model: a semantic segmentation model, in evaluation mode, on the device that shall compute.
        processor: its image processor.
        picture: upright, of any size.
        mode: window, scales and mirroring.

    Returns:
        `np.ndarray` of int64 class ids, shape (height, width) as the picture's.
    """
    pixel_values = processor(picture, return_tensors="pt").to(model.device)["pixel_values"]
    outputs = _Scores(averaged_scores(model, pixel_values, mode))
    size = (picture.height, picture.width)
    (mask,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
    return mask.cpu().numpy()


def averaged_scores(model, pixel_values: torch.Tensor, mode: InferenceMode) -> torch.Tensor:
    """The scores of a batch, averaged over scales and mirrored pictures; one sum is kept, however many they are.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        pixel_values: floats, shape (B, channels, H, W), as an image processor makes them.
        mode: window, scales and mirroring.

    Returns:
        Probabilities, shape (B, num_labels, H, W). With the one scale 1 and no mirroring, what `windowed_logits` gives.
    """
    if mode.scales == (1.0,) and not mode.mirror:
        return windowed_logits(model, pixel_values, mode.window, mode.overlap)
    size = pixel_values.shape[-2:]
    views = [(scale, mirrored) for scale in mode.scales for mirrored in ((False, True) if mode.mirror else (False,))]
    total = torch.zeros((), device=pixel_values.device)
    for scale, mirrored in views:
        scaled = pixel_values
        if scale != 1:
            scaled_size = [max(1, round(edge * scale)) for edge in size]
            scaled = functional.interpolate(pixel_values, scaled_size, mode="bilinear", antialias=True)
        logits = windowed_logits(model, scaled.flip(-1) if mirrored else scaled, mode.window, mode.overlap)
        logits = _resized(logits.flip(-1) if mirrored else logits, size)
        total = total + logits.float().softmax(dim=1)
    return total / len(views)


def windowed_logits(
    model, pixel_values: torch.Tensor, window: tuple[int, int] | None = None, overlap: float = 0.5
) -> torch.Tensor:
    """The logits of a batch, from one window at a time.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        pixel_values: floats, shape (B, channels, H, W).
        window: (height, width); without it the whole picture at once.
        overlap: share of the window, 0 to below 1, by which two neighbours overlap at least.

    Returns:
        Logits, shape (B, num_labels, H, W); without a window in the model's own output size and dtype, else float32.
    """
    if window is None:
        return model(pixel_values=pixel_values).logits
    size = pixel_values.shape[-2:]
    height, width = (min(edge, whole) for edge, whole in zip(window, size, strict=True))
    total = torch.zeros(len(pixel_values), model.config.num_labels, *size, device=pixel_values.device)
    seen = torch.zeros(size, device=pixel_values.device)
    for top in _starts(size[0], height, overlap):
        for left in _starts(size[1], width, overlap):
            place = (..., slice(top, top + height), slice(left, left + width))
            total[place] += _resized(model(pixel_values=pixel_values[place]).logits, (height, width))
            seen[place] += 1
    return total / seen


def _starts(whole: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly spread, the first at the start and the last at the end."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(whole - window) // step) + 1
    return [index * (whole - window) // max(1, count - 1) for index in range(count)]


def _resized(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class _Scores:
    """What post-processing wants to have: a model output with `logits`."""

    logits: torch.Tensor


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
) -> dict[str, Any]:
    """The scores of a model on a split, each picture at its own size, from one confusion matrix.

    Args:
        rows: of a dataset, with PIL pictures.
        columns: names of the image and the label column.
        mode: window, scales and mirroring.
        metrics: what counts the pictures, each made with `*label_arguments(model.config)`; `ConfusionMatrix` alone if
            left out. Boundary F1 is `metrics=[ConfusionMatrix(*arguments), BoundaryF1(*arguments)]`.

    Returns:
        What the metrics' `compute` give, a later one over an earlier one. By default that is `mean_iou`,
        `mean_accuracy`, `pixel_accuracy`, `frequency_weighted_iou` and `per_class_iou`, all in 0..1.

    Raises:
        `DatasetError`: naming the row whose label map has another size or ids that the model doesn't know.
    """
    if metrics is None:
        metrics = [ConfusionMatrix(*label_arguments(model.config))]
    image_column, label_column = columns
    for index, row in enumerate(rows):
        try:
            prediction, label = predict(model, processor, row[image_column], mode), np.asarray(row[label_column])
            for metric in metrics:
                metric.update(prediction, label)
        except ValueError as error:
            raise DatasetError(f"Row {index}: {error}") from error
    return {name: value for metric in metrics for name, value in metric.compute().items()}


class PictureScores:
    """Scores of single pictures, to find the worst ones; two numbers are kept of each.

    Args:
        num_labels, ignore_index, label_names: as in `ConfusionMatrix`.
    """

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
            table.writerow(["row", "mean_iou", "pixel_accuracy"])
            for row, *scores in self.worst_first():
                table.writerow([row, *("" if np.isnan(score) else f"{score:.6f}" for score in scores)])


class MetricError(RuntimeError):
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
        self.num_labels, self.ignore_index, self.label_names = num_labels, ignore_index, label_names
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
