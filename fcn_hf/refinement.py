"""How an FCN's mask comes about: its coarse scores, brought up, and what each skip adds."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image

from .explanation import at_picture
from .image_inputs_fcn import open_picture
from .upsampling_fcn import CoordinateMap, FCNUpsampling


@dataclass(frozen=True)
class RefinementStep:
    """One step from coarse scores to the mask.

    Args:
        name: "coarse" (the scores of the deepest map, each drawn as a square), "bilinear" (the same by plain bilinear
            interpolation), "upsampled" (by the net's own transposed convolutions), "pool4" and "pool3" (with that
            map's scores added on the way).
        scores_shape: (h, w, num_labels) of the scores that the step starts from or adds.
        mask: int64 class ids after it, of the picture's shape (H, W).
        changed: where the mask differs from that of the step before, bool of the same shape.
    """

    name: str
    scores_shape: tuple[int, int, int]
    mask: np.ndarray
    changed: np.ndarray


@torch.no_grad()
def refinement(model: Any, processor: Any, picture: str | PathLike | Image.Image) -> list[RefinementStep]:
    """The steps from the coarse scores of an FCN's first task to its mask, which is that of the last step.

    Args:
        model: an `FCNForSemanticSegmentation`, in evaluation mode, on the device that shall compute.
        processor: its image processor.
        picture: a path, a URL or a PIL picture, of any size; it is turned upright.

    Raises:
        `ValueError`: if the picture can't be read, or isn't one for this model.
    """
    picture = open_picture(picture)
    pixel_values = processor(picture, return_tensors="pt").to(model.device)["pixel_values"]
    size = pixel_values.shape[-2:]
    head = next(iter(model.heads.values()))
    scores = head.scores(model.fcn(pixel_values, output_hidden_states=True).hidden_states)
    coarse, position = scores["score_fr"], model.fcn.trunk.answer.position
    added = {name: torch.zeros_like(score) for name, score in scores.items()} | {"score_fr": coarse}
    logits = {
        "coarse": (nearest(coarse, position, size), coarse),
        "bilinear": (bilinear(coarse, position, size), coarse),
        "upsampled": (head.upsample(added, size), coarse),
    }
    for name, score in list(scores.items())[1:]:
        added[name] = score
        logits[name.removeprefix("score_")] = (head.upsample(added, size), score)

    steps: list[RefinementStep] = []
    for name, (step_logits, step_scores) in logits.items():
        scores = at_picture(processor, step_logits, (picture.height, picture.width))
        mask = scores.max(dim=0).indices.cpu().numpy()
        before = steps[-1].mask if steps else mask
        _, num_labels, height, width = step_scores.shape
        steps.append(RefinementStep(name, (height, width, num_labels), mask, mask != before))
    return steps


def nearest(scores: torch.Tensor, position: CoordinateMap, size: tuple[int, int]) -> torch.Tensor:
    """Scores `(B, C, h, w)` of a map that lies at `position`, at a picture's size: at each pixel the nearest ones."""
    rows, columns = (
        ((torch.arange(length, device=scores.device) - position.offset) / position.scale).round().long().clamp(0, last)
        for length, last in zip(size, (scores.shape[-2] - 1, scores.shape[-1] - 1), strict=True)
    )
    return scores[..., rows[:, None], columns]


def bilinear(scores: torch.Tensor, position: CoordinateMap, size: tuple[int, int]) -> torch.Tensor:
    """The same by bilinear interpolation: what FCN-32s starts from, which is a transposed convolution too."""
    factor = round(position.scale)
    kernel_size, fine = position.upsampling_onto(CoordinateMap(), factor)
    upsampling = FCNUpsampling(scores.shape[1], factor, False, kernel_size).to(scores)
    start, (height, width) = int(CoordinateMap().crop_offset(fine)), size
    return upsampling(scores)[..., start : start + height, start : start + width]
