"""The embedded models' time for a picture beside torchfcn's FCN-8s, in one run.

    pip install --no-deps torchfcn
    python -m benchmarks.embedded --json embedded.json

Each net sees one picture of 360x480 as it is, torchfcn's one of 375x500. The page's: from a picture of 360x480 to the
label maps of all networks of a kind. The process keeps freed memory, from which all of them gain.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from benchmarks.timing import medians, parser, report, torchfcn_fcn8s
from fcn_hf.memory import keep_freed_memory
from fcn_hf.prediction import load_model
from space.inference import segment_together
from space.kinds import load_kinds, model_ids

PEER = "torchfcn FCN-8s, 375x500"


@torch.inference_mode()
def main(given: Sequence[str] | None = None) -> None:
    arguments = parser(__doc__, repeats=9).parse_args(given)

    keep_freed_memory()
    peer, large = torchfcn_fcn8s(), torch.randn(1, 3, 375, 500)
    small = torch.randn(1, 3, 360, 480)
    passes = {PEER: lambda: peer(large)}
    for kind, folders in model_ids({}).items():
        for folder in folders:
            model, _ = load_model(folder)
            passes[f"{kind} FCN-{model.config.prediction_stride}s, 360x480"] = lambda model=model: model(small)
    picture = Image.new("RGB", (480, 360))
    for kind in load_kinds(model_ids({})):
        once = [replace(segmenter, passes=1) for segmenter in kind.segmenters]
        passes[f"the page's {len(once)} of {kind.name}"] = lambda once=once: segment_together(once, picture)
    seconds = medians(passes, arguments.repeats)
    rows = {
        name: {"ms": round(each * 1000), "torchfcn / this": round(seconds[PEER] / each, 1)}
        for name, each in seconds.items()
    }
    report("net", rows, arguments)


if __name__ == "__main__":
    main()
