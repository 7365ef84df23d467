"""Average the weights of nets that were trained from the same start.

`python training/average.py RUN RUN [RUN ...] --out FOLDER`. The average of nets that one start and different trainings
gave is often better than each of them, at the cost of one ("Model soups", arXiv:2203.05482). Score it before use.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.convert.model_folder import check_destination
from fcn_hf.errors import FCNError
from fcn_hf.prediction import loading, read_net
from training.limits import check_value
from training.model import check_values_alike
from training.results import export_model

# What two nets must have in common beside the shapes of their weights, which don't tell it.
ALIKE = (
    "backbone", "backbone_config", "use_local_response_norm", "geometry", "upsampling", "skip_scales", "tasks",
    "id2label", "id2label_by_task",
)  # fmt: skip
# What configs hold besides the net: where it was read, and by which version.
NOT_THE_NET = ("_name_or_path", "transformers_version")


def average(models: Sequence[FCNForSemanticSegmentation], weights: Sequence[float]) -> FCNForSemanticSegmentation:
    """The first of the models, with the weighted mean of all their parameters and statistics in it.

    Args:
        models: float32, of one architecture and with the same classes.
        weights: one for each model, above 0; divided by their sum.

    Raises:
        `FCNError`: if there aren't as many weights, one isn't above 0, or the models differ in more than their values.
    """
    if len(weights) != len(models) or not all(0 < weight < math.inf for weight in weights):
        raise FCNError(f"The weights are {list(weights)}; expected one above 0 for each of the {len(models)} models.")
    # Of the largest one, as sums of huge weights are infinite.
    parts = [weight / max(weights) for weight in weights]
    shares = [part / math.fsum(parts) for part in parts]
    states = [model.state_dict() for model in models]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    configs = [_config_of_the_net(model) for model in models]
    for model, shape, config in zip(models, shapes, configs, strict=True):
        if shape != shapes[0]:
            odd = next(name for name in {**shapes[0], **shape} if shape.get(name) != shapes[0].get(name))
            raise FCNError(f"{model.name_or_path!r} is another net than {models[0].name_or_path!r}: see {odd!r}.")
        for name in ALIKE:
            if config[name] != configs[0][name]:
                raise FCNError(
                    f"{model.name_or_path!r} is another net than {models[0].name_or_path!r}: it has "
                    f"{name}={config[name]} instead of {configs[0][name]}."
                )
    for name, tensor in states[0].items():
        # Counts of batches, which are whole numbers, stay the first model's; nothing reads them.
        if tensor.is_floating_point():
            tensor.copy_(sum(share * state[name].double() for share, state in zip(shares, states, strict=True)))
    return models[0]


def _config_of_the_net(model: FCNForSemanticSegmentation) -> dict[str, Any]:
    # As plain values, tasks with their order.
    config = model.config.to_dict()
    backbone = config["backbone_config"] or {}
    config["backbone_config"] = {name: value for name, value in backbone.items() if name not in NOT_THE_NET}
    return config


def main(
    runs: Annotated[list[str], typer.Argument(help="Model folders or Hub ids, of the same architecture and classes.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Model folder to be made, with the first one's image processor; it must not exist yet, or be empty."
        ),
    ],
    weight: Annotated[
        list[float] | None, typer.Option(help="Share of each run, in their order; once for each, or equal if left out.")
    ] = None,
    weights_dtype: Annotated[
        str, typer.Option(help="How the folder stores the weights: float32 or float16.")
    ] = "float32",
) -> None:
    """Average the weights of nets that were trained from the same start."""
    check_value("weights_dtype", weights_dtype)
    check_destination(out)
    models, processors = [], []
    for run in runs:
        try:
            with loading(run):
                models.append(read_net(run, FCNForSemanticSegmentation, dtype=torch.float32))
                processors.append(FCNImageProcessor.from_pretrained(run))
        except FCNError as error:
            raise SystemExit(f"No average of {', '.join(runs)}: {error}") from error
    for run, processor in zip(runs, processors, strict=True):
        check_values_alike(run, processor, processors[0])
    export_model(average(models, weight or [1.0] * len(models)), processors[0], out, getattr(torch, weights_dtype))
    print(f"{out} is ready: {' + '.join(runs)}.")


if __name__ == "__main__":
    try:
        typer.run(main)
    except FCNError as error:
        raise SystemExit(str(error)) from error
