"""Huge pictures in tiles that overlap by what the net sees around a pixel, so that their label maps have no seams."""

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from .errors import FCNError
from .files import write_aside
from .image_inputs_fcn import open_picture
from .kept_parts import keep_parts, made_of, model_fingerprint
from .prediction import predict

PIXELS_AT_ONCE = 2**24
"""Pictures of more pixels, 4096x4096, are looked at in tiles unasked, unless their processor shrinks them."""

LARGEST_PICTURE = 2**31
"""Pixels of the largest file that is taken; decoded it has 6 GB."""

STRIDE = 32
"""Of the coarsest feature map, in pixels: where tiles begin at its multiples, the maps of convolutions lie as the
picture's do. Windows of attention may not, which `moves_with_the_picture` sees."""

# The strip on which the margin is seen: how wide it is, how much of each of its ends is unknown, and how high.
STRIP, UNKNOWN, STRIP_HEIGHT = 3072, 64, 64


class Tile(NamedTuple):
    """A part of a picture, in pixels.

    Args:
        rows, columns: whose label map it is to give.
        box: what the net is shown, (left, top, right, bottom) as Pillow has it: these and a margin around them.
    """

    rows: range
    columns: range
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut into tiles.

    Args:
        size: height and width of what the net is shown at once, in pixels, margins included; a multiple of 32.
        margin: what is shown around each tile's own pixels, unless the picture ends there; a multiple of 32.
        is_seamless: whether pixels depend on nothing beyond the margin.

    Raises:
        `FCNError`: if a size isn't a multiple of 32, or margins leave nothing of the tile.
    """

    size: int
    margin: int
    is_seamless: bool = True

    def __post_init__(self) -> None:
        if self.size % STRIDE or self.margin % STRIDE or not 0 <= 2 * self.margin < self.size:
            raise FCNError(
                f"Tiles of {self.size} pixels with margins of {self.margin} can't be cut; expected multiples of "
                f"{STRIDE}, and tiles of more than two margins ({2 * self.margin})."
            )

    def tiles(self, height: int, width: int) -> list[Tile]:
        """The tiles of a picture, row by row; each of its pixels is in the `rows` and `columns` of one of them."""
        return [
            Tile(rows, columns, (shown_columns.start, shown_rows.start, shown_columns.stop, shown_rows.stop))
            for rows, shown_rows in self._along(height)
            for columns, shown_columns in self._along(width)
        ]

    def _along(self, edge: int) -> Iterator[tuple[range, range]]:
        """Of each tile along an axis, the pixels of its own and those shown."""
        start = 0
        while start < edge:
            first = max(0, start - self.margin)
            last = min(edge, first + self.size)
            stop = edge if last == edge else last - self.margin
            yield range(start, stop), range(first, last)
            start = stop


def tiling_for(model) -> Tiling:
    """A tiling by whose tiles a model gives the label map of the whole picture; each is 3.5 of its margins wide, 1024
    pixels at least: more of them would show the net less twice, and take more memory.

    A model that sees all of a picture at once, by attention or by averages over it, or that cuts it into windows of its
    own, has no such tiling: its tiles (`is_seamless` is False) have a margin of a quarter.
    """
    margin = seen_around(model)
    if margin is not None and moves_with_the_picture(model, margin):
        return Tiling(max(1024, -(-7 * margin // (2 * STRIDE)) * STRIDE), margin)
    size = max(1024, 4 * (margin or 0))
    return Tiling(size, size // 4, is_seamless=False)


@torch.no_grad()
def moves_with_the_picture(model, margin: int) -> bool:
    """Whether answers beyond the margin stay the same where a picture begins some strides later.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        margin: how far a pixel's answer depends on the picture, in pixels, as `seen_around` gives it.
    """
    channels = getattr(model.config, "num_channels", None) or 3
    # The numbers are drawn on the CPU, so that they are the same on every device.
    strip = torch.randn(1, channels, STRIP_HEIGHT, STRIP, generator=torch.Generator().manual_seed(0))
    strip = strip.to(device=model.device, dtype=model.dtype)
    whole = model(pixel_values=strip).logits
    scale = STRIP // whole.shape[-1]
    rounding = max(1e-4, 8 * torch.finfo(whole.dtype).eps) * float(whole.abs().max())
    inside = slice(margin // scale, -(margin // scale) or None)
    for strides in (1, 3):
        later = model(pixel_values=strip[..., strides * STRIDE :]).logits
        same = whole[..., strides * STRIDE // scale :]
        if not torch.allclose(later[..., inside], same[..., inside], rtol=0, atol=rounding):
            return False
    return True


@torch.no_grad()
def seen_around(model) -> int | None:
    """How far around itself, at most, a pixel's answer depends on the picture: pixels, a multiple of 32.

    It is seen, and not computed from layers, so that it holds for whatever net: both ends of a strip are no numbers
    (NaN), which spreads to every answer that depends on them. Nets are taken to see as far down as to the right.

    Args:
        model: a semantic segmentation model, in evaluation mode.

    Returns:
        None if it is 1,440 pixels or more, as it is for nets whose answers depend on the whole picture.
    """
    channels = getattr(model.config, "num_channels", None) or 3
    strip = torch.zeros(1, channels, STRIP_HEIGHT, STRIP, device=model.device, dtype=model.dtype)
    strip[..., :UNKNOWN] = strip[..., -UNKNOWN:] = torch.nan
    logits = model(pixel_values=strip).logits
    known = (~logits.isnan()).all(dim=1).all(dim=1)[0].nonzero().flatten().tolist()
    if not known:
        return None
    scale = STRIP / logits.shape[-1]
    left, right = scale * known[0] - UNKNOWN, STRIP - UNKNOWN - scale * (known[-1] + 1)
    return -(-int(np.ceil(max(left, right, 0))) // STRIDE) * STRIDE


def is_huge(path: Path, processor) -> bool:
    """Whether a net would be shown more than `PIXELS_AT_ONCE` of a picture's file at once; not if it can't be read."""
    if getattr(processor, "do_resize", False) or not path.is_file():
        return False
    try:
        with large_files(), Image.open(path) as picture:
            return picture.width * picture.height > PIXELS_AT_ONCE
    except Exception:  # whatever Pillow meets in a file that is no picture
        return False


@contextmanager
def large_files() -> Iterator[None]:
    """Let Pillow open files of up to `LARGEST_PICTURE` pixels for a while; otherwise it has 179 million at most."""
    bound = Image.MAX_IMAGE_PIXELS
    # Pillow refuses what has more than twice as many, and warns of what has more.
    Image.MAX_IMAGE_PIXELS = LARGEST_PICTURE // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def predict_in_tiles(
    model,
    processor,
    path: Path,
    tiling: Tiling,
    kept: Path,
    watch: Callable[[Sequence[Tile]], Iterable[Tile]] = iter,
) -> np.ndarray:
    """The label map of a huge picture, seen at its own size whatever size its processor makes pictures.

    With the tiling of `tiling_for` it is that of the whole picture at once, but for rounding. (Nets that resize their
    scores, `upsampling="interpolate"`, spread them over the picture: without a trunk that pads it, there it is so where
    its height and width are multiples of 32.) The picture is decoded whole, 200 MB at 8192x8192; logits there are of
    one tile at a time.

    Args:
        model: a semantic segmentation model of up to 256 classes, in evaluation mode.
        processor: its image processor.
        path: of the picture's file.
        tiling: how it is cut.
        kept: folder for the bands of the label map that are done, each a row of tiles. Where it holds bands of the same
            picture, model and tiling, as after an interruption, the work goes on behind them. The caller removes it.
        watch: shows progress, as rich's `track` does: it is given the tiles to be done and gives them back one by one.

    Returns:
        `np.ndarray` of uint8 class ids, shape (height, width) as the upright picture's.

    Raises:
        `ValueError`: if the picture can't be read, or isn't one for this model.
    """
    with large_files():
        picture = open_picture(path)
    seen_as_it_is = copy.copy(processor)
    seen_as_it_is.do_resize = False
    facts = _facts(model, processor, path, tiling)
    if made_of(kept) != facts:
        shutil.rmtree(kept, ignore_errors=True)
        keep_parts(kept, facts)
    tiles = tiling.tiles(picture.height, picture.width)
    undone = [tile for tile in tiles if not _band(kept, tile.rows).exists()]
    for rows, row_of_tiles in groupby(watch(undone), key=lambda tile: tile.rows):
        band = np.empty((len(rows), picture.width), dtype=np.uint8)
        for tile in row_of_tiles:
            left, top, *_ = tile.box
            columns = tile.columns
            ids = predict(model, seen_as_it_is, picture.crop(tile.box))
            own = ids[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            band[:, columns.start : columns.stop] = own
        write_aside(_band(kept, rows), partial(np.save, arr=band))
    bands = dict.fromkeys(tile.rows for tile in tiles)
    return np.concatenate([np.load(_band(kept, rows), mmap_mode="r") for rows in bands])


def _facts(model, processor, path: Path, tiling: Tiling) -> dict[str, Any]:
    with open(path, "rb") as file:
        picture = hashlib.file_digest(file, "sha256").hexdigest()
    model_and_processor = model_fingerprint(model, processor)
    return {"picture": picture, "model": model_and_processor, "tile": tiling.size, "margin": tiling.margin}


def _band(kept: Path, rows: range) -> Path:
    return kept / f"{rows.start:09d}.npy"
