"""A classifier's layers as CPUs run them fastest: for inference alone, and with the same answers."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .trunks_fcn import FCNStages, FCNTrunk


def pack_convolutions(trunk: FCNTrunk) -> None:
    """Put a `PackedConvolution` into the place of each convolution of a trunk that a ReLU follows, and of the ReLU."""
    stages: Any = trunk.stages
    trunk.stages = FCNStages(packed(stage) for stage in stages)
    trunk.classifier = packed(trunk.classifier)


def packed(layers: nn.Sequential) -> nn.Sequential:
    """The layers, those convolutions among them that a ReLU follows as `PackedConvolution`."""
    result: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in layers.named_children():
        before = next(reversed(result), "")
        if type(layer) is nn.ReLU and type(result.get(before)) is nn.Conv2d:
            result[before] = PackedConvolution(result[before])
        elif list(layer.children()) or type(layer) is not nn.Sequential:  # an empty one is folded batch normalisation
            result[name] = layer
    return type(layers)(result).train(layers.training)


OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")


class PackedConvolution(nn.Conv2d):
    """A convolution and the ReLU behind it.

    On CPUs with AVX it keeps a copy of its weights in the order in which oneDNN reads them, which otherwise makes one
    with every picture. Weights that are larger than what they are multiplied with, as those of fc6 and fc7 mostly are,
    aren't copied: there the convolution is one product of matrices. Gradients and graphs see an ordinary convolution.

    Args:
        convolution (`nn.Conv2d`): whose weights it takes over.
    """

    def __init__(self, convolution: Any):
        # Named ones, as a convolution's own `__init__` has them.
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        super().__init__(**{name: getattr(convolution, name) for name in names}, bias=False, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias
        self.copies: dict[torch.dtype, torch.Tensor] = {}

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`, nowhere negative."""
        return self.padded(hidden_state, self.padding)

    def padded(self, hidden_state: torch.Tensor, padding: Any) -> torch.Tensor:
        """As `forward`, with another padding than its own: pairs of rows and columns."""
        if is_watched(hidden_state):
            return F.relu(self.convolved(hidden_state, padding))
        if self.is_product(hidden_state, padding):
            return self.product(hidden_state, padding).relu_()
        if not is_packable(hidden_state, self.weight):
            return self.convolved(hidden_state, padding).relu_()
        window = (self.stride, self.dilation, self.groups)
        copy = self.copies.get(hidden_state.dtype)
        if copy is None:
            copy = torch.ops.mkldnn._reorder_convolution_weight(self.weight, padding, *window, hidden_state.shape)
            self.copies[hidden_state.dtype] = copy
        hidden_state = hidden_state.contiguous(memory_format=torch.channels_last)
        # oneDNN could apply the ReLU as well, but it takes NaN for 0.
        return torch.ops.mkldnn._convolution_pointwise(
            hidden_state, copy, self.bias, padding, *window, "none", [], ""
        ).relu_()

    def convolved(self, hidden_state: torch.Tensor, padding: Any) -> torch.Tensor:
        return F.conv2d(hidden_state, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def is_product(self, hidden_state: torch.Tensor, padding: Any) -> bool:
        """Whether a product of matrices is worth it: weights larger than the windows that they are multiplied with."""
        if hidden_state.device.type != "cpu" or self.groups > 1 or {*self.stride, *self.dilation} != {1}:
            return False
        batch, _, *size = hidden_state.shape
        height, width = (
            edge + 2 * pad - kernel + 1 for edge, pad, kernel in zip(size, padding, self.kernel_size, strict=True)
        )
        return batch * height * width < self.out_channels

    def product(self, hidden_state: torch.Tensor, padding: Any) -> torch.Tensor:
        height, width = self.kernel_size
        rows, columns = padding
        positions = F.pad(hidden_state, (columns, columns, rows, rows)).permute(0, 2, 3, 1)
        windows = positions.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
        return F.linear(windows, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        # What oneDNN has laid out can be neither copied nor stored.
        return {**self.__dict__, "copies": {}}


def is_watched(tensor: torch.Tensor) -> bool:
    """Whether somebody follows what is done with a tensor, for gradients or for a graph."""
    return tensor.requires_grad or torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_packable(tensor: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN has its own order for weights on this machine, in the dtype that both have.

    torch's operators for it have no public name, so another version may lack them.
    """
    if not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    on_cpu = tensor.device.type == weight.device.type == "cpu" and tensor.dtype == weight.dtype
    if not (on_cpu and torch.backends.mkldnn.is_available()):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    half = tensor.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or tensor.dtype == torch.float32
