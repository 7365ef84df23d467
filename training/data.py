"""Rows of a dataset -> augmented training examples: reading, class weights, examples, batches."""

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import psutil
import torch
import yaml
from torchvision import tv_tensors

from fcn_hf.evaluation import DatasetError
from fcn_hf.image_inputs_fcn import read_picture
from training.labels import LabelIds

# Names of arguments that are lists or mappings: they travel as text, and are written as such on the command line.
STRUCTURED = ("id2label", "palette", "label_map")
# Newer versions of datasets shuffle several files at a time, and then sleep 5 seconds at the end of every pass.
SHUFFLE_PARAMETERS = inspect.signature(datasets.IterableDataset.shuffle).parameters
ONE_FILE_AT_A_TIME = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in SHUFFLE_PARAMETERS else {}


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
    cache_decoded: bool = field(
        default=False, metadata={"help": "Decode the training split once and keep it in memory, shared by all workers."}
    )
    streets_scenes: int = field(
        default=0, metadata={"help": "Procedural street scenes (training/streets.py) added to the training split."}
    )

    def __post_init__(self):
        for name in STRUCTURED:
            text = getattr(self, name)
            if isinstance(text, str):
                try:
                    setattr(self, name, yaml.safe_load(text))
                except yaml.YAMLError as error:
                    raise DatasetError(
                        f"{name} is {text!r}, but must be a list or a mapping in YAML or JSON."
                    ) from error

    def label_ids(self, ignore_index: int) -> LabelIds:
        """What every mask goes through."""
        return LabelIds(self.palette, self.label_map, self.reduce_labels, ignore_index)

    def check(self, max_steps: int) -> None:
        """Raise `DatasetError` where arguments contradict each other."""
        if self.streaming and max_steps <= 0:
            raise DatasetError("streaming: the length of a stream isn't known, so max_steps must say when to end.")
        if self.streaming and self.cache_decoded:
            raise DatasetError("cache_decoded keeps a split in memory and streaming avoids that; set one of the two.")
        if self.streets_scenes and (self.streaming or not self.label_ids(255).keeps_ids):
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


def read_row(
    row: Mapping[str, Any], columns: tuple[str, str], label_ids: LabelIds, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 of shape (3, H, W), and the class ids, uint8 or int32 of shape (H, W), of one row.

    Raises:
        `DatasetError`: beginning with `where`, if one is missing or can't be read, or their sizes differ.
    """
    image_column, label_column = columns
    for column in columns:
        if row[column] is None:
            raise DatasetError(f"{where} has nothing in the column {column!r}; fill it, or take the row out.")
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


def with_label_ids(
    rows: Iterable[Mapping[str, Any]], columns: tuple[str, str], label_ids: LabelIds
) -> Iterator[dict[str, Any]]:
    """Rows with their picture as it is and class ids in place of the mask, for `fcn_hf.evaluation.evaluate_split`."""
    image_column, label_column = columns
    for where, row in numbered_rows(rows):
        yield {image_column: row[image_column], label_column: label_ids(row[label_column], where)}


class Examples:
    """A picture and its class ids -> `pixel_values` (3, H, W) float32 and `labels` (H, W) int64, augmented or not.

    Args:
        image_processor: an `FCNImageProcessor`.
        augmentation: of a `tv_tensors.Image` and a `tv_tensors.Mask`; none for evaluation.
    """

    def __init__(self, image_processor, augmentation=None):
        self.image_processor = image_processor
        self.augmentation = augmentation

    def __call__(self, picture: np.ndarray, ids: np.ndarray, where: str, seeds: Sequence[int]) -> dict[str, Any]:
        """One example; what is drawn for it follows from `seeds` alone. Errors begin with `where`."""
        image: Any = torch.from_numpy(picture)
        mask: Any = torch.from_numpy(np.array(ids))
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash_seed(*seeds))
                image, mask = self.augmentation(tv_tensors.Image(image), tv_tensors.Mask(mask))
        # An augmentation has already given the picture its size.
        resize = self.image_processor.do_resize and self.augmentation is None
        try:
            features = self.image_processor(
                image,
                segmentation_maps=mask,
                do_resize=resize,
                input_data_format="channels_first",
                return_tensors="pt",
            )
        except ValueError as error:
            raise DatasetError(f"{where}: {error}") from error
        return {"pixel_values": features["pixel_values"][0], "labels": features["labels"][0]}


class DecodedRows:
    """Rows of a map-style dataset as pairs of picture and class ids, decoded as they are asked for; see `read_row`."""

    def __init__(self, dataset, columns: tuple[str, str], label_ids: LabelIds):
        self.dataset = dataset
        self.columns = columns
        self.label_ids = label_ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        where = f"Row {index}"
        with reading(where):
            row = self.dataset[index]
        return read_row(row, self.columns, self.label_ids, where)


class SegmentationDataset(torch.utils.data.Dataset):
    """Rows of a map-style dataset as `pixel_values` and `labels`, augmented where an augmentation is given.

    What is drawn for an example follows from `(seed, epoch, index)` alone: neither the number of workers nor a restart
    changes it.

    Args:
        dataset: rows with a picture and a mask.
        columns: names of the two.
        image_processor, augmentation: see `Examples`.
        seed: of the augmentation.
        label_ids: what masks go through.
    """

    def __init__(
        self,
        dataset,
        columns: tuple[str, str],
        image_processor,
        augmentation=None,
        seed: int = 0,
        label_ids: LabelIds | None = None,
    ):
        self.rows: Any = DecodedRows(dataset, columns, label_ids or LabelIds())
        self.examples = Examples(image_processor, augmentation)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on."""
        self.epoch = epoch

    def keep_decoded(self) -> int:
        """Decode every row now and keep it; returns the bytes that this takes.

        Workers that are forked, as they are on Linux, read the same memory; where they are spawned, each has a copy.

        Raises:
            `DatasetError`: before half of the memory that is free is used up, so that the machine never starts to swap.
        """
        limit = psutil.virtual_memory().available // 2
        decoded, used = [], 0
        for index in range(len(self.rows)):
            decoded.append(self.rows[index])
            used += sum(array.nbytes for array in decoded[-1])
            if used > limit:
                raise DatasetError(
                    f"cache_decoded: the first {index + 1} of {len(self.rows)} pictures fill {used / 1e9:.1f} GB, half "
                    "of the free memory; leave it out, and raise dataloader_num_workers instead."
                )
        self.rows = decoded
        return used

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, torch.Tensor]:
        picture, ids = self.rows[index]
        return self.examples(picture, ids, f"Row {index}", (self.seed, self.epoch, index))


