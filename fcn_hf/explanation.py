"""Why a pixel has its class: what the net could see of the picture there, and what its score depended on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.modeling_outputs import SemanticSegmenterOutput

from .errors import FCNError
from .image_inputs_fcn import open_picture
from .prediction import check_scores
from .receptive_fields import FollowedFields


@dataclass(frozen=True)
class PixelExplanation:
    """What a net says of one pixel, and why.

    Args:
        x, y: the pixel, from the picture's left and top.
        probabilities: softmax of the scores there, float32 of shape (num_labels,).
        dependence: how much the score of the most probable class hangs on each pixel: the absolute value of its
            gradient, summed over the channels, float32 >= 0 of the picture's shape (H, W).
        receptive_field: (left, top, right, bottom) of the pixels that the net can see from here, right and bottom
            excluded, clipped to the picture; `dependence` is zero outside. All zeros if the score depends on nothing,
            None for nets that aren't FCNs.
        reach: (height, width) of the receptive field of one of the deepest map's positions, in pixels of what the
            image processor gives to the net, unclipped; infinite if it sees the whole picture. None as above.
        network_size: (height, width) of what the image processor gives to the net.
    """

    x: int
    y: int
    probabilities: np.ndarray
    dependence: np.ndarray
    receptive_field: tuple[int, int, int, int] | None
    reach: tuple[float, float] | None
    network_size: tuple[int, int]

    @property
    def label(self) -> int:
        """Id of the most probable class."""
        return int(self.probabilities.argmax())

    def radius(self, share: float = 0.5) -> int:
        """Pixels around this one that hold a share (0..1) of all of `dependence`: the field that is really used."""
        rows, columns = np.ogrid[: self.dependence.shape[0], : self.dependence.shape[1]]
        distances = np.hypot(rows - self.y, columns - self.x).round().astype(np.int64)
        within = np.bincount(distances.ravel(), self.dependence.ravel()).cumsum()
        return int(np.searchsorted(within, share * within[-1]))


def explain_pixel(
    model: Any, processor: Any, picture: str | PathLike | Image.Image, x: int, y: int
) -> PixelExplanation:
    """Trace one pixel's answer back into the picture: one pass forward, and one backward from its highest score.

    Args:
        model: a semantic segmentation model, in evaluation mode, on the device that shall compute.
        processor: its image processor.
        picture: a path, a URL or a PIL picture, of any size; it is turned upright.
        x, y: the pixel, counted from 0 at the picture's left and top.

    Raises:
        `FCNError`: if the pixel isn't in the picture, or the net's scores there aren't finite.
        `ValueError`: if the picture can't be read, or isn't one for this model.
    """
    (explanation,) = explain_together([(model, processor)], picture, x, y)
    return explanation


def explain_together(
    nets: Iterable[tuple[Any, Any]], picture: str | PathLike | Image.Image, x: int, y: int
) -> Iterator[PixelExplanation]:
    """What `explain_pixel` gives for each of several nets. FCNs whose `fcn` is one and the same module, and whose image
    processors are alike, go through it once.

    Args:
        nets: models, each with its image processor.
        picture, x, y: as `explain_pixel` takes them.

    Raises:
        As `explain_pixel`.
    """
    picture = open_picture(picture)
    if x not in range(picture.width) or y not in range(picture.height):
        raise FCNError(
            f"x is {x} and y is {y}, but the picture has {picture.width}x{picture.height} pixels: expected x in "
            f"0..{picture.width - 1} and y in 0..{picture.height - 1}."
        )
    looks: dict[Any, _Look] = {}
    for model, processor in nets:
        # Only an FCN's inner maps are maps; another net's may be sequences.
        is_fcn = model.config.model_type == "fcn"
        net = model.fcn if is_fcn else model
        if net not in looks:
            looks[net] = _Look(net, processor, picture, is_fcn)
        yield looks[net].explained(model, processor, (picture.height, picture.width), int(x), int(y))


class _Look:
    """A pass forward whose graph is kept for passes backward; of an FCN without the scores, of other nets all of it."""

    @torch.enable_grad()
    def __init__(self, net: Any, processor: Any, picture: Image.Image, is_fcn: bool):
        pixel_values = processor(picture, return_tensors="pt").to(net.device)["pixel_values"]
        self.pixel_values = pixel_values.requires_grad_()
        with FollowedFields(pixel_values) as self.fields:
            self.outputs = net(pixel_values=pixel_values, output_hidden_states=is_fcn)
        self.maps = list(self.outputs.hidden_states) if is_fcn else []

    @torch.enable_grad()
    def explained(self, model: Any, processor: Any, size: tuple[int, int], x: int, y: int) -> PixelExplanation:
        network_size = (self.pixel_values.shape[-2], self.pixel_values.shape[-1])
        logits = model.score(self.maps, network_size).logits if self.maps else self.outputs.logits
        scores = scores_at(processor, logits, size, x, y)
        check_scores(scores)
        # All of the heads is linear, so the gradients of the maps are other than zero where the score has read them.
        gradient, *read = torch.autograd.grad(
            scores.max(), [self.pixel_values, *self.maps], allow_unused=True, retain_graph=True
        )
        dependence = gradient.abs().sum(dim=1, keepdim=True)
        field, reach = None, None
        if self.maps:
            found = seen(self.pixel_values, self.maps, read, self.fields)
            field = bounding_box(at_picture(processor, found, size)[0] > 0)
            y_field, x_field = self.fields.of(self.maps[-1])
            reach = (y_field.size, x_field.size)
        return PixelExplanation(
            x=x,
            y=y,
            probabilities=scores.detach().float().softmax(dim=0).cpu().numpy(),
            dependence=at_picture(processor, dependence, size)[0].float().cpu().numpy(),
            receptive_field=field,
            reach=reach,
            network_size=network_size,
        )


def seen(
    pixel_values: torch.Tensor, maps: list[torch.Tensor], read: Sequence[torch.Tensor | None], fields: FollowedFields
) -> torch.Tensor:
    """1 at the pixels that some positions of the maps can see, 0 at others, `(1, 1, h, w)`: the positions where `read`,
    gradients of the maps, are other than zero."""
    result = torch.zeros_like(pixel_values[:, :1])
    for feature_map, gradient in zip(maps, read, strict=True):
        if gradient is not None and gradient.any():
            left, top, right, bottom = bounding_box(gradient[0].any(dim=0))
            y, x = fields.of(feature_map)
            rows, columns = y.seen_by(top, bottom, result.shape[-2]), x.seen_by(left, right, result.shape[-1])
            result[..., slice(*rows), slice(*columns)] = 1
    return result


def at_picture(processor: Any, values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Values at each of a net's pixels, `(1, C, h, w)`, at the picture's size (height, width), `(C, height, width)`: by
    the way on which post-processing brings back scores."""
    outputs: Any = SemanticSegmenterOutput(logits=values)
    (result,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[size], return_segmentation_scores=True
    )
    return result.segmentation_scores


def scores_at(processor: Any, logits: torch.Tensor, size: tuple[int, int], x: int, y: int) -> torch.Tensor:
    """What `at_picture` makes of logits at one pixel, `(C,)`.

    Each class's score there is the same sum of few of its logits, with weights that one channel's gradient tells: all
    channels brought to the picture's size, and back for the gradient, take longer than many nets.
    """
    channel = torch.zeros_like(logits[:, :1], dtype=torch.float32, requires_grad=True)
    (weights,) = torch.autograd.grad(at_picture(processor, channel, size)[0, y, x], channel)
    left, top, right, bottom = bounding_box(weights[0, 0] != 0)
    part = (0, slice(None), slice(top, bottom), slice(left, right))
    return (logits[part] * weights[part]).sum(dim=(-2, -1))


def bounding_box(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is true in a mask (H, W), right and bottom excluded; zeros if nothing is."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
