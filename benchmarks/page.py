"""What a visitor waits for: the page's start, its masks and its explanations, in a headless Chromium.

    pip install -e ".[test]" && pip install --no-deps torchfcn
    python -m benchmarks.page --json page.json

Each time is that from the visitor's act (a picture chosen, a pixel asked for) until all that answers it is drawn,
upload and download over this machine's own network included. Masks are those of all networks of the kind; 12 megapixels
are seen at `LONGEST_SIDE`, as everywhere on the page. Beside them: one pass of torchfcn's FCN-8s at 375x500.
"""

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
import torch
from PIL import Image

from benchmarks.load_page import free_port, start_page
from benchmarks.timing import medians, parser, report, torchfcn_fcn8s
from space.pictures import EXAMPLES

SIZES = {"480x360": (480, 360), "12 megapixels": (4000, 3000)}
EXPLAINED_SIZE = SIZES["480x360"]
PATIENCE, SETTLING = 60_000, 3000
"""Milliseconds: for an answer, and for what the choice of a kind or a tab asks for by itself."""

DRAWN = """() => {
    const masks = [...document.querySelectorAll('.fcn-panel .fcn-mask')];
    return masks.length > 0 && masks.every(mask => mask.complete && mask.naturalWidth);
}"""
EXPLAINED = """pixel => {
    const pictures = [...document.querySelectorAll('.fcn-why img')];
    return pictures.length > 0 && pictures.every(picture => picture.complete) && pictures[0].alt.includes(pixel);
}"""


def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=5)
    command_line.add_argument("--chromium", default=shutil.which("chromium"), help="the browser; playwright's without")
    arguments = command_line.parse_args(given)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SystemExit("The browser's driver is missing: pip install -e '.[test]'") from error

    peer, pixel_values = torchfcn_fcn8s(), torch.randn(1, 3, 375, 500)
    with torch.inference_mode():
        peer_seconds = medians({"torchfcn": lambda: peer(pixel_values)}, arguments.repeats)["torchfcn"]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        seconds = {"import of gradio, torch and transformers": importing()}
        port, start = free_port(), time.perf_counter()
        process = start_page(port)
        try:
            seconds["start of `python app.py`"] = time.perf_counter() - start
            browser = playwright.chromium.launch(
                executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE)
            seconds |= visit(page, f"http://127.0.0.1:{port}", Path(name), arguments.repeats)
            browser.close()
        finally:
            process.terminate()
            process.wait()
    rows: dict[str, dict[str, Any]] = {
        what: {"ms": round(each * 1000), "torchfcn / this": round(peer_seconds / each, 1)}
        for what, each in {"torchfcn FCN-8s, one pass": peer_seconds, **seconds}.items()
    }
    report("the page", rows, arguments)


def importing() -> float:
    """Seconds of a process that does nothing but import what the page is made with."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio, torch, transformers, torchvision"], check=True)
    return time.perf_counter() - start


def visit(page: Any, url: str, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of each thing that a visitor does: medians of so many times, after one to warm up."""
    start = time.perf_counter()
    page.goto(url)
    page.wait_for_function(DRAWN)
    seconds = {"opening it, to its first masks": time.perf_counter() - start}
    for kind in page.locator("#fcn-kind input").evaluate_all("inputs => inputs.map(input => input.value)"):
        page.locator(f'#fcn-kind input[value="{kind}"]').check()
        page.wait_for_timeout(SETTLING)
        seconds |= visit_kind(page, kind, folder, repeats)
    # Models of one's own are the only kind, which isn't asked for then.
    return seconds if page.locator("#fcn-kind input").count() else seconds | visit_kind(page, "models", folder, repeats)


def visit_kind(page: Any, kind: str, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of each thing that a visitor does with the kind of picture that is chosen."""
    seconds = {}
    for size_name, size in SIZES.items():
        pictures = write_pictures(folder, f"{kind}-{size_name}", size, repeats + 1)
        seconds[f"masks of {kind}, {size_name}"] = median([choose(page, picture) for picture in pictures])
    pictures = write_pictures(folder, f"{kind}-asked", EXPLAINED_SIZE, 1)
    choose(page, pictures[0])
    page.get_by_role("tab", name="Why this pixel?").click()
    page.wait_for_timeout(SETTLING)
    asked = [ask(page, 100 + number) for number in range(repeats + 1)]
    page.get_by_role("tab", name="Compare").click()
    width, height = EXPLAINED_SIZE
    return seconds | {f"a pixel explained by {kind}, {width}x{height}": median(asked)}


def median(seconds: Sequence[float]) -> float:
    """Without the first one, which warms up."""
    return statistics.median(seconds[1:])


def write_pictures(folder: Path, name: str, size: tuple[int, int], count: int) -> list[Path]:
    """So many JPEGs of this size (width, height) that differ: a photograph, shifted."""
    with Image.open(EXAMPLES / "everyday" / "2-cat.jpg") as file:
        photograph = np.asarray(file.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    paths = [folder / f"{name}-{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(photograph, 8 * number, axis=1)).save(path, quality=90)
    return paths


def choose(page: Any, picture: Path) -> float:
    """Seconds from a picture's choice to the masks."""
    page.click('#fcn-picture button[aria-label="Remove Image"]')
    page.wait_for_selector(".fcn-mask", state="detached")
    start = time.perf_counter()
    page.set_input_files("#fcn-picture input[type=file]", picture)
    page.wait_for_function(DRAWN)
    return time.perf_counter() - start


def ask(page: Any, x: int) -> float:
    """Seconds from the question why a pixel is what it is to the answer."""
    field = page.locator("#fcn-x input")
    field.fill(str(x))
    start = time.perf_counter()
    field.press("Enter")
    page.wait_for_function(EXPLAINED, arg=f"x {x}, ")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
