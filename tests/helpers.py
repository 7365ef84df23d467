"""What tests of several rooms share."""

from collections.abc import Iterator

import torch
from torch import nn

from fcn_hf.convert.names import published_names


def published_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state dict under the names of the release, such as "conv1_1.weight"."""
    state = model.state_dict()
    return {name: state[place] for name, place in published_names(state).items()}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """A model's layers by the names of the paper, such as "fc6"; those of the first stream and task."""
    return dict(reversed(list(_named_leaves(model))))


def _named_leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        yield name.rpartition(".")[2], module
