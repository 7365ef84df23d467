"""Where networks give different answers and, where the truth is known, which of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from space.pictures import UNLABELLED
from space.texts import ENGLISH, Language


@dataclass(frozen=True)
class Disagreement:
    """A map of groups of pixels, and how large they are.

    Args:
        groups: (H, W) uint8, indices of `names`; `UNLABELLED` where the networks agree, or, where the truth is known,
            where all are right or the truth isn't known after all.
        names: what the pixels of each group have in common. Those of as many networks are the same for every picture.
        shares: of each group in the picture, or in its labelled part where the truth is known; 0..1.
        differing: share of the picture where not all masks are the same, 0..1; None for a single one.
        title: what the map shows.
        agreement: what the other pixels are.
    """

    groups: np.ndarray
    names: tuple[str, ...]
    shares: tuple[float, ...]
    differing: float | None
    title: str
    agreement: str


def disagreement(
    masks: Sequence[np.ndarray],
    networks: Sequence[str],
    truth: np.ndarray | None = None,
    language: Language = ENGLISH,
) -> Disagreement | None:
    """Compare the masks of one picture with each other, and with the truth where it is known.

    Args:
        masks: one per network, class ids of shape (H, W).
        networks: their names.
        truth: class ids of the same shape, `UNLABELLED` where nothing is known.
        language: of names, title and agreement.

    Returns:
        None if there is nothing to compare: one mask and no truth.
    """
    stack = np.stack(masks)
    # In bytes, as a phone's picture has 12 million pixels.
    answers = np.ones(stack.shape[1:], dtype=np.uint8)
    for index in range(1, len(stack)):
        answers += (stack[:index] != stack[index]).all(axis=0)
    if truth is not None:
        # One bit for each network, set where it is right.
        bits = np.arange(len(stack), dtype=np.uint8)[:, None, None]
        groups = ((stack == truth).astype(np.uint8) << bits).sum(axis=0, dtype=np.uint8)
        names = tuple(_right_name(group, networks, language) for group in range(2 ** len(stack) - 1))
        known, title = truth != UNLABELLED, language("who_is_right" if len(stack) > 1 else "where_right")
        agreement = language("all_right" if len(stack) > 1 else "it_is_right")
    elif len(stack) > 1:
        # Where all agree that is -1: beyond the names.
        groups = answers - np.uint8(2)
        names = tuple(language("answers_differ", count=count) for count in range(2, len(stack) + 1))
        known = np.ones_like(answers, dtype=bool)
        title, agreement = language("where_differ"), language("all_agree")
    else:
        return None
    groups = np.where(known & (groups < len(names)), groups, np.uint8(UNLABELLED))
    counts = np.array(Image.fromarray(groups).histogram())[: len(names)]
    return Disagreement(
        groups=groups,
        names=names,
        shares=tuple((counts / max(known.sum(), 1)).tolist()),
        differing=float((answers > 1).mean()) if len(stack) > 1 else None,
        title=title,
        agreement=agreement,
    )


def _right_name(code: int, networks: Sequence[str], language: Language) -> str:
    right = [name for index, name in enumerate(networks) if code >> index & 1]
    if not right:
        return language("none_right" if len(networks) > 1 else "wrong")
    return language("one_right" if len(right) == 1 else "several_right", names=language("and").join(right))
