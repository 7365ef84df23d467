"""`kill -9` at any moment leaves nothing half-written, and the same command ends as if nothing had happened."""

import multiprocessing
import os
import random
import shutil
import sys
import time

import numpy as np
import pytest
from PIL import Image

from fcn_hf.files import ASIDE
from tests.fcn_hf.convert.caffe_nets import net_layers, write_caffemodel
from tests.helpers import run, save_tiny

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and killed by a signal")

KILLS = int(os.environ.get("FCN_KILLS", "1"))


def start(*arguments) -> multiprocessing.Process:
    """A command in a process of its own; forked, as most of its time would go into imports otherwise."""
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(run(*arguments).exit_code))
    process.start()
    return process


def finish(*arguments) -> float:
    """Run a command to its end; seconds that it took."""
    begin = time.monotonic()
    process = start(*arguments)
    process.join(timeout=120)
    assert process.exitcode == 0
    return time.monotonic() - begin


def files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(folder, expected, *arguments):
    """Kill a command at random moments; what is there is whole each time, and all is there in the end."""
    seconds = finish(*arguments, expected)
    whole = files(expected)
    for _ in range(KILLS):
        process = start(*arguments, folder)
        time.sleep(random.uniform(0, 1.1 * seconds))
        process.kill()
        process.join()
        made = {name: content for name, content in files(folder).items() if ASIDE not in name}
        assert made.items() <= whole.items()
        if arguments[0] == "convert" and made:
            assert made == whole
            shutil.rmtree(folder)
    finish(*arguments, folder)
    assert files(folder) == whole
    assert not list(folder.parent.rglob(f"{ASIDE}*")), "what the killed ones left aside is removed"


def test_convert(tmp_path):
    write_caffemodel(tmp_path / "a.caffemodel", net_layers("voc-fcn8s"))
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    check(tmp_path / "killed" / "model", tmp_path / "whole" / "model", "convert", tmp_path / "a.caffemodel")


def test_segment(tmp_path):
    save_tiny(tmp_path / "model")
    pictures = [tmp_path / f"{number}.jpg" for number in range(8)]
    for number, path in enumerate(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    arguments = ("segment", *pictures, "--model", tmp_path / "model", "--out")
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    check(tmp_path / "killed" / "out", tmp_path / "whole" / "out", *arguments)
