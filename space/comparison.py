"""Several networks on one picture, and how well each did where the truth is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from space.inference import UNLABELLED, Segmentation, boundary_f1, mean_iou, segment_together, shares
from space.kinds import Kind
from space.pictures import read_layers, read_truth


@dataclass(frozen=True)
class Comparison:
    """Several networks on one picture.

    Args:
        picture: RGB, W x H.
        results: one per network, in their order; masks are (H, W).
        truth: (H, W) uint8 ids, 255 = unlabelled, where it is known.
        scores: mean IoU (0..1) of each network on the truth, over the classes that it knows; None without a truth.
        boundary_scores: boundary F1 (0..1) likewise.
    """

    picture: Image.Image
    results: tuple[Segmentation, ...]
    truth: np.ndarray | None
    scores: tuple[float | None, ...]
    boundary_scores: tuple[float | None, ...]


def compare(kind: Kind, path: str | os.PathLike[str], truth_path: str | os.PathLike[str] | None = None) -> Comparison:
    """Read a picture file and let every network segment it. Nothing is kept: the same file gives the same masks.

    Where the file is wholly transparent there is nothing to name: those pixels are unlabelled.

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
    results = segment_together(kind.segmenters, picture)
    scores, boundary_scores = (
        tuple(
            None if truth is None else score(result.mask, truth, len(labels), segmenter.ids)
            for segmenter, result in zip(kind.segmenters, results, strict=True)
        )
        for score in (mean_iou, boundary_f1)
    )
    if nothing is not None:
        masks = [np.where(nothing, np.uint8(UNLABELLED), result.mask) for result in results]
        results = tuple(
            replace(result, mask=mask, shares=shares(mask, labels)) for result, mask in zip(results, masks, strict=True)
        )
    return Comparison(picture, results, truth, scores, boundary_scores)
