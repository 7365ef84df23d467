"""The paper's FCN-8s, VGG16 with 134M parameters and the release's 100 px of padding, beside its peers, in one run.

    pip install --no-deps torchfcn && pip install -e ".[onnx,evaluate]"
    python -m benchmarks.exact --json exact.json --plot exact.png

All see one picture of 375x500, with random weights: torchfcn's net in torch and, exported, in ONNX Runtime, and ours as
loaded and after `optimize`. The last rows are of a process that keeps freed memory (`keep_freed_memory`), as commands
do; torchfcn's net gains by it as well. Two bars are quoted: the paper's own times on a Tesla K40c, a GPU of 2013
(arXiv:1411.4038, table 3: 175 ms, and 50 s of SDS, the best method before; later versions have 150 ms and 40 s).
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

from benchmarks.timing import in_onnx_runtime, medians, parser, report, torchfcn_fcn8s
from fcn_hf import FCNConfig, FCNForSemanticSegmentation, optimize
from fcn_hf.memory import keep_freed_memory

PEER = "torchfcn"
QUOTED = {"SDS, as the paper has it": 50_000, "FCN-8s on a K40c, as the paper has it": 175}


@torch.no_grad()
def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=5)
    command_line.add_argument("--size", type=int, nargs=2, default=(375, 500), help="height and width of the picture")
    arguments = command_line.parse_args(given)

    picture = torch.randn(1, 3, *arguments.size)
    peer, loaded = torchfcn_fcn8s(), FCNForSemanticSegmentation(FCNConfig(geometry="caffe")).eval()
    exported = in_onnx_runtime(peer, picture)
    passes = {PEER: lambda: peer(picture), "torchfcn in ONNX Runtime": exported, "as loaded": lambda: loaded(picture)}
    for dtype in (torch.float32, torch.bfloat16):
        net = optimize(deepcopy(loaded), dtype)
        passes[f"optimize, {str(dtype).removeprefix('torch.')}"] = lambda net=net: net(picture)
    rows: dict[str, dict[str, Any]] = {name: {"ms": ms, f"{PEER} / this": None} for name, ms in QUOTED.items()}
    rows |= measure(passes, arguments.repeats)
    keep_freed_memory()
    rows |= {f"{name}, memory kept": row for name, row in measure(passes, arguments.repeats).items()}
    report("net", rows, arguments)


def measure(passes: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each pass, and how many of them torchfcn's takes."""
    seconds = medians(passes, repeats)
    return {
        name: {"ms": round(each * 1000), f"{PEER} / this": round(seconds[PEER] / each, 2)}
        for name, each in seconds.items()
    }


if __name__ == "__main__":
    main()
