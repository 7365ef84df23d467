"""Where networks give different answers and, where the truth is known, which of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from space.pictures import UNLABELLED


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
    masks: Sequence[np.ndarray], networks: Sequence[str], truth: np.ndarray | None = None
) -> Disagreement | None:
    """Compare the masks of one picture with each other, and with the truth where it is known.

    Args:
        masks: one per network, class ids of shape (H, W).
        networks: their names.
        truth: class ids of the same shape, `UNLABELLED` where nothing is known.

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
        names = tuple(_right_name(group, networks) for group in range(2 ** len(stack) - 1))
        known, title = truth != UNLABELLED, "Who is right" if len(stack) > 1 else "Where it is right"
        agreement = f"{'all are right' if len(stack) > 1 else 'right'}, or unlabelled"
    elif len(stack) > 1:
        # Where all agree that is -1: beyond the names.
        groups = answers - np.uint8(2)
        names = tuple(f"{count} different answers" for count in range(2, len(stack) + 1))
        known, title, agreement = np.ones_like(answers, dtype=bool), "Where they disagree", "all agree"
    else:
        return None
    groups = np.where(known & (groups < len(names)), groups, np.uint8(UNLABELLED))
    counts = np.bincount(groups.ravel(), minlength=256)[: len(names)]
    return Disagreement(
        groups=groups,
        names=names,
        shares=tuple((counts / max(known.sum(), 1)).tolist()),
        differing=float((answers > 1).mean()) if len(stack) > 1 else None,
        title=title,
        agreement=agreement,
    )


def _right_name(code: int, networks: Sequence[str]) -> str:
    right = [name for index, name in enumerate(networks) if code >> index & 1]
    if not right:
        return "none is right" if len(networks) > 1 else "wrong"
    return f"only {' and '.join(right)} {'is' if len(right) == 1 else 'are'} right"
