"""What a dataset holds, before anything is trained on it: read, checked, said."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fcn_hf.datasets import DatasetError, find_columns, find_split, load_splits, numbered_rows
from fcn_hf.text import printable
from training.data import DataArguments, ScoredRows, length, read_row
from training.labels import LARGEST_GUESS, LabelIds, find_id2label


@dataclass
class Scan:
    """
    What was found in a split.

    Attributes:
        rows: how many were read.
        total: how many there are; None in a stream.
        pixels: of each class id that was seen.
        ignored: number of ignored pixels.
        sizes: (width, height) of each picture.
    """

    rows: int = 0
    total: int | None = None
    pixels: Counter[int] = field(default_factory=Counter)
    ignored: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def counts(self, num_labels: int) -> np.ndarray:
        """Pixels of each class: int64 of shape `(num_labels,)`."""
        return np.array([self.pixels[index] for index in range(num_labels)], dtype=np.int64)

    @property
    def extent(self) -> str:
        """The range of the sizes, such as "320x240" or "320x240 to 640x480" (width x height)."""
        edges = list(zip(*self.sizes, strict=True))
        smallest, largest = ("x".join(str(pick(edge)) for edge in edges) for pick in (min, max))
        return smallest if smallest == largest else f"{smallest} to {largest}"


def scan_split(
    rows: datasets.Dataset | datasets.IterableDataset,
    name: str,
    columns: tuple[str, str],
    label_ids: LabelIds,
    num_labels: int | None = None,
    limit: int = 0,
    quiet: bool = True,
) -> Scan:
    """Read and check rows of a split: evenly spread ones, or the first ones of a stream.

    Args:
        rows: the split.
        name: what errors call it.
        columns: names of the image and the label column.
        label_ids: what masks go through.
        num_labels: number of classes; None where their names aren't known, so that any id below 256 is one.
        limit: rows to read; 0 for all.
        quiet: no progress bar.

    Raises:
        `DatasetError`: if there are no rows or no labelled pixels; or naming the row whose picture or mask can't be
            read, which differ in size, or that has ids outside 0..num_labels-1 that aren't ignored.
    """
    scan = Scan(total=length(rows))
    numbers = None
    if scan.total is None:
        rows = rows.take(limit) if limit else rows
    elif 0 < limit < scan.total:
        numbers = np.linspace(0, scan.total - 1, limit).astype(int).tolist()
        rows = rows.select(numbers)
    rows = tqdm(rows, f"Scanning {name}", leave=False, disable=quiet or None)
    largest = (LARGEST_GUESS if num_labels is None else num_labels) - 1
    for where, row in numbered_rows(rows, f" of {name!r}", numbers):
        picture, mask = read_row(row, columns, label_ids, where)
        ids, pixels = np.unique(mask, return_counts=True)
        found = dict(zip(ids.tolist(), pixels.tolist(), strict=True))
        scan.ignored += found.pop(label_ids.ignore_index, 0)
        wrong = [index for index in found if not 0 <= index <= largest]
        if wrong:
            some = f"{wrong[:5]} and {len(wrong) - 5} more" if len(wrong) > 5 else wrong
            raise DatasetError(
                f"{where}: label ids {some} are outside 0..{largest} and not the ignored {label_ids.ignore_index}; "
                "name all classes in id2label, change ids with label_map, or set semantic_loss_ignore_index."
            )
        scan.pixels.update(found)
        scan.sizes.add((picture.shape[2], picture.shape[1]))
        scan.rows += 1
    if not scan.rows:
        raise DatasetError(f"The split {name!r} has no rows; there is nothing to read.")
    if not scan.pixels:
        raise DatasetError(
            f"Rows 0 to {numbers[-1] if numbers else scan.rows - 1} of {name!r}: every pixel that was read is ignored "
            f"({label_ids.ignore_index}); give such ids a class with label_map, or set semantic_loss_ignore_index."
        )
    return scan


def scan_dataset(
    arguments: DataArguments,
    splits: Mapping[str, datasets.Dataset | datasets.IterableDataset],
    columns: tuple[str, str],
    label_ids: LabelIds,
    quiet: bool = False,
) -> tuple[dict[int, str], np.ndarray]:
    """Read and check a sample of the splits, the first of which is trained on, and print what was found.

    Returns:
        The name of each class, and its pixels in the sample of the first split: int64 of shape `(num_labels,)`.

    Raises:
        `DatasetError`: see `scan_split` and `find_id2label`.
    """
    train = next(iter(splits))
    feature = splits[train].features[columns[1]]
    id2label, source = find_id2label(arguments.dataset_name, arguments.id2label, feature, label_ids)
    num_labels = label_ids.num_labels if id2label is None else len(id2label)
    scans = {}
    for name, rows in splits.items():
        # Without names the largest id tells how many classes there are, and only all rows tell the largest id.
        limit = 0 if num_labels is None and not arguments.streaming else arguments.scan_rows
        scans[name] = scan_split(rows, name, columns, label_ids, num_labels, limit, quiet)
        if num_labels is None:
            num_labels = max(scans[name].pixels) + 1
    if id2label is None:
        id2label = {index: f"class {index}" for index in range(num_labels or 0)}
    if not quiet:
        print_scans(scans, columns, id2label, source or "their ids")
    return id2label, scans[train].counts(len(id2label))


@dataclass
class ScannedDataset:
    """A dataset that can be trained on, as far as it was read.

    Attributes:
        rows: of the training split.
        scored: the rows of the evaluation split, which know the columns and what masks go through.
        id2label: the name of each class.
        counts: pixels of each class in the rows of the training split that were read, int64 of shape `(num_labels,)`.
    """

    rows: datasets.Dataset | datasets.IterableDataset
    scored: ScoredRows
    id2label: dict[int, str]
    counts: np.ndarray


def read_dataset(arguments: DataArguments, ignore_index: int, quiet: bool = False) -> ScannedDataset:
    """Load a dataset, find what its splits and columns are, and scan them.

    Raises:
        `DatasetError`: with a sentence, if there is no such dataset, or it can't be trained on.
    """
    splits = load_splits(arguments.dataset_name, arguments.dataset_config_name, streaming=arguments.streaming)
    rows, evaluation = (find_split(splits, name) for name in (arguments.train_split, arguments.eval_split))
    columns = find_columns(rows.features, arguments.image_column_name, arguments.label_column_name)
    label_ids = arguments.label_ids(ignore_index)
    named = {arguments.train_split: rows, arguments.eval_split: evaluation}
    id2label, counts = scan_dataset(arguments, named, columns, label_ids, quiet)
    if len(id2label) < 2:
        raise DatasetError(
            f"{arguments.dataset_name!r} has one class, {id2label[0]!r}; there is nothing to tell apart."
        )
    return ScannedDataset(rows, ScoredRows(evaluation, columns, label_ids, arguments.eval_split), id2label, counts)


def print_scans(scans: Mapping[str, Scan], columns: tuple[str, str], id2label: Mapping[int, str], source: str) -> None:
    """A table of classes and their shares in each split, and what is worth a second look."""
    title = f"{columns[0]} -> {columns[1]}, {len(id2label)} classes named by {source}"
    table = Table("share of the labelled pixels", title=title, title_justify="left")
    for name in scans:
        table.add_column(name, justify="right")
    counts = [scan.counts(len(id2label)) for scan in scans.values()]
    for index, label in id2label.items():
        table.add_row(f"{index} {printable(label)}", *(f"{count[index] / count.sum():.2%}" for count in counts))
    table.add_section()
    shares = [scan.ignored / (scan.ignored + scan.pixels.total()) for scan in scans.values()]
    table.add_row("ignored, of all pixels", *(f"{share:.2%}" for share in shares))
    table.add_row("rows read", *(f"{scan.rows} of {scan.total or '?'}" for scan in scans.values()))
    table.add_row("width x height", *(scan.extent for scan in scans.values()))
    console = Console(markup=False, emoji=False)
    console.print(table)
    first, scan = next(iter(scans.items()))
    if len(scan.pixels) == 1:
        console.print(
            f"Warning: {first!r} shows one class only, {id2label[next(iter(scan.pixels))]!r}. If the ignored id is a "
            "class in these masks, give it another id, as in label_map: {0: 0, 255: 1}.",
            style="yellow",
        )
    missing = len(id2label) - len(scan.pixels)
    if missing > len(id2label) // 2:
        console.print(
            f"Warning: {missing} of {len(id2label)} classes don't occur in what was read of {first!r}. If ids have "
            "gaps, close them with label_map.",
            style="yellow",
        )
