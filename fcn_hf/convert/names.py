"""Where a layer of the release, of torchfcn or of a classifier lies in the model: the one place that knows."""

import re
from collections.abc import Iterable

STREAM = r"fcn\.trunk\.(?:(?P<stream>\d+)\.)?(?:stages\.\d+\.|classifier\.)?"
HEAD = r"heads\.(?P<task>\w+)\."
TENSOR = re.compile(rf"(?:{STREAM}|{HEAD})(?P<layer>\w+)\.(?P<rest>.+)")


def published_names(names: Iterable[str]) -> dict[str, str]:
    """The names of a model's tensors by those that they have in the release, such as "conv1_1.weight".

    "fcn.trunk.stages.0.conv1_1.weight" is "conv1_1.weight", and "conv1_1_stream2.weight" if it is the second stream's;
    "heads.semantic.score_fr.bias" is "score_fr.bias", and "score_fr_semantic.bias" if there are several tasks.

    Args:
        names: of all tensors of a model's state dict.
    """
    matches = [match for name in names if (match := TENSOR.fullmatch(name))]
    several_tasks = len({match["task"] for match in matches if match["task"]}) > 1
    published = {}
    for match in matches:
        suffix = f"_{match['task']}" if match["task"] and several_tasks else ""
        if match["stream"] and match["stream"] != "0":
            suffix = f"_stream{int(match['stream']) + 1}"
        published[f"{match['layer']}{suffix}.{match['rest']}"] = match.string
    return published
