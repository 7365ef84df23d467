"""Any segmentation dataset, found and read: a name -> its splits, a split's name -> rows, columns -> their names."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import datasets

from .errors import UNREACHABLE, FCNError, hub_reason

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "mask", "annotation", "semantic_segmentation", "segmentation_mask")


class DatasetError(FCNError):
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
    return find_image_column(features, image_column), _find_column(features, "label", label_column, LABEL_COLUMNS)


def find_image_column(features: Mapping[str, Any], named: str | None = None) -> str:
    """The image column alone, of a dataset that needs no labels; as `find_columns` finds it."""
    return _find_column(features, "image", named, IMAGE_COLUMNS)


def _find_column(features: Mapping[str, Any], kind: str, named: str | None, common: tuple[str, ...]) -> str:
    if named is not None:
        if named not in features:
            raise DatasetError(f"The dataset has no column {named!r}; its columns are {', '.join(features)}.")
        return named
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    found = [name for name in common if name in pictures]
    if not found:
        raise DatasetError(f"No {kind} column recognised among the image columns {pictures}; name it.")
    return found[0]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Make whatever goes wrong with a row a `DatasetError` that begins with `where`."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders pass on whatever they meet, from SyntaxError to zlib.error
        raise DatasetError(
            f"{where} can't be read ({type(error).__name__}: {error}); repair it, or take it out of the dataset."
        ) from error


def numbered_rows(
    rows: Iterable[Mapping[str, Any]], of: str = "", numbers: Iterable[int] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row behind what errors call it, such as "Row 3 of 'train'".

    Args:
        rows: of a dataset or a stream; they are decoded, and may fail, as they are reached.
        of: what follows the number, such as " of 'train'".
        numbers: of the rows; 0, 1, 2, ... if left out.

    Raises:
        `DatasetError`: naming the row that can't be decoded.
    """
    iterator = iter(rows)
    for number in itertools.count() if numbers is None else numbers:
        with reading(f"Row {number}{of}"):
            row = next(iterator, None)
        if row is None:
            return
        yield f"Row {number}{of}", row
