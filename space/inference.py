"""Models, loaded once; pictures in, label maps out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fcn_hf.errors import FCNError, in_one_line
from fcn_hf.metrics import BoundaryF1, ConfusionMatrix
from fcn_hf.prediction import load_model
from space.devices import device
from space.pictures import EXAMPLES, Examples, read_layers, shrink

MODELS = Path(__file__).parent / "models"
KINDS = {"everyday": "Everyday photos", "street": "Streets", "indoor": "Rooms"}
"""What the page's own models know, by the names of their folders; its first one is shown first."""

MAX_MODELS = 4
"""Panels that still stand side by side on a laptop's screen."""

UNLABELLED = 255
"""Id in an 8-bit label map that is no class; so a model has at most as many classes."""

LONGEST_SIDE = 1024
"""Pixels that a network sees at most along a side: time and memory grow with the area, and a phone's 12 megapixels
would take a free Space minutes while adding little to classes learnt on pictures of about 500 pixels."""

TIMED_PASSES = 3
TIMING_BUDGET = 0.5
"""Seconds within which a pass is repeated (at most `TIMED_PASSES` times) and the fastest one counts: the first pass at
a new size allocates memory, which would make whichever network comes first look slow."""


class ModelError(FCNError):
    """The page can't start with these models; the message names the one at fault and the way out."""


