"""Add a split to a dataset folder: pictures of another dataset, or its own once more, with other labels.

`python training/add_split.py FOLDER NAME --dataset DATASET --split SPLIT --label-map MAP`. A split that is added is
trained on by its name, as in `train_split: train+NAME`. Pictures are copied as they are.
"""

import io
import re
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import typer
from datasets.table import embed_table_storage
from huggingface_hub import DatasetCard
from PIL import Image, ImageFilter

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fcn_hf.datasets import DatasetError, find_columns, find_split, load_splits, numbered_rows
from fcn_hf.errors import FCNError
from fcn_hf.files import check_folder, write_aside, written_aside
from training.data import read_row, read_yaml
from training.labels import LabelIds

VOID = 255

# What `datasets` takes for one.
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")


def void_outlines(ids: np.ndarray, pixels: int) -> np.ndarray:
    """Class ids with `VOID` wherever another id is at most `pixels` away, sideways or up and down; uint8 `(H, W)`.

    Labels that a net drew are surest inside regions; VOC's own have such a band around theirs.
    """
    window, picture = 2 * pixels + 1, Image.fromarray(ids)
    lowest, highest = (
        np.array(picture.filter(rank)) for rank in (ImageFilter.MinFilter(window), ImageFilter.MaxFilter(window))
    )
    return np.where(lowest == highest, ids, np.uint8(VOID))


def add_split(
    folder: Path,
    name: str,
    rows: datasets.Dataset,
    label_map: Mapping[int | str, int] | None = None,
    outlines: int = 0,
    at_least: float = 0.0,
) -> int:
    """Write rows, with their labels changed, into a dataset folder as one more split.

    Args:
        folder: with Parquet files in `data`, as the Hub has them; its README's list of splits gets one entry more.
        name: of the new split.
        rows: of another dataset, with the columns that the folder's splits have.
        label_map: ids in the rows' masks to class ids of the folder, with "other" as in a recipe; 255 is void.
        outlines: pixels on each side of an outline that become void.
        at_least: rows are left out where classes other than 0 cover a smaller share of the picture, 0..1.

    Returns:
        How many rows were written.

    Raises:
        `DatasetError`: if the folder isn't of that form, or has a split of that name or other columns; if the name is
            none for a split, a row can't be read, ids are beyond 8 bits, or no row is left. Then the folder stays.
    """
    file = f"{name}-00000-of-00001.parquet"
    if not SPLIT_NAME.fullmatch(name) or name == "all":
        raise DatasetError(f"A split can't be called {name!r}; use letters, digits and underscores, such as 'rooms'.")
    splits = load_splits(str(folder))
    if not any((folder / "data").glob("*.parquet")):
        raise DatasetError(f"{folder} has no Parquet files in `data`, beside which the split could lie.")
    if name in splits:
        raise DatasetError(f"{folder} has a split {name!r} already; choose another name.")
    card = _card(folder, file)
    columns, expected = set(rows.column_names), set(next(iter(splits.values())).column_names)
    if columns != expected:
        raise DatasetError(
            f"The rows have the columns {', '.join(sorted(columns))}, but the splits in {folder} have "
            f"{', '.join(sorted(expected))}; they must be the same."
        )
    image_column, label_column = find_columns(rows.features)
    label_ids = LabelIds(label_map=label_map, ignore_index=VOID)
    kept, labels = [], []
    for index, (where, row) in enumerate(numbered_rows(rows)):
        _, ids = read_row(row, (image_column, label_column), label_ids, where)
        if ids.dtype != np.uint8:
            raise DatasetError(f"{where}: its class ids reach {ids.max()}, but the new masks have 8 bits; map them.")
        if np.isin(ids, (0, VOID), invert=True).mean() < at_least:
            continue
        kept.append(index)
        labels.append({"bytes": _png(void_outlines(ids, outlines) if outlines else ids), "path": None})
    if not kept:
        raise DatasetError(
            f"No picture has {at_least:.1%} of other classes than 0; lower --at-least, or see --label-map."
        )
    undecoded = rows.cast_column(image_column, datasets.Image(decode=False)).select(kept).remove_columns(label_column)
    # Rows may name files, which stay where they are when the folder goes elsewhere.
    embedded = undecoded.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100).with_format(None)
    added = embedded.add_column(label_column, labels, feature=datasets.Image())
    with written_aside(folder / "data") as aside:
        added.cast_column(image_column, datasets.Image()).to_parquet(aside / file)
    if card is not None:
        _list_split(card, name, len(kept), (folder / "data" / file).stat().st_size)
        write_aside(folder / "README.md", card.save)
    return len(kept)


