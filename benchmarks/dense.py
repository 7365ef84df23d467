"""A classifier made convolutional beside the same classifier on sliding crops, for as many answers, in one run.

    pip install -e ".[timm]"
    python -m benchmarks.dense --json dense.json

`convolutionalize` makes a classifier answer everywhere in one pass over the picture. The crops, of the size that the
classifier takes, lie where those answers do, 32 px apart, and go through it in batches. Weights are random. Before
anything is timed, both give one crop the same answer; in the picture, answers differ where padding has a crop see zeros
around it instead of its neighbours.
"""

from collections.abc import Sequence

import timm
import torch

from benchmarks.timing import medians, parser, report
from fcn_hf import convolutionalize
from fcn_hf.memory import keep_freed_memory

STRIDE = 32


@torch.no_grad()
def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=3)
    command_line.add_argument("--classifier", default="tf_efficientnet_lite0", help="timm's name, of stride 32")
    command_line.add_argument("--size", type=int, nargs=2, default=(720, 960), help="height and width of the picture")
    command_line.add_argument("--crop", type=int, default=224, help="height and width that the classifier takes")
    command_line.add_argument("--batch", type=int, default=16, help="crops that go through the classifier together")
    arguments = command_line.parse_args(given)

    keep_freed_memory()
    classifier = timm.create_model(arguments.classifier).eval().to(memory_format=torch.channels_last)
    net = convolutionalize(classifier, arguments.crop).to(memory_format=torch.channels_last)
    picture = torch.randn(1, 3, *arguments.size)
    windows = picture[0].unfold(1, arguments.crop, STRIDE).unfold(2, arguments.crop, STRIDE)
    crops = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)
    torch.testing.assert_close(net(crops[:1])[:, :, 0, 0], classifier(crops[:1]), rtol=1e-4, atol=1e-4)
    height, width = net(picture).shape[-2:]
    assert (height, width) == windows.shape[1:3], f"{arguments.classifier} has another stride than {STRIDE}"

    crop_by_crop = f"{len(crops)} crops, {arguments.batch} at once"
    seconds = medians(
        {
            crop_by_crop: lambda: [classifier(batch) for batch in crops.split(arguments.batch)],
            f"convolutionalized, {height}x{width} answers": lambda: net(picture),
        },
        arguments.repeats,
    )
    rows = {
        name: {"ms": round(each * 1000, 1), "crops / this": round(seconds[crop_by_crop] / each, 1)}
        for name, each in seconds.items()
    }
    report(f"{arguments.classifier}, picture of {arguments.size[0]}x{arguments.size[1]}", rows, arguments)


if __name__ == "__main__":
    main()
