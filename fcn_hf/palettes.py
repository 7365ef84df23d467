"""Class ids -> colours, and pictures of label maps: what `fcn-hf segment`, training and the page show alike."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from .errors import FCNError


def voc_palette(count: int) -> list[list[int]]:
    """
    `count` RGB colours, integers in 0..255, that tell neighbouring ids apart; the first is black.

    This is the colour map of the PASCAL VOC development kit (`VOClabelcolormap.m`): an id's bits, three at a time from
    the lowest, are the bits of red, green and blue from the highest down. The release shows every dataset in it
    (`vis.py`).
    """
    return [
        [sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
        for index in range(count)
    ]


# Linear RGB as seen by eyes that lack one kind of cone: protan, deutan, tritan. Machado, Oliveira, Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE TVCG 2009, table for severity 1.0.
DICHROMATIC = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)

# Linear RGB of sRGB's primaries to XYZ relative to its white (IEC 61966-2-1).
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ /= XYZ.sum(axis=1, keepdims=True)


@cache
def distinct_palette(count: int, first: tuple[int, int, int] = (0, 0, 0)) -> list[list[int]]:
    """
    `count` RGB colours, integers in 0..255, that colour-blind eyes tell apart too; the first is black, or `first`.

    Each next colour of a 9 x 9 x 9 grid is the one whose nearest colour before it is furthest away: in CIELAB, as seen
    by those eyes that tell the two apart least, trichromatic ones or any of `DICHROMATIC`. So earlier ids differ most.
    """
    levels = np.linspace(0, 255, 9).round()
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = np.vstack([first, grid])
    seen = _cielab(grid)
    chosen, nearest = [0], np.full(len(grid), np.inf)
    while len(chosen) < count:
        distances = np.linalg.norm(seen - seen[:, chosen[-1:]], axis=-1).min(axis=0)
        nearest = np.minimum(nearest, distances)
        chosen.append(int(nearest.argmax()))
    return grid[chosen[:count]].astype(int).tolist()


def _cielab(colours: np.ndarray) -> np.ndarray:
    """RGB in 0..255, (N, 3), as CIELAB (4, N, 3): for trichromatic eyes and for those of `DICHROMATIC`."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    eyes = np.concatenate([np.eye(3)[None], DICHROMATIC])
    xyz = np.clip(linear @ eyes.transpose(0, 2, 1), 0, 1) @ XYZ.T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def class_colours(config: Any) -> np.ndarray:
    """The colours of a model's classes: those of its own `palette`, and VOC's for ids beyond it.

    Args:
        config: of any model, with `num_labels` and, where it brings colours, `palette`.

    Returns:
        RGB in 0..255, uint8 of shape (num_labels, 3).
    """
    own = list(getattr(config, "palette", None) or [])
    colours = [*own, *voc_palette(config.num_labels)[len(own) :]][: config.num_labels]
    return np.array(colours, dtype=np.uint8).reshape(-1, 3)


def check_ids_fit(config: Any, name: str) -> None:
    """Raise `FCNError` if a model of that name has more classes than a picture of its label maps can hold."""
    if config.num_labels > 256:
        raise FCNError(f"{name!r} has {config.num_labels} classes; a PNG of class ids holds at most 256.")


def label_picture(ids: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A label map as a palette picture: its pixel values are the class ids, its palette shows them in colour.

    Args:
        ids: class ids, integers in 0..255 of shape (H, W); those without a colour, such as 255, are transparent.
        colours: RGB in 0..255, uint8 of shape (num_labels, 3).

    Returns:
        A picture of mode "P".
    """
    picture = Image.fromarray(ids.astype(np.uint8))
    # All 256 colours, as a PNG of fewer would have no room for the ids beyond them.
    picture.putpalette(np.vstack([colours, np.zeros((256 - len(colours), 3), np.uint8)]).tobytes())
    if ids.max(initial=0) >= len(colours):
        picture.info["transparency"] = bytes([255] * len(colours) + [0] * (256 - len(colours)))
    return picture


def overlay(picture: Image.Image, ids: np.ndarray, colours: np.ndarray, opacity: float) -> Image.Image:
    """A label map's colours laid on its picture.

    Args:
        picture: RGB, of the label map's shape; where its size is another, the colours are fitted to it.
        ids: class ids, integers of shape (H, W); where one has no colour, the picture is seen alone.
        colours: RGB in 0..255, uint8 of shape (num_labels, 3).
        opacity: 0 gives the picture itself, 1 the colours alone.

    Returns:
        An RGB picture of the size of `picture`.
    """
    known = (ids >= 0) & (ids < len(colours))
    layer = np.asarray(_fitted(Image.fromarray(colours[np.where(known, ids, 0)]), picture.size), dtype=np.float32)
    shown = fitted_mask(known, picture.size)[..., None]
    pixels = np.asarray(picture, dtype=np.float32)
    blended = np.where(shown, pixels * (1 - opacity) + layer * opacity, pixels)
    return Image.fromarray(blended.round().astype(np.uint8))


# Black over violet and orange to light yellow, told apart in any kind of colour vision: every quarter of matplotlib's
# "inferno" (CC0).
HEAT_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])

HEAT_LEVELS = 1024
"""Into which heat is divided to be drawn: neighbouring ones differ by less than one of 255 in every channel."""


def heat_overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """How much each place counts, laid on its picture, which is made grey and dark so that the heat is what shines.

    Args:
        picture: RGB, W x H.
        heat: floats of shape (H, W), from 0, where the picture is seen alone, to 1, whose colour is light yellow.

    Returns:
        An RGB picture of the size of `picture`.
    """
    strength = np.linspace(0, 1, HEAT_LEVELS)
    places = np.linspace(0, 1, len(HEAT_COLOURS))
    colours = np.stack([np.interp(strength, places, channel) for channel in HEAT_COLOURS.T], axis=-1)
    opacity = np.sqrt(strength)[:, None]
    # One look into two tables a pixel, as pictures have many more pixels than levels.
    levels = (np.clip(heat, 0, 1) * (HEAT_LEVELS - 1)).round().astype(np.intp)
    added, kept = (colours * opacity).astype(np.float32)[levels], (0.6 * (1 - opacity)).astype(np.float32)[levels]
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((grey * kept + added).round().astype(np.uint8))


def fitted_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask, bool of shape (H, W), brought to a size (width, height): where most of a pixel lies in it."""
    return np.asarray(_fitted(Image.fromarray(np.uint8(255) * mask), size)) > 127


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    # BOX averages where a label map is reduced, for smooth edges, and repeats pixels where it is enlarged.
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BOX)
