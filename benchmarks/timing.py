"""How every benchmark here measures: the nets take turns in one process, and the median of each one's passes counts."""

import importlib.util
import json
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn


def medians(passes: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each pass: the median of `repeats` rounds in which each runs once, after one round to warm up.

    Taking turns spreads whatever else the machine does over all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(repeats + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())
    return {
        "processor": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": platform.platform(),
    }


def torchfcn_fcn8s(num_labels: int = 21) -> nn.Module:
    """The FCN-8s of torchfcn (wkentaro/pytorch-fcn) itself, with random weights, in evaluation mode.

    Only its models are imported: the rest of the package wants plotting and a download helper of its own.

    Raises:
        `SystemExit`: if it isn't installed.
    """
    found = importlib.util.find_spec("torchfcn")
    if found is None or found.submodule_search_locations is None:
        raise SystemExit("The peer is missing: pip install --no-deps torchfcn")
    package = types.ModuleType("torchfcn")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules |= {"torchfcn": package, "fcn": types.ModuleType("fcn")}
    from torchfcn.models import FCN8s

    return FCN8s(n_class=num_labels).eval()


def report(title: str, rows: Mapping[str, Mapping[str, Any]], json_file: str | None) -> None:
    """Print a Markdown table, the first column being the rows' names; write it with the machine as JSON if asked."""
    columns = list(next(iter(rows.values())))
    print(f"| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(str(row[column]) for column in columns)} |")
    if json_file:
        Path(json_file).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
