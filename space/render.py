"""Class ids to colours: the only place that knows them."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

UNLABELLED = 255
"""Id in a label map that is no class; drawn transparent."""

STREET_COLOURS = {
    "sky": (150, 184, 255),
    "building": (127, 51, 44),
    "pole": (243, 240, 60),
    "road": (53, 46, 114),
    "pavement": (252, 218, 213),
    "tree": (0, 138, 24),
    "sign": (255, 167, 0),
    "fence": (0, 152, 172),
    "car": (18, 34, 226),
    "pedestrian": (255, 8, 119),
    "bicyclist": (188, 106, 255),
}
"""CamVid's 11 classes. Each hue recalls its class, and the set was spread so that the two nearest colours stay apart
(0.12 in OKLab, where the usual CamVid colours have 0.03) for eyes without red or without green cones too."""

BACKGROUND_NAMES = ("background", "unlabeled", "unlabelled", "void", "other")
BACKGROUND_COLOUR = (128, 128, 128)

GOLDEN_ANGLE = 0.381966
SHADES = ((0.75, 0.95), (0.9, 0.65), (0.6, 0.55), (1.0, 0.4))
"""(saturation, value) taken in turn, so that neighbouring ids differ in lightness as well as in hue."""


def palette(labels: Sequence[str]) -> np.ndarray:
    """One colour per class, no two alike.

    Args:
        labels: class names in id order, at most 255.

    Returns:
        (len(labels), 3) uint8 RGB. Street classes keep their colour in any label set; others are spread over the hues.
    """
    colours: list[tuple[int, int, int]] = []
    for index, name in enumerate(labels):
        key = name.lower()
        colour = BACKGROUND_COLOUR if key in BACKGROUND_NAMES else STREET_COLOURS.get(key)
        colours.append(_unused(colour or _spread_colour(index), colours))
    return np.array(colours, dtype=np.uint8).reshape(-1, 3)


def _spread_colour(index: int) -> tuple[int, int, int]:
    saturation, value = SHADES[index % len(SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_ANGLE % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _unused(colour: tuple[int, int, int], taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    while colour in taken:
        colour = (colour[0], colour[1], (colour[2] + 7) % 256)
    return colour


def overlay(picture: Image.Image, mask: np.ndarray, colours: np.ndarray, opacity: float) -> Image.Image:
    """Lay a label map's colours on its picture.

    Args:
        picture: RGB, W x H.
        mask: (H, W) class ids; unlabelled pixels show the picture alone.
        colours: (num_labels, 3) uint8, from `palette`.
        opacity: 0 gives the picture itself, 1 the colours alone.

    Returns:
        An RGB picture, W x H.
    """
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    labelled = (mask < len(colours))[..., None]
    layer = colours[np.minimum(mask, len(colours) - 1)]
    blended = np.where(labelled, pixels * (1 - opacity) + layer * opacity, pixels)
    return Image.fromarray(blended.round().astype(np.uint8))


def label_map(mask: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A label map as a palette picture: its pixel values are the class ids, its palette shows them in colour.

    Args:
        mask: (H, W) class ids, 255 for unlabelled.
        colours: (num_labels, 3) uint8, from `palette`.
    """
    image = Image.fromarray(mask.astype(np.uint8)).convert("L")
    image.putpalette(np.vstack([colours, np.zeros((256 - len(colours), 3), np.uint8)]).tobytes())
    image.info["transparency"] = bytes([255] * UNLABELLED + [0])
    return image


def data_uri(image: Image.Image, format: str, **options: int) -> str:
    """A picture as text that a page can hold, so that nobody else's request can fetch it."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def hex_colour(colour: Sequence[int]) -> str:
    """`#rrggbb`, for CSS."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def legend(labels: Sequence[str], colours: np.ndarray) -> str:
    """The legend shared by all panels: one button per class, which shows this class alone while it is pointed at."""
    buttons = "".join(
        f'<button type="button" class="fcn-class" aria-pressed="false" data-name="{escape(name)}" '
        f'data-colour="{",".join(map(str, colour.tolist()))}">'
        f'<i style="background:{hex_colour(colour)}"></i>{escape(name)}</button>'
        for name, colour in zip(labels, colours, strict=True)
    )
    return f'<div class="fcn-legend" role="group" aria-label="Legend: point at a class to see it alone">{buttons}</div>'