@dataclass(frozen=True)
class Segmentation:
    """What one network says about one picture.

    Args:
        mask: (H, W) uint8 class ids, at the picture's own size.
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
        labels: class names in id order.
        stride: pixels between two of the finest scores (32, 16 or 8); None for a network that isn't an FCN.
        parameters: how many numbers it has learnt.
        model: the network, in evaluation mode.
        processor: its image processor.
        passes: how often a pass is timed at most; the fastest one counts.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    stride: int | None
    parameters: int
    model: Any
    processor: Any
    passes: int = TIMED_PASSES

    @classmethod
    def from_pretrained(cls, source: str) -> Segmenter:
        """Load a Hub id or a local model folder.

        Raises:
            ModelError: no such model, not a semantic segmentation model, it needs a library that isn't installed, too
                many classes, or several of one name.
        """
        try:
            model, processor = load_model(source)
        except FCNError as error:
            raise ModelError(f"{error} (FCN_MODELS takes model folders or Hub ids, separated by commas)") from error
        except ImportError as error:
            raise ModelError(f"the model '{source}' needs what isn't installed: {in_one_line(error)}") from error
        id2label, stride = model.config.id2label, getattr(model.config, "prediction_stride", None)
        if len(id2label) > UNLABELLED:
            raise ModelError(f"the model '{source}' has {len(id2label)} classes; at most {UNLABELLED} can be drawn.")
        name, count = Counter(id2label.values()).most_common(1)[0]
        if count > 1:
            raise ModelError(f"the model '{source}' has {count} classes {name!r}: tell them apart in its id2label.")
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
        return self.model.to(device())

    @torch.inference_mode()
    def segment(self, picture: Image.Image) -> Segmentation:
        """Name the class of every pixel of an RGB picture of any size."""
        seen = shrink(picture, LONGEST_SIDE)
        model = self.on_device()
        inputs = self.processor(images=seen, return_tensors="pt").to(device())
        outputs, seconds = _timed_forward(model, inputs, self.passes)
        ids = self.processor.post_process_semantic_segmentation(outputs, target_sizes=[(seen.height, seen.width)])[0]
        mask = Image.fromarray(ids.to(torch.uint8).cpu().numpy())
        if mask.size != picture.size:
            mask = mask.resize(picture.size, Image.Resampling.NEAREST)
        values = np.asarray(mask)
        return Segmentation(values, seconds, shares(values, self.labels))


def _timed_forward(model: Any, inputs: Mapping[str, torch.Tensor], passes: int) -> tuple[Any, float]:
    fastest, start = float("inf"), time.perf_counter()
    for _ in range(passes):
        pass_start = time.perf_counter()
        outputs = model(**inputs)
        if outputs.logits.is_cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        fastest = min(fastest, now - pass_start)
        if now - start > TIMING_BUDGET:
            break
    return outputs, fastest


def shares(mask: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Part of the labelled area that each class covers: 0..1, adding up to 1 unless nothing is labelled.

    Args:
        mask: (H, W) class ids; ids without a name (255, unlabelled) don't count.
        labels: class names in id order.
    """
    counts = np.bincount(mask.ravel(), minlength=len(labels))[: len(labels)]
    return dict(zip(labels, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def mean_iou(mask: np.ndarray, truth: np.ndarray, num_labels: int) -> float:
    """Mean intersection over union (0..1) of a (H, W) label map on its ground truth, over the classes that occur."""
    matrix = ConfusionMatrix(num_labels, ignore_index=UNLABELLED)
    matrix.update(mask.astype(np.int64), truth.astype(np.int64))
    return float(matrix.compute()["mean_iou"])


def boundary_f1(mask: np.ndarray, truth: np.ndarray, num_labels: int) -> float:
    """How well a (H, W) label map draws the boundaries of its ground truth, 0..1: see `fcn_hf.metrics.BoundaryF1`."""
    counts = BoundaryF1(num_labels, ignore_index=UNLABELLED)
    counts.update(mask.astype(np.int64), truth.astype(np.int64))
    return float(counts.compute()["boundary_f1"])


@dataclass(frozen=True)
class Kind:
    """One kind of picture: the networks that know it, and its examples.

    Args:
        name: as the API takes it.
        title: as the page shows it.
        segmenters: one to `MAX_MODELS` networks with the same classes, from coarse to fine.
        examples: pictures of this kind.
    """

    name: str
    title: str
    segmenters: tuple[Segmenter, ...]
    examples: Examples


@dataclass(frozen=True)
class Comparison:
    """Several networks on one picture.

    Args:
        picture: RGB, W x H.
        results: one per network, in their order; masks are (H, W).
        truth: (H, W) uint8 ids, 255 = unlabelled, when the picture is an example.
        scores: mean IoU (0..1) of each network on the truth; None without one.
        boundary_scores: boundary F1 (0..1) likewise.
    """

    picture: Image.Image
    results: tuple[Segmentation, ...]
    truth: np.ndarray | None
    scores: tuple[float | None, ...]
    boundary_scores: tuple[float | None, ...]


def compare(kind: Kind, path: str | os.PathLike[str]) -> Comparison:
    """Read a picture file and let every network segment it. Nothing is kept: the same file gives the same masks.

    Where the file is wholly transparent there is nothing to name: those pixels are unlabelled.

    Raises:
        PictureError: the file can't be read as a picture.
    """
    picture, nothing = read_layers(path)
    labels = kind.segmenters[0].labels
    truth = kind.examples.truth(picture, labels)
    results = tuple(segmenter.segment(picture) for segmenter in kind.segmenters)
    scores, boundary_scores = (
        tuple(None if truth is None else score(result.mask, truth, len(labels)) for result in results)
        for score in (mean_iou, boundary_f1)
    )
    if nothing is not None:
        masks = [np.where(nothing, np.uint8(UNLABELLED), result.mask) for result in results]
        results = tuple(
            replace(result, mask=mask, shares=shares(mask, labels)) for result, mask in zip(results, masks, strict=True)
        )
    return Comparison(picture, results, truth, scores, boundary_scores)


def model_ids(environment: Mapping[str, str] = os.environ) -> dict[str, tuple[str, ...]]:
    """The models to compare, by kind of picture: those of `FCN_MODELS`, separated by commas, as the one kind "models",
    or those that come with the page.

    Raises:
        ModelError: more than `MAX_MODELS`.
    """
    ids = tuple(name.strip() for name in environment.get("FCN_MODELS", "").split(",") if name.strip())
    if len(ids) > MAX_MODELS:
        raise ModelError(f"FCN_MODELS names {len(ids)} models; the page compares 1 to {MAX_MODELS}.")
    if ids:
        return {"models": ids}
    folders = {kind: [MODELS / kind / f"fcn-{stride}s" for stride in (32, 16, 8)] for kind in KINDS}
    found = {kind: tuple(str(folder) for folder in each if folder.is_dir()) for kind, each in folders.items()}
    return {kind: each for kind, each in found.items() if each}


def load_kinds(ids: Mapping[str, Sequence[str]]) -> tuple[Kind, ...]:
    """Load the models of each kind, and its examples; models of one's own meet the examples of their classes.

    Raises:
        ModelError: as `load_segmenters`.
    """
    kinds = []
    every = {name: Examples.from_folder(EXAMPLES / name) for name in KINDS}
    for name, sources in ids.items():
        segmenters = load_segmenters(sources)
        alike = [examples for examples in every.values() if examples.labels == segmenters[0].labels]
        examples = every.get(name) or next(iter(alike), Examples())
        kinds.append(Kind(name, KINDS.get(name, "Your models"), segmenters, examples))
    return tuple(kinds)


def load_segmenters(ids: Sequence[str]) -> tuple[Segmenter, ...]:
    """Load each model once; two that would share a name are told apart by where they came from.

    Raises:
        ModelError: a model is missing, or its class names differ from the first one's.
    """
    segmenters = tuple(Segmenter.from_pretrained(name) for name in ids)
    for segmenter in segmenters[1:]:
        if segmenter.labels != segmenters[0].labels:
            raise ModelError(
                f"the model '{segmenter.source}' has other classes ({_brief(segmenter.labels)}) than "
                f"'{segmenters[0].source}' ({_brief(segmenters[0].labels)}); models on one page must share them."
            )
    return tuple(_distinct(segmenter, segmenters) for segmenter in segmenters)


def _distinct(segmenter: Segmenter, others: Sequence[Segmenter]) -> Segmenter:
    alike = [_source_tail(other) for other in others if other.name == segmenter.name]
    if len(alike) == 1:
        return segmenter
    tail = _source_tail(segmenter)
    return replace(segmenter, name=f"{segmenter.name} ({tail if alike.count(tail) == 1 else segmenter.source})")


def _source_tail(segmenter: Segmenter) -> str:
    return "/".join(Path(segmenter.source).parts[-2:])


def _brief(labels: Sequence[str]) -> str:
    return f"{len(labels)}: {', '.join(labels[:3])}, ..." if len(labels) > 3 else f"{len(labels)}: {', '.join(labels)}"
