"""A classifier's fully connected layers read as convolutions: one answer becomes a map of answers.

A fully connected layer is a convolution whose kernel covers its whole input, so a classifier that ends in Linear layers
can answer at every place of a larger picture, for far less work than classifying every window of it (Fully
Convolutional Networks, CVPR = arXiv:1411.4038, section 3.1). VGG16's fc6, 7 * 7 * 512 -> 4096, becomes a convolution
of 512 -> 4096 channels whose 7x7 kernels hold the same numbers.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from ..torch_calls import Observer
from .vectors_as_maps import Conversion, Refusal


class FullyConvolutional(nn.Module):
    """What `convolutionalize` returns: the classifier's own modules, under their own names, Linear layers converted.

    `net.input_size` is the classifier's (height, width), the smallest picture that has an answer.
    """

    def __init__(self, classifier: nn.Module, graph: fx.Graph, input_size: tuple[int, int]):
        super().__init__()
        # Children, parameters, buffers, mode: `net.classifier[0]` and the keys of the state dict stay as they were,
        # also after a deepcopy, which a torch.fx.GraphModule answers with bare modules in place of Sequential.
        vars(self).update(vars(classifier))
        self.input_size = input_size
        self._graph = graph

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(B, C, H, W)`): pictures normalised as for the classifier, in the
                dtype of its weights, H and W at least those of `input_size`.

        Returns:
            `torch.Tensor` of shape `(B, num_classes, h, w)` in the same dtype; h = w = 1 at `input_size`.

        Raises:
            `ValueError`: if `pixel_values` isn't four-dimensional or is smaller than `input_size`.
        """
        height, width = self.input_size
        if pixel_values.ndim != 4 or pixel_values.shape[-2] < height or pixel_values.shape[-1] < width:
            raise ValueError(
                f"pixel_values have shape {tuple(pixel_values.shape)}; expected (batch, channels, height, width) with "
                f"at least {height}x{width} pixels, the classifier's own size. Enlarge the picture, or convert the "
                "classifier at a smaller input_size."
            )
        interpreter = fx.Interpreter(self, graph=self._graph)
        interpreter.extra_traceback = False
        return interpreter.run(pixel_values)


class _Tracer(fx.Tracer):
    """Keeps as modules the layers of torch.nn, the kinds of them that a library may have, and stochastic depth.

    They then ask for their own mode, and may look at sizes, which timm's Conv2dSame does to pad its input.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        homes = {base.__module__ for base in type(m).__mro__} - {nn.Module.__module__, nn.Sequential.__module__}
        return isinstance(m, StochasticDepth) or any(home.startswith("torch.nn.") for home in homes)


def convolutionalize(classifier: nn.Module, input_size: int | tuple[int, int]) -> FullyConvolutional:
    """Turn a classifier into a fully convolutional net: at `input_size` the same logits, on more pixels a map of them.

    The classifier ends in (pooling,) flattening and Linear layers, like torchvision's AlexNet, VGG, ResNet, GoogLeNet,
    DenseNet, MobileNetV2 or ConvNeXt. The first Linear after the flattening of a C x h x w map becomes an h x w
    convolution, later ones become 1x1 convolutions, BatchNorm1d becomes BatchNorm2d, and a global average pooling
    becomes an average pooling of the size that it has at `input_size`, with stride 1 (arXiv:1411.4038, section 3.1).
    So `convolutionalize(vgg16(), 224).classifier[0]` is `Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1))`.

    Position (y, x) of the map is the classifier's answer to the window of `input_size` that starts at pixel
    (stride * y, stride * x), the stride being that of the classifier's last feature map, 32 for most. It is exact
    where nothing is padded; with padding, a window sees its neighbours where the classifier saw zeros. A layer that
    pads by the size of its input, as those of timm's tf_* nets do, keeps the padding that it has at `input_size`.

    Args:
        classifier (`nn.Module`): maps `(B, C, H, W)` to logits `(B, num_classes)`. It is deep-copied and left as it is;
            the copy keeps names of modules and parameters, values, dtype, device, `requires_grad` and mode. Children
            that take no part in evaluation, such as auxiliary heads, are dropped, and what the classifier's own code
            (not a module) does in training only, such as `F.dropout(x, training=self.training)`, stays off.
        input_size (`int` or `tuple[int, int]`): the classifier's own size in pixels, (height, width) or one number for
            both, from 1; the size that it was trained for, 224 for most.

    Returns:
        `FullyConvolutional`: an `nn.Module` that maps `(B, C, H, W)`, H and W at least `input_size`, to
        `(B, num_classes, h, w)`; h = w = 1 at `input_size`.

    Raises:
        `ValueError`: if `input_size` isn't one or two positive integers; if the classifier doesn't take pictures of
            that size, doesn't answer with `(B, num_classes)`, or decides in its forward by values or sizes; if a part
            of it has a fixed spatial size or looks at the whole picture (attention, squeeze-and-excitation, GroupNorm,
            positional embeddings) or isn't known. The message names the module.
    """
    size: Any = tuple(input_size) if isinstance(input_size, Iterable) else (input_size, input_size)
    if len(size) != 2 or not all(type(length) is int and length > 0 for length in size):
        raise ValueError(
            f"input_size is {input_size!r}; expected the classifier's own size in pixels as one positive integer or "
            "(height, width), such as 224."
        )
    classifier = copy.deepcopy(classifier)
    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    tracer = _Tracer()
    try:
        graph = tracer.trace(classifier)
    except Exception as error:
        # The modules being traced when it failed, innermost last.
        stack = list(tracer.module_stack.values())
        where = f"{stack[-1][0]!r} ({stack[-1][1].__name__})" if stack else type(classifier).__name__
        raise ValueError(
            f"convolutionalize can't trace the forward of {where}: {error}. torch.fx follows a forward without "
            "numbers, so an if, a loop or an int() on values or sizes of tensors has to go."
        ) from error
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1:
        raise ValueError(
            f"{type(classifier).__name__}.forward takes {placeholders}; expected the pictures alone. Wrap it in a "
            "module whose forward does."
        )

    modules = [classifier.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"]
    channels = next((module.in_channels for module in modules if isinstance(module, nn.Conv2d)), 3)
    parameter = next(classifier.parameters(), torch.empty(0))
    conversion = Conversion(classifier, graph, size)
    try:
        with torch.no_grad(), Observer(conversion.see):
            # Two pictures tell the batch from a dimension of size 1.
            conversion.run(torch.zeros(2, channels, *size, dtype=parameter.dtype, device=parameter.device))
    except Refusal:
        raise
    except Exception as error:
        raise ValueError(
            f"{type(classifier).__name__} doesn't take pictures of {channels}x{size[0]}x{size[1]}: {error}. Set "
            "input_size to the size that it was trained for."
        ) from error
    for module, training in modes.items():
        module.training = training
    conversion.finish()
    return FullyConvolutional(classifier, graph, size)


__all__ = ["FullyConvolutional", "convolutionalize"]