class SegmentationStream(torch.utils.data.IterableDataset):
    """A stream's rows as `pixel_values` and `labels`: endlessly where an augmentation is given, else once.

    An endless stream is one epoch to Trainer, which skips what a checkpoint has seen by reading it again: with the same
    number of workers, a resumed run goes on as if it had not been interrupted. Each pass over the data is shuffled
    anew within a buffer; what is drawn for an example follows from `(seed, pass, worker, position)`. The workers of a
    process share out the dataset's files among them; several processes are fed by the first one.

    Args:
        dataset: a `datasets.IterableDataset` with a picture and a mask.
        columns, image_processor, augmentation, seed, label_ids: as for `SegmentationDataset`.
        shuffle_buffer_size: rows from which the next one is drawn.
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        columns: tuple[str, str],
        image_processor,
        augmentation=None,
        seed: int = 0,
        label_ids: LabelIds | None = None,
        shuffle_buffer_size: int = 500,
    ):
        self.dataset = dataset
        self.columns = columns
        self.examples = Examples(image_processor, augmentation)
        self.seed = seed
        self.label_ids = label_ids or LabelIds()
        self.shuffle_buffer_size = shuffle_buffer_size

    def __iter__(self) -> Iterator[Mapping[str, torch.Tensor]]:
        if self.examples.augmentation is None:
            yield from self._examples(self.dataset, 0, "")
            return
        for number in itertools.count():
            # Not `set_epoch`: its number is shared by all workers, which are not always in the same pass.
            rows = self.dataset.shuffle(
                seed=hash_seed(self.seed, number), buffer_size=self.shuffle_buffer_size, **ONE_FILE_AT_A_TIME
            )
            example = None
            for example in self._examples(rows, number, f" of pass {number} over the shuffled stream"):
                yield example
            if example is None:
                # This worker has no file of its own; without a row there is nothing to repeat.
                return

    def _examples(self, rows, number: int, of: str) -> Iterator[Mapping[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        worker_id = 0 if worker is None else worker.id
        for position, (where, row) in enumerate(numbered_rows(rows, of)):
            picture, ids = read_row(row, self.columns, self.label_ids, where)
            yield self.examples(picture, ids, where, (self.seed, number, worker_id, position))


def torch_datasets(
    arguments: DataArguments,
    train,
    evaluation,
    columns: tuple[str, str],
    image_processor,
    augmentation,
    seed: int,
    label_ids: LabelIds,
) -> tuple[SegmentationDataset | SegmentationStream, SegmentationDataset | SegmentationStream]:
    """What Trainer trains on and what it evaluates on, of two splits."""
    if arguments.streaming:
        size = arguments.shuffle_buffer_size
        return (
            SegmentationStream(train, columns, image_processor, augmentation, seed, label_ids, size),
            SegmentationStream(evaluation, columns, image_processor, label_ids=label_ids),
        )
    train_dataset = SegmentationDataset(train, columns, image_processor, augmentation, seed, label_ids)
    if arguments.cache_decoded:
        print(f"{len(train_dataset)} decoded pictures and masks fill {train_dataset.keep_decoded() / 1e6:,.0f} MB.")
    return train_dataset, SegmentationDataset(evaluation, columns, image_processor, label_ids=label_ids)


def length(rows) -> int | None:
    """Number of rows of a split; None of a stream."""
    return None if isinstance(rows, datasets.IterableDataset) else len(rows)


def hash_seed(*numbers: int) -> int:
    """One 64-bit seed from several numbers, without the collisions of sums."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Collator:
    """Stack examples of any sizes: pictures padded right and bottom with 0, labels with the ignored id.

    Returns `pixel_values` (B, C, H, W) float32 in channels-last memory, which CPU convolutions prefer, and `labels`
    (B, H, W) int64.
    """

    def __init__(self, ignore_index: int = 255):
        self.ignore_index = ignore_index

    def __call__(self, examples: list[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        height = max(example["labels"].shape[0] for example in examples)
        width = max(example["labels"].shape[1] for example in examples)

        def pad(tensor: torch.Tensor, value: float) -> torch.Tensor:
            missing = (0, width - tensor.shape[-1], 0, height - tensor.shape[-2])
            return torch.nn.functional.pad(tensor, missing, value=value)

        pixel_values = torch.stack([pad(example["pixel_values"], 0.0) for example in examples])
        labels = torch.stack([pad(example["labels"], self.ignore_index) for example in examples])
        return {"pixel_values": pixel_values.contiguous(memory_format=torch.channels_last), "labels": labels}
