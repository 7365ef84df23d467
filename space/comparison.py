"""Several networks on one picture, and how well each did where the truth is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from space.inference import (
    LONGEST_SIDE,
    UNLABELLED,
    Segmentation,
    at_size,
    boundary_f1,
    mean_iou,
    segment_together,
    shares,
)
from space.kinds import Kind
from space.pictures import read_layers, read_truth, shrink


@dataclass(frozen=True)
class Comparison:
    """Several networks on one picture.

    Where the file is wholly transparent there is nothing to name: those pixels are unlabelled in all results.

    Args:
        picture: RGB, W x H.
        seen: the same as networks see it, at most `LONGEST_SIDE` pixels a side.
        answers: one per network, in their order; masks are of the size of `seen`, transparent pixels named too.
        nothing: bool (H, W), true where the file is wholly transparent; None if it has no transparency.
        truth: (H, W) uint8 ids, 255 = unlabelled, where it is known.
        scores: mean IoU (0..1) of each network on the truth, over the classes that it knows; None without a truth.
        boundary_scores: boundary F1 (0..1) likewise.
    """

    picture: Image.Image
    seen: Image.Image
    answers: tuple[Segmentation, ...]
    nothing: np.ndarray | None
    truth: np.ndarray | None
    scores: tuple[float | None, ...]
    boundary_scores: tuple[float | None, ...]

    @cached_property
    def results(self) -> tuple[Segmentation, ...]:
        """One per network; masks are (H, W). Made when they are asked for, as a phone's picture has 12 million pixels
        and the page shows fewer."""
        return self._at(self.picture.size)

    @cached_property
    def seen_results(self) -> tuple[Segmentation, ...]:
        """One per network; masks are of the size of `seen`."""
        return self._at(self.seen.size)

    def _at(self, size: tuple[int, int]) -> tuple[Segmentation, ...]:
        results = tuple(at_size(answer, size) for answer in self.answers)
        if self.nothing is None:
            return results
        nothing = np.asarray(Image.fromarray(self.nothing).resize(size, Image.Resampling.NEAREST))
        masks = [np.where(nothing, np.uint8(UNLABELLED), result.mask) for result in results]
        return tuple(
            replace(result, mask=mask, shares=shares(mask, tuple(result.shares)))
            for result, mask in zip(results, masks, strict=True)
        )


def compare(kind: Kind, path: str | os.PathLike[str], truth_path: str | os.PathLike[str] | None = None) -> Comparison:
    """Read a picture file and let every network segment it. Nothing is kept: the same file gives the same masks.

    Args:
        kind: which networks.
        path: of the picture.
        truth_path: of a label map, whose ids are those of the kind's classes; without one, an example has its own.

    Raises:
        PictureError: the file can't be read as a picture.
        TruthError: the label map can't be one of this picture.
    """
    picture, nothing = read_layers(path)
    labels = kind.labels
    if truth_path is None:
        truth = kind.examples.truth(picture, labels)
    else:
        truth = read_truth(truth_path, picture.size, len(labels))
    seen = shrink(picture, LONGEST_SIDE)
    answers = segment_together(kind.segmenters, seen)
    scores, boundary_scores = (
        tuple(
            None if truth is None else score(at_size(answer, picture.size).mask, truth, len(labels), segmenter.ids)
            for segmenter, answer in zip(kind.segmenters, answers, strict=True)
        )
        for score in (mean_iou, boundary_f1)
    )
    return Comparison(picture, seen, answers, nothing, truth, scores, boundary_scores)
