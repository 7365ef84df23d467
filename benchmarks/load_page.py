"""Many visitors at once, each with pictures of its own: python benchmarks/load_page.py [--requests 500] [--clients 16]

Starts the page, with the models that it would have anyway (`FCN_MODELS`), and compares the label maps of all networks
with those that are computed here. Prints the page's resident memory after the first tenth of the requests and after the
last one. Exit status 1 if an answer was wrong. Wants a machine that does nothing else.
"""

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from gradio_client import Client, handle_file
from PIL import Image

from space.inference import Segmenter
from space.kinds import load_segmenters, model_ids
from space.pictures import read_picture

ROOT = Path(__file__).resolve().parents[1]
STARTUP_SECONDS = 300


def mixed_pictures(folder: Path, count: int, longest_side: int) -> list[Path]:
    """Picture files of random colours, each of another size from 32 pixels to `longest_side`."""
    paths = []
    for index in range(count):
        random = np.random.default_rng(index)
        width, height = random.integers(32, longest_side, 2, endpoint=True).tolist()
        patches = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        paths.append(folder / f"{index}.png")
        patches.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def local_answers(segmenters: Iterable[Segmenter], path: Path) -> list[str]:
    """The digest of each network's label map of a picture, without the page."""
    return [digest(segmenter.segment(read_picture(path)).mask) for segmenter in segmenters]


def wrong_answers(
    url: str, expected: dict[Path, list[str]], clients: int, answered: Callable[[], object] = lambda: None
) -> list[Path]:
    """Pictures whose label maps aren't those expected, where several clients share the pictures and ask at once.

    Args:
        url: address of the page.
        expected: `local_answers` of each picture.
        answered: called after each answer, from the thread of its client.
    """
    paths = list(expected)

    def ask(share: list[Path]) -> list[Path]:
        wrong = []
        with tempfile.TemporaryDirectory() as folder:
            # Without `ssl_verify`, which would read all certificates for each of the files.
            client = Client(url, verbose=False, download_files=folder, ssl_verify=False)
            for path in share:
                _, label_maps, _ = client.predict(handle_file(path), api_name="/compare")
                got = [digest(np.asarray(Image.open(label_map["image"]))) for label_map in label_maps]
                wrong += [path] * (got != expected[path])
                answered()
        return wrong

    with ThreadPoolExecutor(clients) as pool:
        return [path for wrong in pool.map(ask, [paths[first::clients] for first in range(clients)]) for path in wrong]


def digest(mask: np.ndarray) -> str:
    """What tells label maps apart: (H, W) ids."""
    return hashlib.sha256(repr(mask.shape).encode() + np.ascontiguousarray(mask).tobytes()).hexdigest()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_page(port: int, **environment: str) -> subprocess.Popen:
    """`python app.py` with these variables, once it is served at 127.0.0.1:`port`."""
    environment = {**os.environ, **environment, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5).close()
            return process
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise TimeoutError(f"the page ended, or wasn't served within {STARTUP_SECONDS} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--longest-side", type=int, default=500, help="pixels")
    options = parser.parse_args()
    memory: list[int] = []
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        paths = mixed_pictures(Path(folder), options.requests, options.longest_side)
        segmenters = load_segmenters(next(iter(model_ids().values())))
        expected = {path: local_answers(segmenters, path) for path in paths}
        process = start_page(port)
        try:
            page = psutil.Process(process.pid)
            wrong = wrong_answers(
                f"http://127.0.0.1:{port}", expected, options.clients, lambda: memory.append(page.memory_info().rss)
            )
        finally:
            process.terminate()
            process.wait()
    early = max(1, options.requests // 10)
    for count in (early, options.requests):
        print(f"resident memory after {count} requests: {memory[count - 1] / 1e6:.0f} MB")
    print(f"growth: {memory[-1] / memory[early - 1] - 1:.1%}")
    print(f"answers that were wrong: {len(wrong)} of {len(paths)}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
