"""What several of the tests need."""

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import nn

from fcn_hf.convert.names import published_names


class Pointwise(torch.nn.Module):
    """A net that sees single pixels alone: whatever the window or the mirror, its logits are the same."""

    def __init__(self, output_stride=1):
        super().__init__()
        self.config = SimpleNamespace(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
        self.device = torch.device("cpu")
        self.output_stride = output_stride
        self.sizes = []

    def forward(self, pixel_values):
        self.sizes.append(tuple(pixel_values.shape[-2:]))
        step = self.output_stride
        return SimpleNamespace(logits=pixel_values[..., ::step, ::step] * torch.tensor([1.0, 2, -1])[:, None, None])


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
