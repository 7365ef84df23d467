"""`kill -9` at any moment leaves nothing half-written, and the same command ends as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from fcn_hf.files import ASIDE
from tests.fcn_hf.convert.caffe_nets import net_layers, write_caffemodel
from tests.helpers import save_tiny

KILLS = int(os.environ.get("FCN_KILLS", "1"))

# A process to be killed says when it has imported all, which takes most of its time, and begins.
SCRIPT = "from fcn_hf.cli import app; import fcn_hf.convert; print('ready', flush=True); app()"


def start(*arguments) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def finish(*arguments) -> float:
    """Run a command to its end; seconds that it took."""
    process = start(*arguments)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
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
        process.send_signal(signal.SIGKILL)
        process.communicate()
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
    pictures = [tmp_path / f"{number}.jpg" for number in range(20)]
    for number, path in enumerate(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    arguments = ("segment", *pictures, "--model", tmp_path / "model", "--out")
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    check(tmp_path / "killed" / "out", tmp_path / "whole" / "out", *arguments)
