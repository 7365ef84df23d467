"""What it is trained on: arguments, rows read and checked one by one, class weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import datasets
import numpy as np
import torch
import yaml
from datasets.distributed import split_dataset_by_node

from fcn_hf.datasets import DatasetError, check_filled, numbered_rows, reading
from fcn_hf.image_inputs_fcn import read_picture
from training.labels import LabelIds, read_names
from training.limits import check_values

# Names of arguments that are lists or mappings: they travel as text, and are written as such on the command line.
STRUCTURED = ("id2label", "palette", "label_map", "backbone_config")


class _Loader(yaml.SafeLoader):
    """yaml's, which takes the last of several values of one key without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = [key for index, key in enumerate(keys) if isinstance(key, str) and key in keys[:index]]
        if twice:
            raise DatasetError(f"{twice[0]} is given twice; leave one of the two out.")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a YAML text says; whatever its constructors raise, or a `DatasetError` if a mapping has a key twice."""
    return yaml.load(text, _Loader)


def parse_structured(arguments: Any) -> None:
    """Make lists and mappings of those `STRUCTURED` arguments of a group that are text.

    Raises:
        `DatasetError`: naming the argument, if its text is no YAML.
    """
    for name in STRUCTURED:
        text = getattr(arguments, name, None)
        if isinstance(text, str):
            try:
                setattr(arguments, name, read_yaml(text))
            except DatasetError as error:
                raise DatasetError(f"{name}: {error}") from error
            except Exception as error:  # yaml's constructors raise more than YAMLError, as for a 13th month
                raise DatasetError(f"{name} is {text!r}, but must be a list or a mapping in YAML or JSON.") from error


@dataclass
class DataArguments:
    """What it is trained on."""

    dataset_name: str = field(metadata={"help": "Hub id or folder of an image segmentation dataset."})
    dataset_config_name: str | None = None
    image_column_name: str | None = None
    label_column_name: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    id2label: dict | str | None = field(
        default=None, metadata={"help": "Class names: a list in the order of the ids, or a mapping of ids to names."}
    )
    palette: dict | str | None = field(
        default=None,
        metadata={
            "help": "For masks of colours: a list of [red, green, blue] in the order of the ids, or a mapping of "
            '"128, 64, 128" or "#804080" to ids, where "other" is for all colours that it doesn\'t name.'
        },
    )
    label_map: dict | str | None = field(
        default=None,
        metadata={"help": 'Mapping of ids in masks to class ids, where "other" is for all ids that it does not name.'},
    )
    reduce_labels: bool = field(
        default=False, metadata={"help": "0 in a mask is no class and is ignored; the others are one less."}
    )
    scan_rows: int = field(
        default=500, metadata={"help": "Rows of each split that are read and checked before training; 0 for all."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read the dataset while training, without storing it; needs max_steps."}
    )
    shuffle_buffer_size: int = field(
        default=500, metadata={"help": "Streaming: rows, not decoded, that each worker holds to draw the next from."}
    )
    class_balanced_rows: float = field(
        default=0.0,
        metadata={
            "help": "Probability that a picture is drawn from those with an evenly drawn class, not in its turn; 0..1."
        },
    )
    cache_decoded: bool = field(
        default=False, metadata={"help": "Decode the training split once and keep it in memory, shared by all workers."}
    )
    streets_scenes: int = field(
        default=0, metadata={"help": "Procedural street scenes (training/streets) added to the training split."}
    )

    def __post_init__(self):
        parse_structured(self)
        check_values(self)

    def label_ids(self, ignore_index: int) -> LabelIds:
        """What every mask goes through."""
        palette, label_map = cast(Any, self.palette), cast(Any, self.label_map)  # parsed by now
        return LabelIds(palette, label_map, self.reduce_labels, ignore_index)

    def check(self, max_steps: int, ignore_index: int = 255) -> None:
        """Raise `DatasetError` where arguments contradict each other, or say nothing of masks and classes."""
        label_ids = self.label_ids(ignore_index)
        if self.id2label is not None:
            read_names(self.id2label, "the recipe", ignore_index)
        if self.streaming and max_steps <= 0:
            raise DatasetError("streaming: the length of a stream isn't known, so max_steps must say when to end.")
        if self.streaming and self.class_balanced_rows:
            raise DatasetError("class_balanced_rows draws from the whole split, which streaming never has; set one.")
        if self.streaming and self.cache_decoded:
            raise DatasetError("cache_decoded keeps a split in memory and streaming avoids that; set one of the two.")
        if self.streets_scenes and (self.streaming or not label_ids.keeps_ids):
            raise DatasetError(
                "streets_scenes are added to a split whose masks hold class ids; leave out streaming, palette, "
                "label_map and reduce_labels, or the scenes."
            )


def median_frequency_weights(counts: np.ndarray, power: float = 1.0, maximum: float | None = None) -> torch.Tensor:
    """Class weights `(median frequency / frequency) ** power`, at most `maximum`; float32 of shape `(num_labels,)`.

    Median-frequency balancing is that of Eigen and Fergus (arXiv:1411.4734, section 4.3.2), with a class's frequency
    taken over all rows that were scanned; a power of 0.5 takes its root. A class without a pixel gets weight 1.
    """
    frequencies = counts / counts.sum()
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = (np.median(frequencies[present]) / frequencies[present]) ** power
    return torch.from_numpy(np.minimum(weights, maximum) if maximum else weights).float()


def read_row(
    row: Mapping[str, Any], columns: tuple[str, str], label_ids: LabelIds, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 of shape (3, H, W), and the class ids, uint8 or int32 of shape (H, W), of one row.

    Raises:
        `DatasetError`: beginning with `where`, if one is missing or can't be read, or their sizes differ.
    """
    image_column, label_column = columns
    check_filled(row, columns, where)
    with reading(where):
        ids = label_ids(row[label_column], where)
        picture = read_picture(row[image_column], "its picture", True, None, 3)
    if picture.dtype != np.uint8:
        raise DatasetError(f"{where}: the picture has dtype {picture.dtype}; store pictures with values 0..255, uint8.")
    if picture.shape[1:] != ids.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (picture.shape[1:], ids.shape)]
        raise DatasetError(
            f"{where}: the picture is {sizes[0]} and its mask {sizes[1]} (width x height); they must agree."
        )
    return picture if len(picture) == 3 else picture[[0, 0, 0]], ids


class ScoredRows:
    """Rows of a split with their picture as it is and class ids in place of the mask, as `evaluate_split` wants them.

    Args:
        dataset: map-style or a stream.
        columns: names of the image and the label column.
        label_ids: what masks go through.
        name: what errors call the split.
    """

    def __init__(self, dataset, columns: tuple[str, str], label_ids: LabelIds, name: str):
        self.dataset = dataset
        self.columns = columns
        self.label_ids = label_ids
        self.name = name

    def __iter__(self) -> Iterator[dict[str, Any]]:
        image_column, label_column = self.columns
        for where, row in numbered_rows(self.dataset, f" of {self.name!r}"):
            yield {image_column: row[image_column], label_column: self.label_ids(row[label_column], where)}

    def part(self, index: int, count: int) -> "ScoredRows":
        """The rows for one of `count` processes; no row is in two parts, none is left out."""
        if count == 1:
            return self
        rows = split_dataset_by_node(self.dataset, index, count)
        return ScoredRows(rows, self.columns, self.label_ids, f"{self.name}, part {index + 1} of {count}")


def length(rows) -> int | None:
    """Number of rows of a split; None of a stream."""
    return None if isinstance(rows, datasets.IterableDataset) else len(rows)
