"""Where the networks compute: on a GPU where there is one, else on the CPU; ZeroGPU lends one for single requests."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

try:
    # Before anything asks for CUDA: on ZeroGPU this takes its place until a GPU is lent.
    from spaces import GPU
except ImportError:
    GPU = None

import torch

ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")

GPU_SECONDS = 20
"""For which a request asks for a GPU: visitors have minutes a day, and shorter requests are served first."""

_lent: ContextVar[bool] = ContextVar("_lent", default=False)


def device() -> torch.device:
    """Where to compute now. On ZeroGPU that is the CPU, except within a handler that `on_gpu` runs."""
    there = _lent.get() if ZERO_GPU else torch.cuda.is_available()
    return torch.device("cuda" if there else "cpu")


def on_gpu(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, with a GPU lent for each call where this is a Space on ZeroGPU; the handler itself elsewhere.

    There it runs in a process that is forked for it, so its arguments and its result must be picklable; models don't
    travel where `handler` is a method of what holds them.
    """
    if GPU is None or not ZERO_GPU:
        return handler

    @functools.wraps(handler)
    def run(*arguments: Any) -> Any:
        token = _lent.set(True)
        try:
            return handler(*arguments)
        finally:
            _lent.reset(token)

    return GPU(run, duration=GPU_SECONDS)
