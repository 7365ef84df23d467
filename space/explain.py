"""Why a pixel has its class, and how a mask comes about, on a visitor's picture."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcn_hf import refinement
from fcn_hf.errors import FCNError
from fcn_hf.explanation import PixelExplanation, explain_together
from fcn_hf.palettes import heat_overlay
from fcn_hf.refinement import RefinementStep
from space.inference import LONGEST_SIDE, Segmenter
from space.kinds import Kind
from space.pictures import shrink

BRIGHTEST = 0.999
"""Share of the pixels that are less bright than the brightest colour: single ones would leave the others dark."""

SMOOTHING = 4
"""Pixels that are averaged to one before heat is drawn: gradients flicker from pixel to pixel."""


@dataclass(frozen=True)
class NetworkExplanation:
    """What one network says of a pixel.

    Args:
        segmenter: the network.
        explanation: of the pixel in the picture at the size in which networks see it.
        receptive_field: (left, top, right, bottom) in pixels of the picture as it was sent; None if not known.
        seconds: for all of it; networks of one trunk go through it once, which counts for the first.
    """

    segmenter: Segmenter
    explanation: PixelExplanation
    receptive_field: tuple[int, int, int, int] | None
    seconds: float


@dataclass(frozen=True)
class Question:
    """A pixel of a picture, and what several networks say of it.

    Args:
        size: (width, height) of the picture as it was sent, in whose pixels x and y are.
        seen: the picture as networks see it, at most `LONGEST_SIDE` pixels a side.
        answers: one per network, in their order.
    """

    size: tuple[int, int]
    x: int
    y: int
    seen: Image.Image
    answers: tuple[NetworkExplanation, ...]


def ask(kind: Kind, picture: Image.Image, x: int, y: int) -> Question:
    """Ask every network of a kind about one pixel of a picture (RGB, W x H).

    Raises:
        FCNError: the pixel isn't in the picture.
    """
    if not (0 <= x < picture.width and 0 <= y < picture.height):
        raise FCNError(
            f"There is no pixel x = {x}, y = {y}: the picture has {picture.width} x {picture.height}, counted from 0."
        )
    seen = shrink(picture, LONGEST_SIDE)
    # The pixel whose class a mask that is brought back to the picture's size repeats here.
    seen_x, seen_y = int((x + 0.5) * seen.width / picture.width), int((y + 0.5) * seen.height / picture.height)
    answers, start = [], time.perf_counter()
    nets = [(segmenter.on_device(), segmenter.processor) for segmenter in kind.segmenters]
    for segmenter, explanation in zip(kind.segmenters, explain_together(nets, seen, seen_x, seen_y), strict=True):
        seconds = time.perf_counter() - start
        field = explanation.receptive_field and enlarged(explanation.receptive_field, seen.size, picture.size)
        answers.append(NetworkExplanation(segmenter, explanation, field, seconds))
        start = time.perf_counter()
    return Question(picture.size, x, y, seen, tuple(answers))


def enlarged(
    box: tuple[int, int, int, int], size: tuple[int, int], new_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) in a picture of one (width, height), in the same picture at another."""
    left, top, right, bottom = box
    (width, height), (new_width, new_height) = size, new_size
    # Outwards: -(-a // b) rounds up.
    return (
        left * new_width // width,
        top * new_height // height,
        -(-right * new_width // width),
        -(-bottom * new_height // height),
    )


def heat_picture(seen: Image.Image, explanation: PixelExplanation) -> Image.Image:
    """Where a pixel's class hangs on the picture: brighter is more, on a scale of this picture's own."""
    values = Image.fromarray(explanation.dependence)
    coarse = (max(1, seen.width // SMOOTHING), max(1, seen.height // SMOOTHING))
    smooth = values.resize(coarse, Image.Resampling.BOX).resize(seen.size, Image.Resampling.BILINEAR)
    heat = np.asarray(smooth)
    return heat_overlay(seen, heat / max(np.quantile(heat, BRIGHTEST), np.finfo(np.float32).tiny))


def finest_fcn(kind: Kind) -> Segmenter | None:
    """The network of a kind with the most to be seen inside: its FCN of the smallest stride."""
    fcns = [segmenter for segmenter in kind.segmenters if segmenter.model.config.model_type == "fcn"]
    return min(fcns, key=lambda segmenter: segmenter.stride or 0, default=None)


def look_inside(segmenter: Segmenter, picture: Image.Image) -> tuple[Image.Image, list[RefinementStep]]:
    """A picture (RGB) as networks see it, and the steps to the mask of one of them."""
    seen = shrink(picture, LONGEST_SIDE)
    return seen, refinement(segmenter.on_device(), segmenter.processor, seen)
