"""What several of the tests need."""

from types import SimpleNamespace

import torch


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
