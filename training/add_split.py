"""Add a split to a dataset folder: pictures of another dataset, or its own once more, with other labels.

`python training/add_split.py FOLDER NAME --dataset DATASET --split SPLIT --label-map MAP`. A split that is added is
trained on by its name, as in `train_split: train+NAME`. Pictures are copied as they are.
"""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import typer
import yaml
from huggingface_hub import DatasetCard
from PIL import Image, ImageFilter

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fcn_hf.datasets import DatasetError, find_columns, find_split, load_splits, numbered_rows
from fcn_hf.errors import FCNError
from fcn_hf.files import check_folder, written_aside
from training.data import read_row
from training.labels import LabelIds

VOID = 255


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
        `DatasetError`: if the folder has a split of that name or other columns, a row can't be read, ids are beyond
            8 bits, or no row is left.
    """
    splits = load_splits(str(folder))
    if name in splits:
        raise DatasetError(f"{folder} has a split {name!r} already; choose another name.")
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
    added = undecoded.add_column(label_column, labels, feature=datasets.Image())
    file = f"{name}-00000-of-00001.parquet"
    with written_aside(folder / "data") as aside:
        added.cast_column(image_column, datasets.Image()).to_parquet(aside / file)
    _list_split(folder / "README.md", name)
    return len(kept)


def _png(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(ids).save(file, "PNG", optimize=True)
    return file.getvalue()


def _list_split(readme: Path, name: str) -> None:
    """Name the split among those of the README, where it names any; else `datasets` finds it by its file's name."""
    if not readme.is_file():
        return
    card = DatasetCard.load(readme)
    configs: Any = card.data.get("configs")
    if configs and isinstance(configs[0].get("data_files"), list):
        configs[0]["data_files"].append({"split": name, "path": f"data/{name}-*.parquet"})
        card.save(readme)


def main(
    folder: Annotated[Path, typer.Argument(help="Dataset folder with Parquet files in `data`; it is added to.")],
    name: Annotated[str, typer.Argument(help="Name of the new split.")],
    dataset: Annotated[str, typer.Option(help="Folder or Hub id of the dataset whose pictures are added.")],
    split: Annotated[str, typer.Option(help="Its split, or several with + between.")] = "train",
    label_map: Annotated[
        str | None,
        typer.Option(help="Ids of its masks to those of FOLDER, as in a recipe: '{4: 9, 5: 18, 7: 255, other: 0}'."),
    ] = None,
    outlines: Annotated[int, typer.Option(min=0, help="Pixels on each side of an outline that become void.")] = 0,
    at_least: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out pictures with a smaller share of other classes than 0.")
    ] = 0,
) -> None:
    """Add a split to a dataset folder: pictures of another dataset, or its own once more, with other labels."""
    check_folder(folder)
    try:
        ids = None if label_map is None else yaml.safe_load(label_map)
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
