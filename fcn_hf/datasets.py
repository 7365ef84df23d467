"""Any segmentation dataset, found and read: a name -> its splits, a split's name -> rows, columns -> their names."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import PIL.EpsImagePlugin
import PIL.Image
import pyarrow

from .errors import FCNError, hub_reason
from .files import LFS_REMEDY, find_lfs_pointer

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "mask", "annotation", "semantic_segmentation", "segmentation_mask")

# Folders side by side, and what splits are called where other names are common.
IMAGE_FOLDERS = ("images", "image")
MASK_FOLDERS = ("masks", "mask", "annotations", "labels")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# `datasets` decodes pictures by itself, by whatever format they are of: no file may have Ghostscript run.
PIL.EpsImagePlugin.gs_binary = False


class DatasetError(FCNError):
    """A dataset can't be used as it was asked for; the message is one sentence for the person who asked."""


def load_splits(
    name: str, config_name: str | None = None, streaming: bool = False
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """All splits of a dataset.

    Args:
        name: Hub id or folder, as `datasets.load_dataset` takes it; or a folder with `images` and `masks` in it, whose
            files belong together by their names up to the ending. Splits are folders above or below the two, such as
            `train/images` or `images/train`; without any, all is "train".
        config_name: the dataset's configuration, where it has several.
        streaming: read rows as they are asked for, without storing the dataset.

    Raises:
        `DatasetError`: if there is no such dataset, or it can't be read, or a picture has no mask or a mask no picture.
    """
    if os.path.exists(name) and not os.path.isdir(name):
        raise DatasetError(f"{name!r} is a file; pass the dataset's folder or its Hub id.")
    if config_name is None and os.path.isdir(name) and (folders := _paired_folders(Path(name))):
        return _load_pairs(folders, streaming)
    try:
        return datasets.load_dataset(name, config_name, streaming=streaming)
    except ImportError:
        raise
    except Exception as error:  # datasets passes on whatever its readers meet, some of it inside errors of its own
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        pointer = find_lfs_pointer(name, "**/*.*")
        reason = hub_reason(cause or error) if pointer is None else f"{pointer} {LFS_REMEDY}"
        raise DatasetError(f"The dataset {name!r} can't be loaded: {reason}") from error


def _paired_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folder of pictures and that of masks of each split; none if files in there say what the dataset is.

    Raises:
        `DatasetError`: if two folders are one split.
    """
    if any(next(root.rglob(pattern), None) for pattern in ("metadata.jsonl", "metadata.csv", "*.parquet", "*.arrow")):
        return {}
    images, masks = _side_by_side(root)
    if images.is_dir() and masks.is_dir():
        below = sorted({folder.name for parent in (images, masks) for folder in _subfolders(parent)})
        if not below or any(_files_by_stem(parent, "*") for parent in (images, masks)):
            return {"train": (images, masks)}
        found = {name: (images / name, masks / name) for name in below}
    else:
        # What one of the two lacks is found where its files are.
        sides = {folder.name: _side_by_side(folder) for folder in _subfolders(root)}
        found = {name: pair for name, pair in sides.items() if any(folder.is_dir() for folder in pair)}
        if not any(all(folder.is_dir() for folder in pair) for pair in found.values()):
            return {}
    splits: dict[str, tuple[Path, Path]] = {}
    for name, pair in found.items():
        split = SPLIT_NAMES.get(name.lower(), name)
        if split in splits:
            raise DatasetError(f"{splits[split][0]} and {pair[0]} are both of the split {split!r}; rename one.")
        splits[split] = pair
    return splits


def _side_by_side(folder: Path) -> tuple[Path, Path]:
    """The folders of pictures and of masks in a folder, or where they would be."""
    inside = {path.name.lower(): path for path in _subfolders(folder)}
    images, masks = (
        next((inside[name] for name in names if name in inside), folder / names[0])
        for names in (IMAGE_FOLDERS, MASK_FOLDERS)
    )
    return images, masks


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _load_pairs(
    folders: Mapping[str, tuple[Path, Path]], streaming: bool
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """Splits with the columns "image" and "label", of folders of pictures and of masks.

    Raises:
        `DatasetError`: naming a picture without a mask, a mask without a picture, or two files of one name.
    """
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    splits = datasets.DatasetDict()
    for split, (image_folder, mask_folder) in folders.items():
        images, masks = _files_by_stem(image_folder), _files_by_stem(mask_folder)
        for stem in sorted(images.keys() ^ masks.keys()):
            kind, folder = ("mask", mask_folder) if stem in images else ("picture", image_folder)
            raise DatasetError(
                f"{images.get(stem) or masks[stem]} has no {kind}; expected one of the same name, up to its ending, in "
                f"{folder}."
            )
        rows = {"image": [str(path) for path in images.values()], "label": [str(masks[stem]) for stem in images]}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    if not streaming:
        return splits
    return datasets.IterableDatasetDict({split: rows.to_iterable_dataset() for split, rows in splits.items()})


def files_digest(rows: datasets.Dataset, column: str) -> str:
    """Paths, sizes and times of the files that a column's pictures are in, as one text; it changes with any of them.

    A dataset of paths keeps its own fingerprint when another picture takes a file's place. Pictures that the rows hold
    themselves don't count, and aren't read.
    """
    digest = hashlib.sha256()
    for chunk in rows.data.column(column).chunks:
        if not pyarrow.types.is_struct(chunk.type):
            continue
        paths, in_files = chunk.field("path").to_pylist(), chunk.field("bytes").is_null().to_pylist()
        for path, in_file in zip(paths, in_files, strict=True):
            if in_file and path and os.path.isfile(path):
                state = os.stat(path)
                digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files_by_stem(folder: Path, pattern: str = "**/*") -> dict[str, Path]:
    """The pictures in a folder, and in those in it, by their names up to the ending, in the order of the names."""
    endings = PIL.Image.registered_extensions()
    files: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() in endings and not path.name.startswith("."):
            other = files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
            if other != path:
                raise DatasetError(f"{other} and {path} differ by their ending alone; take one of them out.")
    return files


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
        `DatasetError`: if a named column is absent, none is recognised, or both are the same.
    """
    columns = find_image_column(features, image_column), _find_column(features, "label", label_column, LABEL_COLUMNS)
    if columns[0] == columns[1]:
        raise DatasetError(f"The column {columns[0]!r} is to be pictures and label maps at once; name another for one.")
    return columns


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


def check_filled(row: Mapping[str, Any], columns: Iterable[str], where: str) -> None:
    """Raise `DatasetError`, beginning with `where`, if the row has nothing in one of the columns."""
    for column in columns:
        if row[column] is None:
            raise DatasetError(f"{where} has nothing in the column {column!r}; fill it, or take the row out.")


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
