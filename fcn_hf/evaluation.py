"""A dataset split and a model -> the four scores; and what it takes to read any segmentation dataset."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from .metrics import ConfusionMatrix

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "mask", "annotation", "semantic_segmentation", "segmentation_mask")


class DatasetError(ValueError):
    """A dataset can't be used as it was asked for; the message is one sentence for the person who asked."""


def load_splits(name: str, config_name: str | None = None) -> datasets.DatasetDict:
    """All splits of a dataset.

    Args:
        name: Hub id or folder, as `datasets.load_dataset` takes it.
        config_name: the dataset's configuration, where it has several.

    Raises:
        `DatasetError`: if there is no such dataset, or it can't be read.
    """
    if os.path.exists(name) and not os.path.isdir(name):
        raise DatasetError(f"{name!r} is a file; pass the dataset's folder or its Hub id.")
    try:
        return datasets.load_dataset(name, config_name)
    except (datasets.exceptions.DatasetNotFoundError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"The dataset {name!r} can't be loaded: {reason}") from error


def find_split(splits: Mapping[str, datasets.Dataset], split: str) -> datasets.Dataset:
    """One split by name.

    Raises:
        `DatasetError`: naming the splits that exist.
    """
    if split not in splits:
        raise DatasetError(f"The dataset has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


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


@torch.inference_mode()
def predict(model, processor, picture: Image.Image) -> np.ndarray:
    """The label map of one picture.

    Args:
        model: a semantic segmentation model, in evaluation mode, on the device that shall compute.
        processor: its image processor.
        picture: upright, of any size.

    Returns:
        `np.ndarray` of int64 class ids, shape (height, width) as the picture's.
    """
    inputs = processor(picture, return_tensors="pt").to(model.device)
    size = (picture.height, picture.width)
    (mask,) = processor.post_process_semantic_segmentation(model(**inputs), target_sizes=[size])
    return mask.cpu().numpy()


def evaluate_split(model, processor, rows: Iterable[Mapping[str, Any]], columns: tuple[str, str]) -> dict[str, Any]:
    """The scores of a model on a split, each picture at its own size, from one confusion matrix.

    Args:
        rows: of a dataset, with PIL pictures.
        columns: names of the image and the label column.

    Returns:
        What `ConfusionMatrix.compute` gives: `mean_iou`, `mean_accuracy`, `pixel_accuracy`, `frequency_weighted_iou`
        and `per_class_iou`, all in 0..1.

    Raises:
        `DatasetError`: naming the row whose label map has another size or ids that the model doesn't know.
    """
    config = model.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    matrix = ConfusionMatrix(config.num_labels, getattr(config, "semantic_loss_ignore_index", 255), names)
    image_column, label_column = columns
    for index, row in enumerate(rows):
        try:
            matrix.update(predict(model, processor, row[image_column]), np.asarray(row[label_column]))
        except ValueError as error:
            raise DatasetError(f"Row {index}: {error}") from error
    return matrix.compute()
