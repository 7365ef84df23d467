"""Rows -> augmented training examples, map-style or from a stream, and their batches."""

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import psutil
import torch
from datasets.distributed import split_dataset_by_node
from torchvision import tv_tensors

from fcn_hf.datasets import DatasetError, numbered_rows, reading
from fcn_hf.errors import in_one_line
from training.data import DataArguments, read_row
from training.labels import LabelIds
from training.scan import ScannedDataset
from training.streets import ID2LABEL, streets_dataset

# Newer versions of datasets shuffle several files at a time, and then sleep 5 seconds at the end of every pass.
SHUFFLE_PARAMETERS = inspect.signature(datasets.IterableDataset.shuffle).parameters
ONE_FILE_AT_A_TIME = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in SHUFFLE_PARAMETERS else {}


class Examples:
    """A picture and its class ids -> `pixel_values` (3, H, W) float32 and `labels` (H, W) int64, augmented.

    Args:
        image_processor: an `FCNImageProcessor`, which doesn't resize here: an augmentation gives pictures their size.
        augmentation: of a `tv_tensors.Image` and a `tv_tensors.Mask`.
    """

    def __init__(self, image_processor, augmentation):
        self.image_processor = image_processor
        self.augmentation = augmentation

    def __call__(self, picture: np.ndarray, ids: np.ndarray, where: str, seeds: Sequence[int]) -> dict[str, Any]:
        """One example; what is drawn for it follows from `seeds` alone. Errors begin with `where`."""
        image, mask = tv_tensors.Image(torch.from_numpy(picture)), tv_tensors.Mask(torch.from_numpy(np.array(ids)))
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash_seed(*seeds))
                image, mask = self.augmentation(image, mask)
            features = self.image_processor(
                image,
                segmentation_maps=mask,
                do_resize=False,
                input_data_format="channels_first",
                return_tensors="pt",
            )
        except (ValueError, RuntimeError) as error:  # torch's own, as where a size is beyond all memory
            raise DatasetError(f"{where}: {in_one_line(error)}") from error
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
    """Rows of a map-style dataset as augmented `pixel_values` and `labels`.

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
        augmentation,
        seed: int = 0,
        label_ids: LabelIds | None = None,
    ):
        self.rows: Any = DecodedRows(dataset, columns, label_ids or LabelIds())
        self.examples = Examples(image_processor, augmentation)
        self.seed = seed
        self.epoch = 0
        self.class_balanced_rows = 0.0
        self.rows_by_class: list[np.ndarray] = []

    def balance_classes(self, probability: float, ignore_index: int) -> None:
        """Draw rows, with this probability, from those that have an evenly drawn class; reads every mask once.

        Pictures of rare classes are seen more often that way without a weight in the loss, which costs precision.
        """
        rows: dict[int, list[int]] = {}
        for index in range(len(self.rows)):
            for label in np.unique(self.rows[index][1]).tolist():
                if label != ignore_index:
                    rows.setdefault(label, []).append(index)
        self.class_balanced_rows = probability
        self.rows_by_class = [np.array(indices) for _, indices in sorted(rows.items())]

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
        seeds = (self.seed, self.epoch, index)
        if self.rows_by_class:
            random = np.random.default_rng(seeds)
            if random.random() < self.class_balanced_rows:
                index = int(random.choice(self.rows_by_class[random.integers(len(self.rows_by_class))]))
        picture, ids = self.rows[index]
        return self.examples(picture, ids, f"Row {index}", seeds)


class SegmentationStream(torch.utils.data.IterableDataset):
    """A stream's rows as augmented `pixel_values` and `labels`, endlessly.

    An endless stream is one epoch to Trainer, which skips what a checkpoint has seen by reading it again: with the same
    numbers of processes and workers, a resumed run goes on as if it had not been interrupted. Each pass over the data
    is shuffled anew within a buffer; what is drawn for an example follows from `(seed, pass, process, worker,
    position)`. Processes share out the dataset's files among them if their number divides that of the files, and else
    each keeps one row of as many as there are processes; the workers of a process share out its files.

    Args:
        dataset: a `datasets.IterableDataset` with a picture and a mask.
        columns, image_processor, augmentation, seed, label_ids: as for `SegmentationDataset`.
        shuffle_buffer_size: rows from which the next one is drawn.
        part: number of this process, from 0, and how many there are.
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        columns: tuple[str, str],
        image_processor,
        augmentation,
        seed: int = 0,
        label_ids: LabelIds | None = None,
        shuffle_buffer_size: int = 500,
        part: tuple[int, int] = (0, 1),
    ):
        self.process, count = part
        self.dataset = dataset if count == 1 else split_dataset_by_node(dataset, self.process, count)
        self.columns = columns
        self.examples = Examples(image_processor, augmentation)
        self.seed = seed
        self.label_ids = label_ids or LabelIds()
        self.shuffle_buffer_size = shuffle_buffer_size

    def __iter__(self) -> Iterator[Mapping[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        worker_id = 0 if worker is None else worker.id
        for number in itertools.count():
            # Not `set_epoch`: its number is shared by all workers, which are not always in the same pass.
            rows = self.dataset.shuffle(
                seed=hash_seed(self.seed, number), buffer_size=self.shuffle_buffer_size, **ONE_FILE_AT_A_TIME
            )
            position = -1
            of = f" of pass {number} over the shuffled stream"
            for position, (where, row) in enumerate(numbered_rows(rows, of)):
                picture, ids = read_row(row, self.columns, self.label_ids, where)
                seeds = (self.seed, number, self.process, worker_id, position)
                yield self.examples(picture, ids, where, seeds)
            if position < 0:
                # This worker has no file of its own; without a row there is nothing to repeat.
                return


def training_examples(
    arguments: DataArguments,
    dataset: ScannedDataset,
    image_processor,
    augmentation,
    seed: int,
    part: tuple[int, int] = (0, 1),
) -> SegmentationDataset | SegmentationStream:
    """What Trainer trains on; `part` is the number of this process and how many there are."""
    columns, label_ids = dataset.scored.columns, dataset.scored.label_ids
    if arguments.streaming:
        size = arguments.shuffle_buffer_size
        return SegmentationStream(dataset.rows, columns, image_processor, augmentation, seed, label_ids, size, part)
    rows = dataset.rows
    if arguments.streets_scenes:
        rows = with_streets(rows, columns, dataset.id2label, arguments.streets_scenes, seed)
    examples = SegmentationDataset(rows, columns, image_processor, augmentation, seed, label_ids)
    if arguments.cache_decoded:
        print(f"{len(examples)} decoded pictures and masks fill {examples.keep_decoded() / 1e6:,.0f} MB.")
    if arguments.class_balanced_rows:
        examples.balance_classes(arguments.class_balanced_rows, label_ids.ignore_index)
    return examples


def with_streets(
    rows: datasets.Dataset, columns: tuple[str, str], id2label: Mapping[int, str], count: int, seed: int
) -> datasets.Dataset:
    """The rows with `count` drawn street scenes behind them.

    Raises:
        `DatasetError`: if the rows have other classes than the scenes.
    """
    if id2label != ID2LABEL:
        raise DatasetError(f"streets_scenes needs the classes {list(ID2LABEL.values())}; this dataset has other ones.")
    image, label = columns
    scenes = streets_dataset(count, seed=seed).select_columns(["image", "label"])
    scenes = scenes.rename_columns({"image": image, "label": label})
    rows = rows.select_columns([image, label])
    return datasets.concatenate_datasets([rows, scenes.cast(rows.features)])


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
