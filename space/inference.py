"""A network with its image processor: pictures in, label maps out; and how well they fit the truth."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fcn_hf.errors import FCNError, in_one_line
from fcn_hf.metrics import BoundaryF1, ConfusionMatrix
from fcn_hf.modeling_fcn import FCNForSemanticSegmentation
from fcn_hf.prediction import check_scores, load_model
from space.devices import device
from space.pictures import UNLABELLED, shrink

LONGEST_SIDE = 1024
"""Pixels that a network sees at most along a side: time and memory grow with the area, and a phone's 12 megapixels
would take a free Space minutes while adding little to classes learnt on pictures of about 500 pixels."""

LONGEST_BY_SHORTEST = 8
"""What a network sees of a picture is at most this much longer than wide, where its image processor sets no bound: one
that asks for a shorter side alone would make a strip of 1024x3 pixels, at 500 pixels, 171 thousand pixels long."""

TIMED_PASSES = 3
TIMING_BUDGET = 0.1
"""Seconds within which a pass of a trunk or of a network's scores is repeated (at most `TIMED_PASSES` times) and the
fastest one counts: the first pass at a new size allocates memory, which would make the first network look slow."""

ODD_SIZE = (75, 51)
"""Height and width, in pixels, of the picture on which two trunks are compared."""


class ModelError(FCNError):
    """These models can't be shown; the message names the one at fault and the way out."""


@dataclass(frozen=True)
class Segmentation:
    """What one network says about one picture.

    Args:
        mask: (H, W) uint8 class ids, at the picture's own size; `Segmenter.classes` has their names.
        seconds: one forward pass, from pixel values to a score per class and pixel.
        shares: class name -> part of the picture's area, 0..1, in id order.
    """

    mask: np.ndarray
    seconds: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Segmenter:
    """A network with its image processor, ready for pictures. It keeps nothing of the pictures it has seen.

    Args:
        name: short name for a caption, such as "FCN-8s".
        source: Hub id or folder it was loaded from.
        labels: names of its own classes in id order.
        stride: pixels between two of the finest scores (32, 16 or 8); None for a network that isn't an FCN.
        parameters: how many numbers it has learnt.
        model: the network, in evaluation mode.
        processor: its image processor.
        beside: class names in the order of the ids that its masks are to have, its own labels among them: those of all
            networks that are shown together. Its own ids without it.
        passes: how often a pass is timed at most; the fastest one counts.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    stride: int | None
    parameters: int
    model: Any
    processor: Any
    beside: tuple[str, ...] | None = None
    passes: int = TIMED_PASSES

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the ids in its masks."""
        return self.labels if self.beside is None else self.beside

    @cached_property
    def ids(self) -> np.ndarray:
        """The id in its masks of each of its own classes, uint8 of shape (its own classes,)."""
        places = {name: index for index, name in enumerate(self.classes)}
        return np.array([places[name] for name in self.labels], dtype=np.uint8)

    @classmethod
    def from_pretrained(cls, source: str, folder: Path | None = None) -> Segmenter:
        """Load a Hub id or a local model folder.

        Args:
            source: where it comes from.
            folder: where its files are, if they were brought there; nothing else is looked at then.

        Raises:
            ModelError: no such model, not a semantic segmentation model, it needs a library that isn't installed, too
                many classes, or several of one name.
        """
        try:
            model, processor = load_model(str(folder or source))
        except FCNError as error:
            raise ModelError(str(error).replace(str(folder), source)) from error
        except ImportError as error:
            raise ModelError(f"the model '{source}' needs what isn't installed: {in_one_line(error)}") from error
        id2label, stride = model.config.id2label, getattr(model.config, "prediction_stride", None)
        if len(id2label) > UNLABELLED:
            raise ModelError(f"the model '{source}' has {len(id2label)} classes; at most {UNLABELLED} can be drawn.")
        name, count = Counter(id2label.values()).most_common(1)[0]
        if count > 1:
            raise ModelError(f"the model '{source}' has {count} classes {name!r}: tell them apart in its id2label.")
        bound_longest_edge(processor)
        return cls(
            name=f"FCN-{stride}s" if stride else Path(source).name,
            source=source,
            labels=tuple(id2label[index] for index in range(len(id2label))),
            stride=stride,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            model=model,
            processor=processor,
        )

    def on_device(self) -> Any:
        """The network, brought to where this request is computed."""
        # Going through all its weights to find them there already takes a millisecond.
        return self.model if self.model.device == device() else self.model.to(device())

    def segment(self, picture: Image.Image) -> Segmentation:
        """Name the class of every pixel of an RGB picture of any size."""
        (result,) = segment_together([self], picture)
        return result


@torch.inference_mode()
def segment_together(segmenters: Sequence[Segmenter], picture: Image.Image) -> tuple[Segmentation, ...]:
    """What each network says about an RGB picture of any size.

    The maps of a trunk that several of them share (`share_trunks`) are computed once; each one's seconds are those of
    the trunk and of its own scores.
    """
    seen = shrink(picture, LONGEST_SIDE)
    computed: dict[Any, tuple[Any, float, torch.Size]] = {}
    results = []
    for segmenter in segmenters:
        model, processor = segmenter.on_device(), segmenter.processor
        is_fcn = isinstance(model, FCNForSemanticSegmentation)
        net = model.fcn if is_fcn else model
        if net not in computed:
            pixel_values = processor(images=seen, return_tensors="pt")["pixel_values"].to(device())
            timed = _timed(partial(net, pixel_values, output_hidden_states=is_fcn), segmenter)
            computed[net] = (*timed, pixel_values.shape[-2:])
        outputs, seconds, size = computed[net]
        if is_fcn:
            outputs, own_seconds = _timed(partial(model.score, outputs.hidden_states, size), segmenter)
            seconds += own_seconds
        check_scores(outputs.logits)
        ids = processor.post_process_semantic_segmentation(outputs, target_sizes=[(seen.height, seen.width)])[0]
        mask = segmenter.ids[ids.to(torch.uint8).cpu().numpy()]
        results.append(at_size(Segmentation(mask, seconds, shares(mask, segmenter.classes)), picture.size))
    return tuple(results)


