"""A classifier's fully connected layers read as convolutions: one answer becomes a map of answers.

A fully connected layer is a convolution whose kernel covers its whole input, so a classifier that ends in Linear layers
can answer at every place of a larger picture, for far less work than classifying every window of it (Fully
Convolutional Networks, CVPR = arXiv:1411.4038, section 3.1). VGG16's fc6, 7 * 7 * 512 -> 4096, becomes a convolution
of 512 -> 4096 channels whose 7x7 kernels hold the same numbers.
"""

import copy
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth, stochastic_depth

# Each number of the answer depends on the same number of the inputs, so shape and place don't matter.
ELEMENTWISE: set[Any] = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Identity, nn.Dropout, StochasticDepth),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.hardsigmoid, F.hardtanh),
    *(F.sigmoid, F.tanh, F.dropout, torch.relu, torch.sigmoid, torch.tanh, torch.clamp, stochastic_depth),
    *(operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv),
    *(torch.add, torch.sub, torch.mul, torch.div),
    *("relu", "relu_", "sigmoid", "tanh", "clamp", "add", "add_", "sub", "mul", "mul_", "div", "contiguous"),
}
# Each position of the answer depends on a window around it, or on itself alone.
WINDOWED: set[Any] = {
    *(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.LocalResponseNorm, nn.PReLU),
    *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Dropout2d, nn.ChannelShuffle),
    *(F.conv2d, F.max_pool2d, F.avg_pool2d, F.pad, F.local_response_norm, torch.conv2d),
}
ADAPTIVE_POOLS: dict[Any, Any] = {
    nn.AdaptiveAvgPool2d: nn.AvgPool2d,
    nn.AdaptiveMaxPool2d: nn.MaxPool2d,
    F.adaptive_avg_pool2d: F.avg_pool2d,
    F.adaptive_max_pool2d: F.max_pool2d,
}
RESHAPES: set[Any] = {
    nn.Flatten,
    *(torch.flatten, torch.reshape, torch.squeeze, "flatten", "reshape", "view", "squeeze"),
}
MEANS: set[Any] = {torch.mean, "mean"}
SOFTMAXES: set[Any] = {
    *(nn.Softmax, nn.LogSoftmax, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax"),
}
CONCATENATIONS: set[Any] = {torch.cat, torch.concat}
PERMUTATIONS: set[Any] = {torch.permute, "permute"}
LAYER_NORMS: set[Any] = {nn.LayerNorm, F.layer_norm}
WHOLE_PICTURE: set[Any] = {
    *(nn.GroupNorm, nn.InstanceNorm2d, nn.MultiheadAttention, nn.TransformerEncoderLayer),
    *(F.group_norm, F.instance_norm, F.scaled_dot_product_attention),
}


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


@dataclass(frozen=True)
class Features:
    """What a value of the classifier's forward means.

    Args:
        axes (`str`): "BCHW" or a permutation or part of it for a map; "flat" for a flattened map, `(B, C * h * w)`.
        size (`tuple[int, int]`): height and width of the map, or of the map that was flattened, at `input_size`.
        pool (`str`, *optional*): the adaptive pooling it comes from.
    """

    axes: str
    size: tuple[int, int]
    pool: str | None = None


class _Tracer(fx.Tracer):
    """Keeps stochastic depth, which is a module and asks for its mode, as a module."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, StochasticDepth) or super().is_leaf_module(m, module_qualified_name)


class _ShapeRecorder(fx.Interpreter):
    """Notes the shape of every value; None for what isn't a tensor."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        return result


def _uniform_windows(size: int, outputs: int) -> tuple[int, int] | None:
    """(kernel, stride) of the pooling which adaptive pooling of `size` positions to `outputs` amounts to, if any."""
    starts = [index * size // outputs for index in range(outputs)]
    ends = [-(-(index + 1) * size // outputs) for index in range(outputs)]
    kernels = {end - start for start, end in zip(starts, ends, strict=True)}
    strides = {after - before for before, after in zip(starts, starts[1:], strict=False)} or {1}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 and 0 not in strides else None


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


class _Conversion:
    """One walk along the classifier's forward, from pixels to logits, which reads every vector as a map."""

    def __init__(self, classifier: nn.Module, graph: fx.Graph, input_size: tuple[int, int]):
        self.classifier = classifier
        self.graph = graph
        self.input_size = input_size
        self.features: dict[fx.Node, Features] = {}
        self.sizes: set[fx.Node] = set()
        self.replacements: dict[nn.Module, nn.Module] = {}
        self.skipped: list[fx.Node] = []

    def operation(self, node: fx.Node) -> Any:
        """The type of a module, a function, or the name of a method."""
        return type(self.classifier.get_submodule(str(node.target))) if node.op == "call_module" else node.target

    def name(self, node: fx.Node) -> str:
        """How errors name an operation: by its module's qualified name, or by the module whose forward calls it."""
        if node.op == "call_module":
            return f"{node.target!r} ({self.operation(node).__name__})"
        name = getattr(node.target, "__name__", node.target)
        modules = list(node.meta.get("nn_module_stack", {}).values())
        return f"'{name}' in the forward of " + (
            f"{modules[-1][0]!r} ({modules[-1][1].__name__})" if modules else type(self.classifier).__name__
        )

    def refuse(self, node: fx.Node, reason: str) -> NoReturn:
        raise ValueError(f"convolutionalize can't convert {self.name(node)}: {reason}")

    def walk(self) -> None:
        """Convert graph and modules in place, or raise."""
        for node in list(self.graph.nodes):
            sources = [self.features[source] for source in node.all_input_nodes if source in self.features]
            if node.op == "placeholder":
                self.features[node] = Features("BCHW", self.input_size)
            elif node.op == "output":
                (answer,) = node.args
                meaning = self.features.get(answer) if isinstance(answer, fx.Node) else None
                if meaning is None or meaning.axes != "flat" or meaning.size != (1, 1):
                    raise ValueError(
                        "convolutionalize expects a classifier that answers with a tensor of shape (batch, classes); "
                        f"{type(self.classifier).__name__} at {self.input_size} answers with "
                        f"{node.meta['shape'] or 'something else'}."
                    )
            elif not sources:
                if not self.sizes.isdisjoint(node.all_input_nodes):
                    if node.target is torch._assert:
                        self.refuse(node, "it checks the size of the picture or of a map; a larger picture would fail.")
                    self.sizes.add(node)
            elif node.meta["shape"] is None and node.target in ("size", "dim", getattr):
                self.sizes.add(node)
            else:
                self.features[node] = self.convert(node, sources)
        self.finish()

    def finish(self) -> None:
        """Put the converted modules in place and drop what the graph no longer needs."""
        for node in self.skipped:
            node.replace_all_uses_with(node.all_input_nodes[0])
            self.graph.erase_node(node)
        for path, module in list(self.classifier.named_modules(remove_duplicate=False)):
            if module in self.replacements:
                self.classifier.set_submodule(path, self.replacements[module].train(module.training))
        used = {str(node.target).split(".")[0] for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        for child in [name for name, _ in self.classifier.named_children() if name not in used]:
            delattr(self.classifier, child)

    def skip(self, node: fx.Node) -> None:
        """Take a node out of the graph; its module keeps its place in a Sequential as Identity."""
        if node.op == "call_module":
            self.use(node, nn.Identity())
        self.skipped.append(node)

    def use(self, node: fx.Node, module: nn.Module) -> None:
        """Let `module` take the place of the node's."""
        original = self.classifier.get_submodule(str(node.target))
        chosen = self.replacements.setdefault(original, module)
        if repr(chosen) != repr(module):
            self.refuse(node, f"it is called twice, once as {chosen} and once as {module}; use two modules.")

    def convert(self, node: fx.Node, sources: list[Features]) -> Features:
        """What the answer of `node` means; the node or its module is changed where it has to be."""
        operation, source = self.operation(node), sources[0]
        module: Any = self.classifier.get_submodule(str(node.target)) if node.op == "call_module" else None
        shape = node.meta["shape"]
        if shape is None:
            self.refuse(node, "it answers with something else than one tensor.")
        if operation in RESHAPES:
            return self.convert_reshape(node, source)
        if not self.sizes.isdisjoint(node.all_input_nodes):
            self.refuse(node, "it is given sizes of the picture or of a map, which would change with the picture.")
        if operation in ELEMENTWISE:
            return self.convert_elementwise(node, sources)
        if operation in CONCATENATIONS:
            self.require_channels(node, source, _argument(node, 1, "dim", 0))
            if len(node.all_input_nodes) > len(sources):
                self.refuse(node, "it joins a constant to a map, which fixes the size of the map.")
            return self.alike(node, sources)
        if len(sources) > 1:
            self.refuse(node, "it isn't known to combine its inputs position by position.")

        if operation in WINDOWED and source.axes == "BCHW":
            return replace(source, size=shape[-2:])
        if operation is nn.PReLU and source.axes == "flat" and source.size == (1, 1):
            return source
        if operation in ADAPTIVE_POOLS and source.axes == "BCHW":
            return self.convert_adaptive_pool(node, source)
        if operation in MEANS and source.axes == "BCHW":
            return self.convert_mean(node, source)
        if operation in SOFTMAXES:
            if source.axes == "flat" and source.size != (1, 1):
                self.refuse(node, "it works along a flattened map of more than one position.")
            self.require_channels(node, source, module.dim if module else _argument(node, 1, "dim"))
            return source
        if operation is nn.Linear:
            return self.convert_linear(node, source)
        if operation is nn.BatchNorm1d and source.axes == "flat" and source.size == (1, 1):
            batch_norm = nn.BatchNorm2d(1, device="meta")
            # All settings, parameters and buffers: the two classes differ only in the shapes they accept.
            vars(batch_norm).update(vars(module))
            self.use(node, batch_norm)
            return source
        if operation in LAYER_NORMS and source.axes in ("BHWC", "BWHC"):
            if len(module.normalized_shape if module else _argument(node, 1, "normalized_shape")) == 1:
                return source
        if operation in PERMUTATIONS and set(source.axes) == set("BCHW"):
            dims: Any = node.args[1:] or node.kwargs["dims"]
            dims = dims[0] if isinstance(dims[0], Iterable) else dims
            return replace(source, axes="".join(source.axes[dim] for dim in dims))
        if operation is operator.getitem and source.axes == "BCHW":
            # GoogLeNet and Inception select channels, x[:, 0], to change the normalisation of the picture.
            index = node.args[1]
            if isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None):
                if isinstance(index[1], slice):
                    return source
                if isinstance(index[1], int):
                    return replace(source, axes="BHW")
        if operation in (torch.unsqueeze, "unsqueeze") and source.axes == "BHW" and _argument(node, 1, "dim") == 1:
            return replace(source, axes="BCHW")

        if operation in WHOLE_PICTURE:
            self.refuse(node, "what it answers at one position depends on the whole picture.")
        what = "the flattened map" if source.axes == "flat" else f"a map with the axes {source.axes}"
        self.refuse(node, f"it isn't known to treat all positions of {what} alike, whatever the picture's size.")

    def alike(self, node: fx.Node, sources: list[Features]) -> Features:
        """The common meaning of inputs that are combined position by position."""
        first = sources[0]
        pool = next((source.pool for source in sources if source.pool), None)
        for source in sources[1:]:
            if (source.axes, source.size) != (first.axes, first.size):
                sizes = f"{first.size[0]}x{first.size[1]} ({first.axes}) and {source.size[0]}x{source.size[1]}"
                cause = f" {pool} reads a whole map, and so would every position of what follows." if pool else ""
                self.refuse(node, f"it combines maps of {sizes} ({source.axes}) positions, which must be alike.{cause}")
        return replace(first, pool=pool)

    def require_channels(self, node: fx.Node, source: Features, dim: int | None) -> None:
        if source.axes in ("flat", "BC1"):
            # Any other spelling of the last dimension of a vector, like -1, is the width of a map.
            right = dim == 1
        else:
            right = dim is not None and -len(source.axes) <= dim < len(source.axes) and source.axes[dim] == "C"
        if not right:
            self.refuse(node, f"it works along dim={dim}, on a map no longer the channels; use dim=1.")

    def convert_elementwise(self, node: fx.Node, sources: list[Features]) -> Features:
        meaning = self.alike(node, sources)
        if len(node.meta["shape"]) != (2 if meaning.axes == "flat" else len(meaning.axes)):
            self.refuse(node, "it gives its input another dimension.")
        for constant in node.all_input_nodes:
            if constant in self.features or constant.meta["shape"] is None:
                continue
            shape = constant.meta["shape"]
            vector = meaning.axes in ("flat", "BC1")
            # Broadcasting aligns the last dimensions. Those of a vector aren't where those of its map are.
            axes = " " * len(shape) if vector else meaning.axes[len(meaning.axes) - len(shape) :]
            if any(length != 1 for axis, length in zip(axes, shape, strict=True) if axis != "C"):
                self.refuse(
                    node,
                    f"a constant of shape {shape} meets {'a flattened map' if vector else 'a map'} and "
                    f"fixes its size to {meaning.size[0]}x{meaning.size[1]} positions (a positional embedding?).",
                )
        return meaning

    def convert_reshape(self, node: fx.Node, source: Features) -> Features:
        before, after = node.all_input_nodes[0].meta["shape"], node.meta["shape"]
        batch, count = before[0], torch.Size(before[1:]).numel()
        if source.axes not in ("BCHW", "BC1", "flat"):
            self.refuse(node, f"it reshapes a map with the axes {source.axes}; only BCHW can be flattened.")
        if after == (batch, count):
            meaning = replace(source, axes="flat")
        elif source.size == (1, 1) and after == (batch, count, 1):
            meaning = replace(source, axes="BC1")
        elif source.size == (1, 1) and after == (batch, count, 1, 1):
            meaning = replace(source, axes="BCHW")
        else:
            self.refuse(node, f"it reshapes {before} to {after}; only a flattening to {(batch, count)} is known.")
        self.skip(node)
        return meaning

    def convert_adaptive_pool(self, node: fx.Node, source: Features) -> Features:
        size = node.meta["shape"][-2:]
        if size == source.size:
            self.skip(node)
            return source
        windows = [_uniform_windows(*sizes) for sizes in zip(source.size, size, strict=True)]
        if None in windows:
            self.refuse(
                node,
                f"at input_size {self.input_size} it pools {source.size[0]}x{source.size[1]} positions to "
                f"{size[0]}x{size[1]} in windows that differ, which no pooling of a larger map repeats. Choose an "
                f"input_size that gives {size[0]}x{size[1]} positions or a multiple of them.",
            )
        kernel_size, stride = zip(*[window for window in windows if window], strict=True)
        name = self.name(node)
        pool = ADAPTIVE_POOLS[self.operation(node)]
        if node.op == "call_module":
            self.use(node, pool(kernel_size, stride))
        else:
            node.target, node.args, node.kwargs = pool, (node.all_input_nodes[0], kernel_size, stride), {}
        return replace(source, size=size, pool=name)

    def convert_mean(self, node: fx.Node, source: Features) -> Features:
        dims = _argument(node, 1, "dim")
        if not isinstance(dims, Iterable) or {dim % 4 for dim in dims} != {2, 3}:
            self.refuse(node, f"it takes the mean over dim={dims}; only the mean over height and width is known.")
        axes = "BCHW" if len(node.meta["shape"]) == 4 else "flat"
        name = self.name(node)
        node.op, node.target = "call_function", F.avg_pool2d
        node.args, node.kwargs = (node.all_input_nodes[0], source.size, 1), {}
        return Features(axes, (1, 1), name)

    def convert_linear(self, node: fx.Node, source: Features) -> Features:
        linear = self.classifier.get_submodule(str(node.target))
        assert isinstance(linear, nn.Linear)
        if source.axes in ("BHWC", "BWHC"):
            # Already one answer for each position, as in ConvNeXt's blocks.
            self.use(node, linear)
            return source
        if source.axes != "flat":
            self.refuse(node, f"it works along the last of the axes {source.axes} of a map that isn't flattened.")
        if linear._forward_hooks or linear._forward_pre_hooks or "weight" not in linear._parameters:
            self.refuse(node, "it carries hooks (weight or spectral normalisation?), which would be lost; remove them.")
        height, width = source.size
        # On the meta device nothing is drawn or stored for weights that are replaced at once.
        convolution = nn.Conv2d(
            linear.in_features // (height * width),
            linear.out_features,
            (height, width),
            bias=linear.bias is not None,
            device="meta",
        )
        # Flattening puts channels before rows before columns, the order of a convolution's kernel.
        weight = linear.weight.detach().reshape(convolution.weight.shape)
        convolution.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
        convolution.bias = linear.bias
        self.use(node, convolution)
        return replace(source, size=(1, 1))


def convolutionalize(classifier: nn.Module, input_size: int | tuple[int, int]) -> FullyConvolutional:
    """Turn a classifier into a fully convolutional net: at `input_size` the same logits, on more pixels a map of them.

    The classifier ends in (pooling,) flattening and Linear layers, like torchvision's AlexNet, VGG, ResNet, GoogLeNet,
    DenseNet, MobileNetV2 or ConvNeXt. The first Linear after the flattening of a C x h x w map becomes an h x w
    convolution, later ones become 1x1 convolutions, BatchNorm1d becomes BatchNorm2d, and a global average pooling
    becomes an average pooling of the size that it has at `input_size`, with stride 1 (arXiv:1411.4038, section 3.1).
    So `convolutionalize(vgg16(), 224).classifier[0]` is `Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1))`.

    Position (y, x) of the map is the classifier's answer to the window of `input_size` that starts at pixel
    (stride * y, stride * x), the stride being that of the classifier's last feature map, 32 for most. It is exact
    where nothing is padded; with padding, a window sees its neighbours where the classifier saw zeros.

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
    recorder = _ShapeRecorder(classifier, graph=graph)
    recorder.extra_traceback = False
    try:
        with torch.no_grad():
            # Two pictures tell the batch from a dimension of size 1.
            recorder.run(torch.zeros(2, channels, *size, dtype=parameter.dtype, device=parameter.device))
    except Exception as error:
        raise ValueError(
            f"{type(classifier).__name__} doesn't take pictures of {channels}x{size[0]}x{size[1]}: {error}. Set "
            "input_size to the size that it was trained for."
        ) from error
    for module, training in modes.items():
        module.training = training
    _Conversion(classifier, graph, size).walk()
    return FullyConvolutional(classifier, graph, size)


__all__ = ["FullyConvolutional", "convolutionalize"]
