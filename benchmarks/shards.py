"""`fcn-hf segment --dataset` past one machine: rows a second and memory with one and with two workers of Ray.

    pip install -e ".[ray,timm]"
    python -m benchmarks.shards --json shards.json

Machines are simulated by Ray's own cluster for tests: each is a node of its own with one core, and so holds one worker
with one thread. Beside them stands the same command without `--engine`, with one thread. Rows are the example streets,
480x360, shifted by a few pixels so that none is like another. The rate is that between the first shards (one a worker)
and the last: what starting costs is a column of its own, and vanishes with many rows.
"""

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
from PIL import Image

from benchmarks.timing import parser, report

PICTURES = Path("space/examples/street")
SHARD_ROWS = 8


def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=1)
    command_line.add_argument("--model", default="space/models/street/fcn-8s", help="folder of an FCN")
    command_line.add_argument("--rows", type=int, default=160, help="of the dataset (160)")
    command_line.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2], help="how many there are; 0 is without Ray (0 1 2)"
    )
    arguments = command_line.parse_args(given)

    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "streets", arguments.rows)
        command = [sys.executable, "-m", "fcn_hf.cli", "segment", "--dataset", str(folder / "streets")]
        command += ["--split", "train", "--model", arguments.model, "--device", "cpu", "--shard-rows", str(SHARD_ROWS)]
        for workers in arguments.workers:
            out = folder / str(workers)
            if not workers:
                rows["no engine, 1 thread"] = measure(command, out, 1, {"OMP_NUM_THREADS": "1"})
                continue
            with machines(workers) as address:
                row = measure([*command, "--engine", "ray"], out, workers, {"RAY_ADDRESS": address})
            rows[f"Ray, machines with one core: {workers}"] = row
    report("fcn-hf segment --dataset", rows, arguments)


def write_dataset(folder: Path, count: int) -> None:
    """A split "train" of so many pictures, as a Hub dataset folder."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PICTURES.glob("street-?.png"))]

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(count):
            png = io.BytesIO()
            shift = number // len(pictures)
            Image.fromarray(np.roll(pictures[number % len(pictures)], shift, axis=1)).save(png, "png", compress_level=1)
            yield {"image": {"bytes": png.getvalue(), "path": None}}

    features = datasets.Features({"image": datasets.Image()})
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(list(rows()), features).to_parquet(folder / "data" / "train-0.parquet")


@contextmanager
def machines(count: int) -> Iterator[str]:
    """The address of a Ray cluster of so many simulated machines with one core each."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise SystemExit("Ray is missing: pip install -e '.[ray]'") from error
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def measure(command: list[str], out: Path, workers: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """One run of the command with `--out`.

    Raises:
        `SystemExit`: if it fails, after it has said why.
    """
    start = time.time()
    process = subprocess.Popen([*command, "--out", str(out)], env=os.environ | environment, stdout=subprocess.DEVNULL)
    megabytes: list[int] = []
    watching = threading.Thread(target=watch, args=(process, "RAY_ADDRESS" in environment, megabytes))
    watching.start()
    status = process.wait()
    watching.join()
    if status:
        raise SystemExit(f"fcn-hf segment ended with status {status}.")
    done = sorted(path.stat().st_mtime for path in out.glob("rows-*.parquet"))
    if len(done) <= workers:
        raise SystemExit(f"{len(done)} shards are too few for {workers} workers: ask for more --rows.")
    rate = (len(done) - workers) * SHARD_ROWS / (done[-1] - done[workers - 1])
    return {"rows/s": round(rate, 1), "s to the first shard": round(done[0] - start, 1), "MB a worker": max(megabytes)}


def watch(process: subprocess.Popen, on_ray: bool, megabytes: list[int]) -> None:
    """Append the resident megabytes of every worker, again and again until the process ends.

    A worker of Ray takes the name of what it does; without an engine the process itself is the worker.
    """
    while process.poll() is None:
        for each in psutil.process_iter(["cmdline", "memory_info"]):
            named = " ".join(each.info["cmdline"] or [])
            if each.info["memory_info"] and (named.startswith("ray::Map") if on_ray else each.pid == process.pid):
                megabytes.append(round(each.info["memory_info"].rss / 1e6))
        time.sleep(0.2)


if __name__ == "__main__":
    main()