def _png(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(ids).save(file, "PNG", optimize=True)
    return file.getvalue()


def _card(folder: Path, file: str) -> DatasetCard | None:
    """The README, where there is one, once it is seen that a split with this file can be added to it.

    Raises:
        `DatasetError`: if it can't be read, lists splits in another form, or gives the file to another split.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    try:
        card = DatasetCard.load(readme)
        entries = [(entry["split"], entry["path"]) for entry in _data_files(card)]
    except Exception as error:  # YAML's constructors raise more than YAMLError
        raise DatasetError(
            f"{readme} lists no splits that one could be added to; expected `configs` whose `data_files` are a list of "
            "`split` and `path`."
        ) from error
    for split, paths in entries:
        if any(fnmatch(f"data/{file}", pattern) for pattern in ([paths] if isinstance(paths, str) else paths)):
            raise DatasetError(
                f"In {readme} {paths!r} of {split!r} would be the new split's file, too; narrow it, such as to "
                f"'data/{split}-*.parquet'."
            )
    return card


def _data_files(card: DatasetCard) -> list[Any]:
    """The README's own list of splits; empty where it has none, so that `datasets` finds them by their files' names."""
    configs: Any = card.data.get("configs")
    return configs[0].get("data_files", []) if configs else []


def _list_split(card: DatasetCard, name: str, rows: int, size: int) -> None:
    """Name the split wherever the README names those that there are."""
    data_files, info = _data_files(card), card.data.get("dataset_info")
    if data_files:
        data_files.append({"split": name, "path": f"data/{name}-*.parquet"})
    info = info[0] if isinstance(info, list) and info else info
    if info and info.get("splits"):
        info["splits"].append({"name": name, "num_bytes": size, "num_examples": rows})


def main(
    folder: Annotated[Path, typer.Argument(help="Dataset folder with Parquet files in `data`; it is added to.")],
    name: Annotated[str, typer.Argument(help="Name of the new split.")],
    dataset: Annotated[str, typer.Option(help="Folder or Hub id of the dataset whose pictures are added.")],
    split: Annotated[str, typer.Option(help="Its split, or several with + between.")] = "train",
    label_map: Annotated[
        str | None,
        typer.Option(help="Ids of its masks to those of FOLDER, as in a recipe: '{4: 9, 5: 18, 7: 255, other: 0}'."),
    ] = None,
    outlines: Annotated[
        int, typer.Option(min=0, max=1000, help="Pixels on each side of an outline that become void.")
    ] = 0,
    at_least: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out pictures with a smaller share of other classes than 0.")
    ] = 0,
) -> None:
    """Add a split to a dataset folder: pictures of another dataset, or its own once more, with other labels."""
    check_folder(folder)
    try:
        ids = None if label_map is None else read_yaml(label_map)
    except Exception as error:  # yaml's constructors raise more than YAMLError
        raise DatasetError(
            f"--label-map is {label_map!r}; expected a mapping of ids, such as '{{4: 9, other: 0}}'."
        ) from error
    count = add_split(folder, name, find_split(load_splits(dataset), split), ids, outlines, at_least)
    print(f"{folder} has {count} pictures more, as its split {name!r}.")


if __name__ == "__main__":
    try:
        typer.run(main)
    except FCNError as error:
        raise SystemExit(str(error)) from error
