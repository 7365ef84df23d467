"""Freed memory goes back to the system when it is told to."""

import platform
import subprocess
import sys

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_kept_memory_is_spared_again():
    """In a process of its own, as what is set stays set."""
    code = (
        "import psutil, torch\n"
        "from fcn_hf.memory import keep_freed_memory, spare_memory\n"
        "process = psutil.Process()\n"
        "def left():\n"
        "    before = process.memory_info().rss\n"
        "    torch.ones(2**27, dtype=torch.uint8)\n"
        "    return process.memory_info().rss - before > 2**26\n"
        "keep_freed_memory()\n"
        "kept = left()\n"
        "spare_memory()\n"
        "print(kept, left())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]
