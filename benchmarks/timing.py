"""How every benchmark here measures: the nets take turns in one process, and the median of each one's passes counts."""

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils import collect_env


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """What every benchmark's command line takes: rounds, and files for figures and plot."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--repeats", type=int, default=repeats, help=f"rounds in which each runs once ({repeats})")
    result.add_argument("--json", help="also write the figures and the machine to this file")
    result.add_argument("--plot", help="also draw the first column, bars on a logarithmic axis, to this PNG or SVG")
    return result


def medians(passes: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each pass: the median of `repeats` rounds in which each runs once, after one round to warm up.

    Taking turns spreads whatever else the machine does over all of them. A pass ends when a GPU that it uses is done.
    """
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(repeats + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def machine() -> dict[str, Any]:
    """What a figure was measured on; the GPU too, if this process used one."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())
    result = {
        "processor": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": platform.platform(),
    }
    if torch.cuda.is_initialized():
        driver = collect_env.get_nvidia_driver_version(collect_env.run)
        result |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": driver}
    return result


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


def in_onnx_runtime(net: nn.Module, pixel_values: torch.Tensor) -> Callable[[], Any]:
    """A pass of ONNX Runtime, in float32 on as many threads as torch has, of a net's plain export for this one size.

    Raises:
        `SystemExit`: if it isn't installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, which torch.onnx.export needs
    except ImportError as error:
        raise SystemExit("ONNX Runtime is missing: pip install -e '.[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads go on spinning after a pass otherwise, at the cost of whoever's turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/net.onnx"
        torch.onnx.export(net, (pixel_values,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: pixel_values.numpy()}
    return lambda: session.run(None, given)


def report(title: str, rows: Mapping[str, Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    """Print a Markdown table, the first column being the rows' names, and write the files that were asked for.

    Args:
        title: of the first column.
        rows: of all the same columns, numbers first; what has no value is None.
        arguments: as a `parser` reads them.
    """
    columns = list(next(iter(rows.values())))
    print(f"| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join('' if row[column] is None else str(row[column]) for column in columns)} |")
    if arguments.json:
        figures = {"machine": machine(), "rows": rows}
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        draw_bars({name: row[columns[0]] for name, row in rows.items()}, columns[0], arguments.plot)


def draw_bars(values: Mapping[str, float], unit: str, path: str) -> None:
    """A bar for each value, from top to bottom, on a logarithmic axis; needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("A plot needs matplotlib: pip install -e '.[evaluate]'") from error
    figure = Figure(figsize=(9, 1 + 0.35 * len(values)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(values), list(values.values()), color="#2171b5")
    axes.bar_label(bars, [f"{value:,g}" for value in values.values()], padding=3)
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    found = machine()
    device = "{gpu}, CUDA {cuda}" if "gpu" in found else "{processor}, {threads} threads"
    figure.suptitle(f"{device}, torch {{torch}}".format_map(found), fontsize=9)
    figure.savefig(path, dpi=150)
