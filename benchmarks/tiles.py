"""`fcn-hf segment --tile` beside one pass over the whole picture: seconds, peak memory, and whether seams are seen.

    pip install -e ".[timm]"
    python -m benchmarks.tiles --json tiles.json

Each command is a process of its own, whose start and search for a margin count. All look at the pictures, an example
photograph laid side by side, at their own size. Of the size that one pass takes (`--whole`) both masks are compared;
the larger one (`--tiled`) goes in tiles alone. Peak memory is that of resident pages, as the system counted it (Unix).
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.timing import parser, report
from fcn_hf import FCNImageProcessor

PHOTOGRAPH = "space/examples/street/street-1.png"


def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=1)
    command_line.add_argument("--model", default="space/models/street/fcn-8s", help="folder of an FCN")
    command_line.add_argument("--whole", type=int, default=2048, help="edge of the picture that both see, in pixels")
    command_line.add_argument("--tiled", type=int, default=8192, help="edge of the picture that is tiled alone")
    arguments = command_line.parse_args(given)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = shutil.copytree(arguments.model, folder / "model")
        processor = FCNImageProcessor.from_pretrained(model)
        processor.do_resize = False
        processor.save_pretrained(model)
        whole, tiled = (write_picture(folder, edge) for edge in (arguments.whole, arguments.tiled))
        runs: dict[str, tuple[Path, list[str]]] = {
            f"one pass, {arguments.whole}x{arguments.whole}": (whole, []),
            f"--tile, {arguments.whole}x{arguments.whole}": (whole, ["--tile"]),
            f"--tile, {arguments.tiled}x{arguments.tiled}": (tiled, ["--tile"]),
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        masks = []
        for _ in range(arguments.repeats):
            for name, (picture, options) in runs.items():
                out = Path(tempfile.mkdtemp(dir=folder))
                measured[name].append(segment(picture, model, out, options))
                if picture == whole:
                    masks.append(np.asarray(Image.open(out / picture.name)))
    unlike = sum(int((mask != masks[0]).sum()) for mask in masks)
    rows: dict[str, dict[str, Any]] = {}
    for name, each in measured.items():
        seconds, megabytes = map(statistics.median, zip(*each, strict=True))
        rows[name] = {"s": round(seconds, 1), "peak MB": round(megabytes), "pixels unlike one pass": None}
    rows[list(rows)[1]]["pixels unlike one pass"] = unlike
    report("fcn-hf segment", rows, arguments)


def write_picture(folder: Path, edge: int) -> Path:
    """A square picture of a photograph side by side, as a PNG."""
    with Image.open(PHOTOGRAPH) as file:
        photograph = np.asarray(file.convert("RGB"))
    times = [-(-edge // length) for length in photograph.shape[:2]]
    path = folder / f"{edge}.png"
    Image.fromarray(np.tile(photograph, (*times, 1))[:edge, :edge]).save(path, compress_level=1)
    return path


def segment(picture: Path, model: Path, out: Path, options: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of `fcn-hf segment`.

    Raises:
        `SystemExit`: if it fails, after it has said why.
    """
    arguments = ["segment", str(picture), "--model", str(model), "--out", str(out), "--device", "cpu", *options]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "fcn_hf.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"fcn-hf segment ended with status {process.returncode}.")
    # Linux counts in kilobytes, macOS in bytes.
    return time.perf_counter() - start, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