def at_size(result: Segmentation, size: tuple[int, int]) -> Segmentation:
    """The same with its mask brought to a size (width, height), where each pixel has the class of the nearest one."""
    image = Image.fromarray(result.mask)
    if image.size == size:
        return result
    mask = np.asarray(image.resize(size, Image.Resampling.NEAREST))
    return replace(result, mask=mask, shares=shares(mask, tuple(result.shares)))


@torch.inference_mode()
def share_trunks(segmenters: Sequence[Segmenter]) -> None:
    """Let networks have one trunk in common whose trunks are the same, weight by weight, and see pictures alike.

    So are those of an FCN-32s, 16s and 8s that differ in their skips alone.
    """
    distinct: list[Segmenter] = []
    for segmenter in segmenters:
        if isinstance(segmenter.model, FCNForSemanticSegmentation):
            same = next((other for other in distinct if _same_trunk(segmenter, other)), None)
            if same is None:
                distinct.append(segmenter)
            else:
                segmenter.model.fcn = same.model.fcn


def _same_trunk(one: Segmenter, other: Segmenter) -> bool:
    if one.processor.to_dict() != other.processor.to_dict():
        return False
    weights, other_weights = one.model.fcn.state_dict(), other.model.fcn.state_dict()
    if weights.keys() != other_weights.keys() or not all(
        weight.dtype == other_weights[name].dtype and torch.equal(weight, other_weights[name])
        for name, weight in weights.items()
    ):
        return False
    # What a trunk does beyond its weights, such as where it pads, shows in the maps of a picture of an odd size.
    noise = torch.rand(1, one.model.config.num_channels, *ODD_SIZE, generator=torch.Generator().manual_seed(0))
    maps, other_maps = (
        each.model.fcn(noise.to(each.model.device), output_hidden_states=True).hidden_states for each in (one, other)
    )
    return len(maps) == len(other_maps) and all(map(torch.equal, maps, other_maps))


def bound_longest_edge(processor: Any) -> None:
    """Let an image processor that asks for a shorter side bound the longer one, too, if it doesn't."""
    size = getattr(processor, "size", None) or {}
    shorter = size.get("shortest_edge")
    if shorter and not size.get("longest_edge"):
        processor.size = {"shortest_edge": shorter, "longest_edge": LONGEST_BY_SHORTEST * shorter}


def _timed(run: Callable[[], Any], segmenter: Segmenter) -> tuple[Any, float]:
    """What a network's part gives, and the seconds of its fastest pass."""
    fastest, start = float("inf"), time.perf_counter()
    for _ in range(segmenter.passes):
        pass_start = time.perf_counter()
        outputs = run()
        if segmenter.model.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        fastest = min(fastest, now - pass_start)
        if now - start > TIMING_BUDGET:
            break
    return outputs, fastest


def shares(mask: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Part of the labelled area that each class covers: 0..1, adding up to 1 unless nothing is labelled.

    Args:
        mask: (H, W) uint8 class ids; ids without a name (255, unlabelled) don't count.
        labels: class names in id order.
    """
    # Pillow counts bytes as bytes; numpy makes eight of each, and a phone's picture has 12 million.
    counts = np.array(Image.fromarray(mask).histogram())[: len(labels)]
    return dict(zip(labels, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def mean_iou(mask: np.ndarray, truth: np.ndarray, num_labels: int, known: np.ndarray | None = None) -> float:
    """Mean intersection over union (0..1) of a (H, W) label map on its ground truth, over the classes that occur.

    Args:
        mask, truth: (H, W) ids.
        num_labels: how many classes there are.
        known: ids of those that the network knows, where others know more. The mean is over these, as it could never
            score on the others; but all labelled pixels count. So whatever a network that knows few classes says where
            the truth is another class makes its score worse, as it does for one that knows all.
    """
    matrix = ConfusionMatrix(num_labels, ignore_index=UNLABELLED)
    matrix.update(mask.astype(np.int64), truth.astype(np.int64))
    return _mean(matrix.compute()["per_class_iou"], known)


def boundary_f1(mask: np.ndarray, truth: np.ndarray, num_labels: int, known: np.ndarray | None = None) -> float:
    """How well a (H, W) label map draws the boundaries of its ground truth, 0..1: see `fcn_hf.metrics.BoundaryF1`.

    Arguments as for `mean_iou`; the mean is over the known classes here too.
    """
    counts = BoundaryF1(num_labels, ignore_index=UNLABELLED)
    counts.update(mask.astype(np.int64), truth.astype(np.int64))
    return _mean(counts.compute()["per_class_boundary_f1"], known)


def _mean(by_class: Mapping[str, float], known: np.ndarray | None) -> float:
    """Of the classes that have a score; NaN if none has."""
    scores = np.array(list(by_class.values()))
    scores = scores if known is None else scores[known]
    scored = scores[~np.isnan(scores)]
    return float(scored.mean()) if scored.size else float("nan")
