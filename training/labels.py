"""Masks as datasets hold them -> maps of class ids; and the names of the classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image

from fcn_hf.datasets import DatasetError
from fcn_hf.errors import UNREACHABLE, hub_reason
from fcn_hf.image_inputs_fcn import LOSSY_MAP, is_lossy

# The key of a palette or a label map that stands for every colour or id that it doesn't name.
OTHER = "other"
# More than this many classes are never guessed from the ids of masks: they need names.
LARGEST_GUESS = 256
# Of what masks and maps of ids may hold.
LARGEST_ID = 2**31 - 1
# How a colour, packed into one number 0xRRGGBB, is written in errors.
COLOUR = "colour #{:06x}"


class LabelIds:
    """
    Turns a mask as the dataset holds it into class ids: colours through `palette`, then ids through `label_map`, then
    `reduce_labels`. Without any of them the ids are those of the mask.

    Args:
        palette: colours of the classes. A list of `[red, green, blue]` (0..255), each at the index that is its id; or a
            mapping of colours, written "128, 64, 128" or "#804080", to ids. With it, every mask is read by its colours.
        label_map: mapping of a mask's ids to class ids, for ids that are sparse or shifted. Ids that it doesn't name
            are an error, except `ignore_index`, which stays.
        reduce_labels: make 0 `ignore_index` and subtract 1 from every other id but `ignore_index`.
        ignore_index: id of the pixels that don't count, which palette and map can give.

    In both mappings the key "other" is for whatever they don't name, as in `{7: 0, 8: 1, other: 255}`.

    Raises:
        `DatasetError`: if the palette or the map isn't of these forms.
    """

    def __init__(
        self,
        palette: Sequence[Sequence[int]] | Mapping[str, int] | None = None,
        label_map: Mapping[int | str, int] | None = None,
        reduce_labels: bool = False,
        ignore_index: int = 255,
    ):
        self.palette = None if palette is None else _read_palette(palette)
        self.label_map = None if label_map is None else {ignore_index: ignore_index, **_read_map(label_map)}
        self.reduce_labels = reduce_labels
        self.ignore_index = ignore_index

    @property
    def keeps_ids(self) -> bool:
        """Whether ids come out as the masks hold them."""
        return self.palette is None and self.label_map is None and not self.reduce_labels

    @property
    def num_labels(self) -> int | None:
        """Number of classes, as palette or map tell it; None where neither is given."""
        entries = self.palette if self.label_map is None else self.label_map
        if entries is None:
            return None
        ids = [id for id in entries.values() if id != self.ignore_index]
        return max(ids, default=-1) + 1 - self.reduce_labels

    def colours(self, num_labels: int) -> list[list[int]] | None:
        """The palette's colour `[red, green, blue]` of each class; None where it doesn't have one for each."""
        if self.palette is None or self.label_map is not None:
            return None
        colours = {id - self.reduce_labels: colour for colour, id in self.palette.items() if colour != OTHER}
        if not colours.keys() >= set(range(num_labels)):
            return None
        return [list(int(colours[index]).to_bytes(3)) for index in range(num_labels)]

    def __call__(self, mask: Any, where: str) -> np.ndarray:
        """
        The class ids of one mask.

        Args:
            mask: PIL picture, or array of shape (H, W), (H, W, 1), or with colours (H, W, 3) or (H, W, 4).
            where: what an error begins with, such as "Row 3 of 'train'".

        Returns:
            `np.ndarray` of shape (H, W): uint8 where its ids and the ignored one fit, else int32.

        Raises:
            `DatasetError`: beginning with `where`, if the mask has colours and there is no palette, a colour or an id
                is in neither palette nor map, it holds no whole numbers, or is a JPEG.
        """
        if is_lossy(mask):
            raise DatasetError(f"{where}: the mask {LOSSY_MAP}.")
        if self.palette is None:
            ids = _read_ids(mask, where)
        else:
            ids = _look_up(self.palette, _read_colours(mask, where), where, "palette", COLOUR)
        if self.label_map is not None:
            ids = _look_up(self.label_map, ids, where, "label_map", "id {}")
        if self.reduce_labels:
            ids = np.where((ids == 0) | (ids == self.ignore_index), self.ignore_index, ids.astype(np.int32) - 1)
        # Padding and patches put the ignored id in.
        values = [self.ignore_index, *((ids.min(), ids.max()) if ids.size else ())]
        return ids.astype(np.uint8 if 0 <= min(values) and max(values) <= 255 else np.int32, copy=False)


def _look_up(entries: Mapping[int | str, int], numbers: np.ndarray, where: str, argument: str, form: str) -> np.ndarray:
    """The id of each number, int32 of the same shape; `argument` and `form` are for the error of an unknown number."""
    # One key more, which nothing equals, catches numbers beyond the last.
    keys = np.array([*sorted(key for key in entries if key != OTHER), np.iinfo(np.int64).max])
    ids = np.array([*(entries[key] for key in keys[:-1].tolist()), 0], dtype=np.int32)
    if numbers.dtype == np.uint8:
        # A search for each of the 256 values is faster than one for each pixel.
        positions = np.searchsorted(keys, np.arange(256))[numbers]
    else:
        positions = np.searchsorted(keys, numbers)
    known = keys[positions] == numbers
    if known.all():
        return ids[positions]
    if OTHER in entries:
        return np.where(known, ids[positions], np.int32(entries[OTHER]))
    y, x = np.argwhere(~known)[0]
    others = len(np.unique(numbers[~known])) - 1
    also = f" (and {others} others)" if others else ""
    raise DatasetError(
        f"{where}: the {form.format(numbers[y, x])} at x={x}, y={y} of the mask{also} is not in {argument}; "
        f'add it there, or, with {argument} as a mapping, "{OTHER}: 255" to ignore all that it doesn\'t name.'
    )


def _read_colours(mask: Any, where: str) -> np.ndarray:
    """Packed colours, int32 of shape (H, W)."""
    if isinstance(mask, Image.Image):
        if mask.mode[0] in "IF":
            raise DatasetError(
                f"{where}: the mask has mode {mask.mode!r}, which holds numbers and no colours; leave palette out."
            )
        mask = mask.convert("RGB")
    colours = np.asarray(mask)
    if colours.ndim != 3 or colours.shape[-1] not in (3, 4) or colours.dtype != np.uint8:
        raise DatasetError(
            f"{where}: the mask has shape {colours.shape} and dtype {colours.dtype}, but with a palette it must be a "
            "picture, or uint8 of shape (height, width, 3)."
        )
    red, green, blue = np.moveaxis(colours[..., :3].astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _read_ids(mask: Any, where: str) -> np.ndarray:
    ids = np.asarray(mask)
    if ids.ndim == 3 and ids.shape[-1] == 1:
        ids = ids[..., 0]
    if ids.ndim == 3 and ids.shape[-1] in (3, 4) and ids.dtype == np.uint8:
        seen = np.unique(ids[..., :3].reshape(-1, 3), axis=0)
        some = ", ".join(f"#{colour.tobytes().hex()}" for colour in seen[:6]) + (", ..." if len(seen) > 6 else "")
        raise DatasetError(
            f"{where}: the mask holds colours ({some}) and no class ids; give the recipe a palette: a list of "
            "[red, green, blue] in the order of the ids, or a mapping of such colours to ids."
        )
    if ids.ndim != 2 or ids.dtype.kind not in "uib":
        raise DatasetError(
            f"{where}: the mask has shape {ids.shape} and dtype {ids.dtype}, but a mask holds one whole number per "
            "pixel, shape (height, width); is it the right column (label_column_name)?"
        )
    return ids


def _read_colour(colour: Any) -> int:
    """A packed colour from `[128, 64, 128]`, "128, 64, 128" or "#804080"."""
    try:
        if isinstance(colour, str) and colour.startswith("#") and len(colour) == 7:
            return int(colour[1:], 16)
        channels = colour.strip("()[]").split(",") if isinstance(colour, str) else colour
        # Bytes refuse whatever isn't in 0..255.
        red, green, blue = bytes(int(channel) for channel in channels)
        return red << 16 | green << 8 | blue
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(
            f"palette: {colour!r} is no colour; write [128, 64, 128] in a list of colours, or as a key of a mapping "
            '"128, 64, 128" or "#804080".'
        ) from None


def _read_palette(palette: Any) -> dict[int | str, int]:
    if isinstance(palette, Mapping):
        items = [(name if name == OTHER else _read_colour(name), _read_id(value)) for name, value in palette.items()]
    elif isinstance(palette, Sequence) and not isinstance(palette, str):
        items = [(_read_colour(colour), index) for index, colour in enumerate(palette)]
    else:
        raise DatasetError(f"palette is {palette!r}, but must be a list of colours or a mapping of colours to ids.")
    entries = dict(items)
    if len(entries) < len(items):
        twice = next(colour for colour, _ in items if sum(other == colour for other, _ in items) > 1)
        raise DatasetError(f"palette has the {COLOUR.format(twice)} twice; each belongs to one id.")
    return entries


def _read_map(label_map: Any) -> dict[int | str, int]:
    if not isinstance(label_map, Mapping):
        raise DatasetError(f"label_map is {label_map!r}, but must be a mapping of ids to ids, such as {{7: 0, 11: 1}}.")
    return {name if name == OTHER else _read_id(name): _read_id(value) for name, value in label_map.items()}


def _read_id(value: Any) -> int:
    """A whole number, or one as a text, such as the keys of JSON are."""
    try:
        number = int(value)
        is_whole = isinstance(value, str) or number == value
        if is_whole and not isinstance(value, bool) and abs(number) <= LARGEST_ID:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise DatasetError(
        f"{value!r} is no class id in palette, label_map or id2label; ids are whole numbers up to {LARGEST_ID}."
    )


def find_id2label(
    name: str, names: Any, feature: Any, label_ids: LabelIds
) -> tuple[dict[int, str], str] | tuple[None, None]:
    """
    Class names from the recipe, else from `id2label.json` in the dataset's folder or Hub repo, else from its features.

    Args:
        name: Hub id or folder of the dataset.
        names: the recipe's `id2label`, a list or a mapping; None where it has none.
        feature: of the label column; the names of a `ClassLabel` in it are used where `label_ids` keeps ids.
        label_ids: what masks go through; names are those of the ids that come out.

    Returns:
        The name of each id 0..n-1, and a word on where they are from; or None twice, where there are none.

    Raises:
        `DatasetError`: if the names aren't for the ids 0..n-1, or the Hub doesn't say whether there are some.
    """
    if names is not None:
        return read_names(names, "the recipe", label_ids.ignore_index), "the recipe"
    path: str | Path = Path(name) / "id2label.json"
    if not Path(name).is_dir():
        try:
            path = hf_hub_download(name, "id2label.json", repo_type="dataset")
        except EntryNotFoundError:
            pass
        except (OSError, ValueError, *UNREACHABLE) as error:
            raise DatasetError(f"id2label.json of {name!r} can't be read: {hub_reason(error)}") from error
    if Path(path).is_file():
        try:
            names = json.loads(Path(path).read_text())
        except ValueError as error:
            raise DatasetError(f"id2label.json of {name!r} is no JSON: {error}") from error
        return read_names(names, "id2label.json", label_ids.ignore_index), "id2label.json"
    names = _class_label_names(feature) if label_ids.keeps_ids else None
    if names:
        return read_names(names, "the features", label_ids.ignore_index), "the features"
    return None, None


def read_names(names: Any, source: str, ignore_index: int) -> dict[int, str]:
    """The name of each id 0..n-1 from a list or a mapping.

    Args:
        names: as a recipe, a file or a dataset's features hold them.
        source: what errors call it.
        ignore_index: id that may be named too, and is left out.

    Raises:
        `DatasetError`: if it is neither, or the names aren't for the ids 0..n-1.
    """
    if isinstance(names, Sequence) and not isinstance(names, str):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping):
        raise DatasetError(
            f"id2label of {source} is {names!r}, but must be a list of names or a mapping of ids to them."
        )
    for index, label in names.items():
        if isinstance(label, bool) or not isinstance(label, str | int | float):
            raise DatasetError(
                f"id2label of {source} calls {index} {label!r}, which is no name; YAML reads yes, no, on, off and null "
                "so: put names into quotes."
            )
    id2label = {_read_id(index): str(label) for index, label in names.items()}
    if ignore_index >= len(id2label) - 1:
        # Many a file names the ignored id, too.
        id2label.pop(ignore_index, None)
    if not id2label or sorted(id2label) != list(range(len(id2label))):
        raise DatasetError(
            f"id2label of {source} has the ids {sorted(id2label)}, but classes are counted 0, 1, 2, ... without gaps; "
            "give the recipe an id2label of that kind, and a label_map or reduce_labels that makes the masks fit."
        )
    return {index: id2label[index] for index in range(len(id2label))}


def _class_label_names(feature: Any) -> list[str] | None:
    """Names of the `ClassLabel` that a feature is a sequence of, at any depth."""
    while feature is not None and not isinstance(feature, datasets.ClassLabel):
        feature = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return None if feature is None else feature.names
