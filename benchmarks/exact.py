"""The paper's FCN-8s, VGG16 with 134M parameters and the release's 100 px of padding, beside torchfcn's, in one run.

    pip install --no-deps torchfcn
    python -m benchmarks.exact --json exact.json

All see one picture of 375x500, with random weights. The last rows are of a process that keeps freed memory
(`keep_freed_memory`), as commands do; torchfcn's net gains by it as well.
"""

import argparse
from copy import deepcopy

import torch

from benchmarks.timing import medians, report, torchfcn_fcn8s
from fcn_hf import FCNConfig, FCNForSemanticSegmentation, optimize
from fcn_hf.optimization import keep_freed_memory

PEER = "torchfcn"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds in which each net runs once (default: 5)")
    parser.add_argument("--json", help="also write the figures and the machine to this file")
    arguments = parser.parse_args()

    picture = torch.randn(1, 3, 375, 500)
    nets = {PEER: torchfcn_fcn8s(), "as loaded": FCNForSemanticSegmentation(FCNConfig(geometry="caffe")).eval()}
    for dtype in (torch.float32, torch.bfloat16):
        nets[f"optimize, {str(dtype).removeprefix('torch.')}"] = optimize(deepcopy(nets["as loaded"]), dtype)
    rows = measure(nets, picture, arguments.repeats)
    keep_freed_memory()
    rows |= {f"{name}, memory kept": row for name, row in measure(nets, picture, arguments.repeats).items()}
    report("net", rows, arguments.json)


def measure(nets: dict[str, torch.nn.Module], picture: torch.Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each net's pass, and how many of them torchfcn's takes."""
    seconds = medians({name: lambda net=net: net(picture) for name, net in nets.items()}, repeats)
    return {
        name: {"ms": round(each * 1000), "torchfcn / this": round(seconds[PEER] / each, 2)}
        for name, each in seconds.items()
    }


if __name__ == "__main__":
    main()
