"""Kinds of picture: the networks that know one, side by side, what their classes are, and in which colours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from fcn_hf.palettes import class_colours, distinct_palette
from space.inference import UNLABELLED, ModelError, Segmenter, share_trunks
from space.pictures import EXAMPLES, Examples

MODELS = Path(__file__).parent / "models"
KINDS = {"everyday": "Everyday photos", "street": "Streets", "indoor": "Rooms"}
"""What the page's own models know, by the names of their folders; its first one is shown first."""

MAX_MODELS = 4
"""Panels that still stand side by side on a laptop's screen."""


@dataclass(frozen=True)
class Kind:
    """One kind of picture: the networks that know it, and its examples.

    Args:
        name: as the API takes it.
        title: as the page shows it.
        segmenters: one to `MAX_MODELS` networks whose masks have the same ids (`side_by_side`), from coarse to fine.
        examples: pictures of this kind.
    """

    name: str
    title: str
    segmenters: tuple[Segmenter, ...]
    examples: Examples

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the ids in all masks."""
        return self.segmenters[0].classes

    def palette(self, distinct: bool = False) -> np.ndarray:
        """The colours of the classes, uint8 of shape (classes, 3): the first model's own, if it has them all, or those
        that colour-blind eyes tell apart."""
        return np.array(distinct_palette(len(self.labels)), np.uint8) if distinct else self._colours

    @cached_property
    def _colours(self) -> np.ndarray:
        first = self.segmenters[0]
        return own_colours(first) if first.labels == self.labels else self.palette(distinct=True)


def own_colours(segmenter: Segmenter) -> np.ndarray:
    """The colours that a model brings, uint8 of shape (its own classes, 3).

    Distinct ones where those aren't RGB in 0..255, or classes share one: the browser knows a class by its colour.
    """
    count = len(segmenter.labels)
    try:
        given = list(getattr(segmenter.model.config, "palette", None) or [])[:count]
        colours = class_colours(segmenter.model.config)
    except (TypeError, ValueError, OverflowError):
        given, colours = [], np.empty((0, 3), np.uint8)
    unchanged = [list(colour) for colour in given] == colours[: len(given)].tolist()
    if unchanged and len(np.unique(colours, axis=0)) == count:
        return colours
    return np.array(distinct_palette(count), np.uint8)


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
    for name, sources in ids.items():
        segmenters = load_segmenters(sources)
        examples = page_examples().get(name) or examples_with(segmenters[0].classes)
        kinds.append(Kind(name, KINDS.get(name, "The page’s models"), segmenters, examples))
    return tuple(kinds)


@cache
def page_examples() -> dict[str, Examples]:
    """The page's own examples, by kind."""
    return {name: Examples.from_folder(EXAMPLES / name) for name in KINDS}


def examples_with(labels: tuple[str, ...]) -> Examples:
    """Those of the page's examples whose truth has just these classes; there may be none."""
    return next((examples for examples in page_examples().values() if examples.labels == labels), Examples())


def load_segmenters(ids: Sequence[str]) -> tuple[Segmenter, ...]:
    """Load each model once, to be shown `side_by_side`.

    Raises:
        ModelError: a model is missing, or all of them together have too many classes.
    """
    try:
        segmenters = [Segmenter.from_pretrained(name) for name in ids]
    except ModelError as error:
        raise ModelError(f"{error} (FCN_MODELS takes model folders or Hub ids, separated by commas)") from error
    return side_by_side(segmenters)


def side_by_side(segmenters: Sequence[Segmenter]) -> tuple[Segmenter, ...]:
    """The same networks, with masks that share their ids: of the classes of all of them, in the order in which their
    names first appear. Two that would share a name are told apart by where they came from. Trunks that are the same
    are one from here on (`share_trunks`).

    Raises:
        ModelError: there are more classes than a mask has ids.
    """
    classes = every_class(segmenter.labels for segmenter in segmenters)
    if len(classes) > UNLABELLED:
        names = ", ".join(f"'{segmenter.source}'" for segmenter in segmenters)
        raise ModelError(
            f"the models {names} have {len(classes)} classes together; at most {UNLABELLED} can be drawn, so show "
            "fewer of them at once."
        )
    share_trunks(segmenters)
    return tuple(replace(_distinct(segmenter, segmenters), beside=classes) for segmenter in segmenters)


def every_class(label_sets: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The names of all classes, each once, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for labels in label_sets for name in labels))


def _distinct(segmenter: Segmenter, others: Sequence[Segmenter]) -> Segmenter:
    alike = [_source_tail(other) for other in others if other.name == segmenter.name]
    if len(alike) == 1:
        return segmenter
    tail = _source_tail(segmenter)
    return replace(segmenter, name=f"{segmenter.name} ({tail if alike.count(tail) == 1 else segmenter.source})")


def _source_tail(segmenter: Segmenter) -> str:
    return "/".join(Path(segmenter.source).parts[-2:])
