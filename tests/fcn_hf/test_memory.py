"""Freed memory goes back to the system when it is told to."""

import platform

import psutil
import pytest
import torch

from fcn_hf import memory
from fcn_hf.memory import hand_back_freed_memory

BLOCKS, BLOCK_BYTES = 3000, 2**16


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing of this size")
def test_freed_memory_goes_back_though_something_behind_it_lives():
    process = psutil.Process()
    blocks = [torch.ones(BLOCK_BYTES, dtype=torch.uint8) for _ in range(BLOCKS)]
    last = blocks[-1]
    del blocks
    before = process.memory_info().rss
    hand_back_freed_memory()
    assert before - process.memory_info().rss > 0.8 * BLOCKS * BLOCK_BYTES and last.all()


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    hand_back_freed_memory()
    memory.keep_freed_memory()
