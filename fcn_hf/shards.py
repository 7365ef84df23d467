"""Splits of any length -> label maps in parquet files, each of a range of rows, so that work stops and goes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
from PIL import Image

from .datasets import DatasetError, files_digest, find_image_column, find_split, load_splits, reading
from .errors import FCNError, in_one_line
from .files import ASIDE, check_folder, write_aside
from .image_inputs_fcn import open_picture
from .kept_parts import keep_parts, made_of, model_fingerprint
from .palettes import check_ids_fit, class_colours, label_picture
from .prediction import WHOLE_PICTURE, InferenceMode, load_on_device, predict_batch

FEATURES = datasets.Features({"row": datasets.Value("int64"), "label": datasets.Image()})
SHARDS = "rows-*.parquet"

BATCH_SIZE = 8
"""Pictures of one size that accelerators get together; CPUs gain nothing by it."""


@dataclass(frozen=True)
class SegmentationJob:
    """A split to be segmented, in values that go to other processes and machines.

    Args:
        dataset: folder or Hub id; folders are absolute.
        split: its name, or several with "+" between.
        model: folder or Hub id, likewise.
        out: folder for the shards, the same one for all processes.
        shard_rows: rows of one parquet file.
        image_column: of the pictures; the first common name if left out.
        device: cpu, cuda, ...; the accelerator, if there is one.
        dtype: what the model computes in, such as "bfloat16"; that of its weights if left out.
        mode: window, scales and mirroring.
    """

    dataset: str
    split: str
    model: str
    out: Path
    shard_rows: int = 512
    image_column: str | None = None
    device: str | None = None
    dtype: str | None = None
    mode: InferenceMode = WHOLE_PICTURE

    def shard(self, rows: range) -> Path:
        """The file of a range of rows. It is there when it is complete."""
        return self.out / f"rows-{rows.start:09d}-{rows.stop:09d}.parquet"


class ShardWriter:
    """Model and split, loaded once, and one shard written after another.

    Raises:
        `FCNError`: if the dataset or the model can't be used, or has more classes than a PNG of ids.
    """

    def __init__(self, job: SegmentationJob):
        self.job = job
        split = find_split(load_splits(job.dataset), job.split)
        self.image_column = find_image_column(split.features, job.image_column)
        self.rows = split.select_columns([self.image_column])
        self.model, self.processor = load_on_device(job.model, job.device, job.dtype)
        check_ids_fit(self.model.config, job.model)
        self.colours = class_colours(self.model.config)
        self.batch_size = 1 if self.model.device.type == "cpu" else BATCH_SIZE

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the shards are made of, as `keep_parts` wants it."""
        return {
            "rows": self.rows._fingerprint,
            "files": files_digest(self.rows, self.image_column),
            "model": model_fingerprint(self.model, self.processor),
            "shard_rows": self.job.shard_rows,
            "mode": repr(self.job.mode),
        }

    def shards(self) -> list[range]:
        """The rows of each shard."""
        count, size = len(self.rows), self.job.shard_rows
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def write(self, rows: range) -> list[str]:
        """Write the shard of these rows, unless it is there already; it appears when it is complete.

        Returns:
            What is wrong with the rows that have no label map, a sentence each; their `label` is null.
        """
        target = self.job.shard(rows)
        if target.exists():
            return []
        labels: dict[int, Any] = dict.fromkeys(rows)
        errors: list[str] = []
        for numbers, pictures in self._batches(rows, errors):
            for number, ids in self._label_maps(numbers, pictures, errors):
                png = BytesIO()
                label_picture(ids, self.colours).save(png, "png")
                labels[number] = {"bytes": png.getvalue(), "path": None}
        columns = {"row": list(labels), "label": list(labels.values())}
        table = datasets.Dataset.from_dict(columns, features=FEATURES).data.table
        # Dataset.to_parquet would show a progress bar for each shard.
        write_aside(target, lambda path: pyarrow.parquet.write_table(table, path))
        return errors

    def _batches(self, rows: range, errors: list[str]) -> Iterator[tuple[list[int], list[Image.Image]]]:
        """Numbers and pictures of rows that have one size, as soon as there are enough of them."""
        waiting: dict[tuple[int, int], tuple[list[int], list[Image.Image]]] = {}
        for number in rows:
            try:
                with reading(f"Row {number}"):
                    picture = open_picture(self.rows[number][self.image_column])
            except DatasetError as error:
                errors.append(in_one_line(error))
                continue
            numbers, pictures = waiting.setdefault(picture.size, ([], []))
            numbers.append(number)
            pictures.append(picture)
            # The second bound is for rows that all differ in size.
            if len(numbers) == self.batch_size or sum(len(some) for some, _ in waiting.values()) > 4 * self.batch_size:
                largest = max(waiting, key=lambda size: len(waiting[size][0]))
                yield waiting.pop(largest)
        yield from waiting.values()

    def _label_maps(
        self, numbers: list[int], pictures: list[Image.Image], errors: list[str]
    ) -> Iterator[tuple[int, np.ndarray]]:
        try:
            maps = predict_batch(self.model, self.processor, pictures, self.job.mode)
        except Exception as error:  # a model or processor of another kind passes on whatever it meets
            if len(numbers) == 1:
                errors.append(f"Row {numbers[0]}: {in_one_line(error)}")
                return
            # One picture costs no other its label map.
            for number, picture in zip(numbers, pictures, strict=True):
                yield from self._label_maps([number], [picture], errors)
            return
        yield from zip(numbers, maps, strict=True)


def begin(job: SegmentationJob) -> tuple[ShardWriter, list[range]]:
    """Begin a job, or go on with one that was stopped.

    Returns:
        Its writer, and the shards that aren't there yet.

    Raises:
        `FCNError`: if the dataset, the model or the folder can't be used, or the folder holds what is not of this job.
    """
    check_folder(job.out)
    writer = ShardWriter(job)
    known = made_of(job.out)
    if known is None and any(not path.name.startswith(ASIDE) for path in job.out.glob("*")):
        raise FCNError(f"{job.out} has files in it that are no masks of a dataset; choose another folder for --out.")
    if known is None:
        keep_parts(job.out, writer.facts)
    elif known != writer.facts:
        differ = ", ".join(name for name in writer.facts if known.get(name) != writer.facts[name])
        raise FCNError(
            f"{job.out} holds masks that were made of something else (other {differ}); choose another folder for "
            "--out, or empty it."
        )
    return writer, [rows for rows in writer.shards() if not job.shard(rows).exists()]


def count_missing(out: Path) -> int:
    """How many rows of all shards in a folder have no label map."""
    missing = 0
    for path in out.glob(SHARDS):
        metadata = pyarrow.parquet.read_metadata(path)
        paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
        leaf = paths.index("label.bytes")
        for group in range(metadata.num_row_groups):
            missing += metadata.row_group(group).column(leaf).statistics.null_count
    return missing
