"""FCN-8s on a GPU beside torchvision's FCN on ResNet-50, in one run: pictures of 500x500, one at a time and in batches.

    pip install -e ".[timm,evaluate]"
    python -m benchmarks.gpu --json gpu.json --plot gpu.png

All nets lie in memory channels last, ours after `optimize`, and have random weights but for the embedded one. Nets of
the same dtype and batch take turns, eager ones and then those that `torch.compile` made for this one size, each of them
until the GPU is done; pictures are there already. In float32 convolutions round to TF32, as torch has it by default.
Two bars are quoted: the paper's own times on a Tesla K40c, a GPU of 2013 (arXiv:1411.4038: 210 ms for FCN-32s on VGG16
at 500x500 in table 1, 175 ms for FCN-8s in table 3; later versions of it have 150 ms).
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torchvision.models.segmentation import fcn_resnet50

from benchmarks.timing import medians, parser, report
from fcn_hf import FCNConfig, FCNForSemanticSegmentation, optimize

PEER = "fcn_resnet50"
QUOTED = {"FCN-32s on a K40c, as the paper has it": 210, "FCN-8s on a K40c, as the paper has it": 175}
EMBEDDED = "space/models/everyday/fcn-8s"


@torch.no_grad()
def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=20)
    command_line.add_argument("--device", default="cuda", help="as torch names it; cpu tries the command out")
    command_line.add_argument("--size", type=int, default=500, help="height and width of the pictures")
    command_line.add_argument("--batch", type=int, nargs="+", default=(1, 16), help="how many pictures at once")
    arguments = command_line.parse_args(given)
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --device cpu --size 64 --batch 1 --repeats 1 tries the command out.")

    loaded = load_nets()
    rows: dict[str, dict[str, Any]] = {name: figures(ms / 1000, 1, None) for name, ms in QUOTED.items()}
    rows |= measure(loaded, torch.float32, 1, False, arguments)
    for batch in arguments.batch:
        for compiled in (False, True):
            rows |= measure(loaded, torch.bfloat16, batch, compiled, arguments)
    report("net", rows, arguments)


def load_nets() -> dict[str, Any]:
    """The nets to be compared, in float32 on the CPU; the embedded one only where its weights are."""
    nets: dict[str, Any] = {
        PEER: fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=None),
        "FCN-8s as published": FCNForSemanticSegmentation(FCNConfig(num_labels=21, geometry="caffe")),
        "FCN-8s, geometry same": FCNForSemanticSegmentation(FCNConfig(num_labels=21)),
    }
    if (Path(EMBEDDED) / "model.safetensors").is_file():
        nets["embedded FCN-8s"] = FCNForSemanticSegmentation.from_pretrained(EMBEDDED)
    else:
        print(f"The embedded FCN-8s is left out: {EMBEDDED} isn't here.")
    return nets


def measure(
    loaded: dict[str, Any], dtype: torch.dtype, batch: int, compiled: bool, arguments: Any
) -> dict[str, dict[str, Any]]:
    """The row of each net for one dtype and batch, eager or compiled."""
    start, device = time.perf_counter(), arguments.device
    pixel_values = torch.randn(batch, 3, arguments.size, arguments.size, device=device, dtype=dtype)
    pixel_values = pixel_values.to(memory_format=torch.channels_last)
    passes = {}
    # Of nets that share their code torch compiles a few, and runs further ones eagerly in silence.
    torch.compiler.reset()
    for name, net in loaded.items():
        net = prepared(deepcopy(net).to(device), dtype)
        if compiled:
            net = torch.compile(net, dynamic=False)
        passes[name] = lambda net=net: net(pixel_values)
    seconds = medians(passes, arguments.repeats)
    way = f"{str(dtype).removeprefix('torch.')}, batch {batch}, {'compiled' if compiled else 'eager'}"
    print(f"{way}: {time.perf_counter() - start:.0f} s")
    return {f"{name}, {way}": figures(each, batch, seconds[PEER]) for name, each in seconds.items()}


def prepared(net: Any, dtype: torch.dtype) -> Any:
    """A net made ready for inference in a dtype: ours by `optimize`, which is for models of transformers."""
    if isinstance(net, FCNForSemanticSegmentation):
        return optimize(net, dtype)
    return net.eval().to(dtype=dtype, memory_format=torch.channels_last)


def figures(seconds: float, batch: int, peer: float | None) -> dict[str, Any]:
    """What a row says of the seconds of a pass, and of those of the peer's with as many pictures."""
    return {
        "images/s": round(batch / seconds, 1),
        "ms an image": round(1000 * seconds / batch, 2),
        f"{PEER} / this": None if peer is None else round(peer / seconds, 2),
    }


if __name__ == "__main__":
    main()
