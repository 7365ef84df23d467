"""A classifier's fully connected layers read as convolutions: one answer becomes a map of answers.

A fully connected layer is a convolution whose kernel covers its whole input, so a classifier that ends in Linear layers
can answer at every place of a larger picture, for far less work than classifying every window of it (Fully
Convolutional Networks, CVPR = arXiv:1411.4038, section 3.1). VGG16's fc6, 7 * 7 * 512 -> 4096, becomes a convolution
of 512 -> 4096 channels whose 7x7 kernels hold the same numbers.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary
from torchvision.ops import StochasticDepth

# Operations as torch calls them, whether a function, a method, an operator or a module asks for them: `nn.ReLU`,
# `F.relu`, `torch.relu`, `x.relu()` and `x.relu_()` are all "relu", `x += y` is "add", and `nn.ReLU6` is "hardtanh".
# Each number of the answer depends on the same number of the inputs, so shape and place don't matter.
ELEMENTWISE = set(
    "relu relu6 leaky_relu elu celu selu gelu silu mish softplus softsign hardswish hardsigmoid hardtanh sigmoid tanh "
    "dropout clamp add sub rsub mul div rdiv neg contiguous".split()
)
# Each position of the answer depends on a window around it, or on itself alone.
WINDOWED = set(
    "conv2d batch_norm max_pool2d avg_pool2d lp_pool2d local_response_norm prelu pad dropout2d channel_shuffle".split()
)
ADAPTIVE_POOLS: dict[str, tuple[type[nn.Module], Callable]] = {
    "adaptive_avg_pool2d": (nn.AvgPool2d, F.avg_pool2d),
    "adaptive_max_pool2d": (nn.MaxPool2d, F.max_pool2d),
}
RESHAPES = {"flatten", "reshape", "view", "squeeze"}
WHOLE_PICTURE = {"group_norm", "instance_norm", "scaled_dot_product_attention", "multi_head_attention_forward"}
# What isn't a tensor: numbers that change with the picture, and what doesn't.
SIZES = {"size", "shape", "numel", "len"}
CONSTANTS = {"dim", "ndim", "dtype", "device"}


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


@dataclass(frozen=True)
class _Call:
    """A call of one of torch's functions, with what it answered."""

    function: Callable
    args: tuple
    kwargs: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        name = self.function.__name__
        # Attributes such as `x.shape` are read by the `__get__` of a descriptor.
        name = self.function.__self__.__name__ if name == "__get__" else name  # type: ignore[attr-defined]
        # Without the underscores of `add_`, `__rsub__` and `__getitem__`.
        return name.strip("_")

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def tensors(self) -> Iterator[torch.Tensor]:
        for value in (*self.args, *self.kwargs.values()):
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, torch.Tensor):
                    yield part


class _Observer(TorchFunctionMode):
    """Shows every call of a torch function, but not the calls that it makes itself."""

    def __init__(self, show: Callable[[_Call], None]):
        super().__init__()
        self.show = show

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.show(_Call(function, args, kwargs, result))
        return result


class _Tracer(fx.Tracer):
    """Keeps as modules the layers of torch.nn, the kinds of them that a library may have, and stochastic depth.

    They then ask for their own mode, and may look at sizes, which timm's Conv2dSame does to pad its input.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        homes = {base.__module__ for base in type(m).__mro__} - {nn.Module.__module__, nn.Sequential.__module__}
        return isinstance(m, StochasticDepth) or any(home.startswith("torch.nn.") for home in homes)


class _Refusal(ValueError):
    """A part of the classifier that can't be converted."""


def _uniform_windows(size: int, outputs: int) -> tuple[int, int] | None:
    """(kernel, stride) of the pooling which adaptive pooling of `size` positions to `outputs` amounts to, if any."""
    starts = [index * size // outputs for index in range(outputs)]
    ends = [-(-(index + 1) * size // outputs) for index in range(outputs)]
    kernels = {end - start for start, end in zip(starts, ends, strict=True)}
    strides = {after - before for before, after in zip(starts, starts[1:], strict=False)} or {1}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 and 0 not in strides else None


class _Conversion(fx.Interpreter):
    """One run along the classifier's forward, from pixels to logits, which reads every vector as a map."""

    def __init__(self, classifier: nn.Module, graph: fx.Graph, input_size: tuple[int, int]):
        super().__init__(classifier, graph=graph)
        self.extra_traceback = False
        self.classifier = classifier
        self.input_size = input_size
        # The meaning of every tensor that depends on the pixels; others are constants.
        self.features = WeakTensorKeyDictionary()
        self.sizes: set[fx.Node] = set()
        self.modules: dict[nn.Module, nn.Module] = {}
        self.bypasses: dict[fx.Node, fx.Node] = {}
        # Of the node that is run now:
        self.node = next(iter(graph.nodes))
        self.calls: list[_Call] = []
        self.changed = False

    def finish(self) -> None:
        """Put the converted modules in place and drop what the graph no longer needs."""
        # From last to first, as what takes the place of a node may itself be replaced.
        for node, other in reversed(self.bypasses.items()):
            node.replace_all_uses_with(other)
            self.graph.erase_node(node)
        for path, module in list(self.classifier.named_modules(remove_duplicate=False)):
            if module in self.modules:
                self.classifier.set_submodule(path, self.modules[module].train(module.training))
        used = {str(node.target).split(".")[0] for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        for child in [name for name, _ in self.classifier.named_children() if name not in used]:
            delattr(self.classifier, child)

    @property
    def module_run(self) -> Any:
        """The module that is run now, if it is one."""
        return self.classifier.get_submodule(str(self.node.target)) if self.node.op == "call_module" else None

    def title(self) -> str:
        """How errors name an operation: by its module's qualified name, or by the module whose forward calls it."""
        if self.module_run is not None:
            return f"{self.node.target!r} ({type(self.module_run).__name__})"
        name = getattr(self.node.target, "__name__", self.node.target)
        modules = list(self.node.meta.get("nn_module_stack", {}).values())
        return f"'{name}' in the forward of " + (
            f"{modules[-1][0]!r} ({modules[-1][1].__name__})" if modules else type(self.classifier).__name__
        )

    def refuse(self, reason: str) -> NoReturn:
        raise _Refusal(f"convolutionalize can't convert {self.title()}: {reason}")

    def refuse_unknown(self, source: Features) -> NoReturn:
        what = "the flattened map" if source.axes == "flat" else f"a map with the axes {source.axes}"
        self.refuse(f"it isn't known to treat all positions of {what} alike, whatever the picture's size.")

    def meaning(self, value: Any) -> Features | None:
        return self.features.get(value) if isinstance(value, torch.Tensor) else None

    def run_node(self, n: fx.Node) -> Any:
        self.node, self.calls, self.changed = n, [], False
        value = super().run_node(n)
        sources = [meaning for node in n.all_input_nodes if (meaning := self.meaning(self.env[node]))]
        if n.op == "placeholder":
            self.features[value] = Features("BCHW", self.input_size)
        elif n.op == "output":
            self.check_answer(value)
        elif not sources:
            if not self.sizes.isdisjoint(n.all_input_nodes):
                if n.target is torch._assert:
                    self.refuse("it checks the size of the picture or of a map; a larger picture would fail.")
                self.sizes.add(n)
        elif self.meaning(value):
            self.check_calls(value)
        elif not self.calls or self.calls[-1].name not in SIZES | CONSTANTS:
            self.refuse_unknown(sources[0])
        elif self.calls[-1].name in SIZES or sources[0].axes != "BCHW":
            self.sizes.add(n)
        return value

    def see(self, call: _Call) -> None:
        """Note what the answer of a call means, and change the node that makes the call where it has to be."""
        self.calls.append(call)
        sources = [meaning for tensor in call.tensors() if (meaning := self.meaning(tensor))]
        if sources and call.name not in SIZES | CONSTANTS:
            if not isinstance(call.result, torch.Tensor):
                self.refuse_unknown(sources[0])
            self.features[call.result] = self.understand(call, sources)

    def check_answer(self, answer: Any) -> None:
        meaning = self.meaning(answer)
        if meaning is None or meaning.axes != "flat" or meaning.size != (1, 1):
            shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else "something else"
            raise _Refusal(
                "convolutionalize expects a classifier that answers with a tensor of shape (batch, classes); "
                f"{type(self.classifier).__name__} at {self.input_size} answers with {shape}."
            )

    def check_calls(self, value: torch.Tensor) -> None:
        """What a node or module does with a map has to be the same at every size."""
        operations = [call for call in self.calls if isinstance(call.result, torch.Tensor)]
        if self.changed and len(operations) > 1:
            names = ", ".join(call.name for call in operations)
            self.refuse(f"one of its operations ({names}) would have to change; it may do but one.")
        if not self.sizes.isdisjoint(self.node.all_input_nodes) and operations[0].name not in RESHAPES:
            self.refuse("it is given sizes of the picture or of a map, which would change with the picture.")
        if self.module_run is not None and any(call.name in SIZES for call in self.calls):
            self.fix_sizes(operations, value)

    def fix_sizes(self, operations: list[_Call], value: torch.Tensor) -> None:
        """Put what a module called into the graph in its place, with the numbers that it computed from sizes."""
        (source,) = self.node.all_input_nodes
        nodes = {id(self.env[source]): source}
        with self.graph.inserting_before(self.node):
            tensors = dict(self.module_run.named_parameters()) | dict(self.module_run.named_buffers())
            for name, tensor in tensors.items():
                nodes[id(tensor)] = self.graph.get_attr(f"{self.node.target}.{name}")

            def in_graph(part: Any) -> Any:
                if isinstance(part, torch.Tensor) and id(part) not in nodes:
                    self.refuse("it reads the size of its input and has tensors that are no parameters.")
                return nodes[id(part)] if isinstance(part, torch.Tensor) else part

            for call in operations:
                args, kwargs = fx.node.map_aggregate((call.args, call.kwargs), in_graph)
                nodes[id(call.result)] = self.graph.call_function(call.function, args, kwargs)
        self.bypasses[self.node] = nodes[id(value)]

    def skip(self) -> None:
        """Take the node out of the graph; its module keeps its place in a Sequential as Identity."""
        if self.module_run is not None:
            self.use(nn.Identity())
        self.changed = True
        self.bypasses[self.node] = self.node.all_input_nodes[0]

    def use(self, module: nn.Module) -> None:
        """Let `module` take the place of the one that is run."""
        chosen = self.modules.setdefault(self.module_run, module)
        if repr(chosen) != repr(module):
            self.refuse(f"it is called twice, once as {chosen} and once as {module}; use two modules.")
        self.changed = module is not self.module_run

    def call_instead(self, function: Callable, *args: Any) -> None:
        """Let the node call another function of its input."""
        self.changed = True
        self.node.op, self.node.target = "call_function", function
        self.node.args, self.node.kwargs = (self.node.all_input_nodes[0], *args), {}

    def understand(self, call: _Call, sources: list[Features]) -> Features:
        """What the answer of `call` means."""
        name, source, module, shape = call.name, sources[0], self.module_run, tuple(call.result.shape)
        if name in RESHAPES:
            return self.understand_reshape(call, source)
        if name in ELEMENTWISE:
            return self.understand_elementwise(call, sources)
        if name in ("cat", "concat"):
            self.require_channels(source, call.argument(1, "dim", 0))
            if len(list(call.tensors())) > len(sources):
                self.refuse("it joins a constant to a map, which fixes the size of the map.")
            return self.alike(sources)
        if len(sources) > 1:
            self.refuse("it isn't known to combine its inputs position by position.")

        if name in WINDOWED and source.axes == "BCHW":
            return replace(source, size=shape[-2:])
        if name == "prelu" and source.axes == "flat" and source.size == (1, 1):
            return source
        if name in ADAPTIVE_POOLS and source.axes == "BCHW":
            return self.understand_adaptive_pool(call, source)
        if name == "mean" and source.axes == "BCHW":
            return self.understand_mean(call, source)
        if name in ("softmax", "log_softmax"):
            if source.axes == "flat" and source.size != (1, 1):
                self.refuse("it works along a flattened map of more than one position.")
            self.require_channels(source, call.argument(1, "dim"))
            return source
        if name == "linear" and source.axes in ("BHWC", "BWHC"):
            # Already one answer for each position, as in ConvNeXt's blocks.
            if module is not None:
                self.use(module)
            return source
        if name == "linear" and isinstance(module, nn.Linear) and call.args[1] is module.weight:
            return self.understand_linear(module, source)
        if name == "batch_norm" and source.axes == "flat" and source.size == (1, 1):
            if type(module) is nn.BatchNorm1d:
                batch_norm = nn.BatchNorm2d(1, device="meta")
                # All settings, parameters and buffers: the two classes differ only in the shapes they accept.
                vars(batch_norm).update(vars(module))
                self.use(batch_norm)
                return source
        if name == "layer_norm" and source.axes in ("BHWC", "BWHC"):
            if len(call.argument(1, "normalized_shape")) == 1:
                return source
        if name == "permute" and set(source.axes) == set("BCHW"):
            dims: Any = call.args[1:] or call.kwargs["dims"]
            dims = dims[0] if isinstance(dims[0], Iterable) else dims
            return replace(source, axes="".join(source.axes[dim] for dim in dims))
        if name == "getitem" and source.axes == "BCHW":
            # GoogLeNet and Inception select channels, x[:, 0], to change the normalisation of the picture.
            index = call.args[1]
            if isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None):
                if isinstance(index[1], slice):
                    return source
                if isinstance(index[1], int):
                    return replace(source, axes="BHW")
        if name == "unsqueeze" and source.axes == "BHW" and call.argument(1, "dim") == 1:
            return replace(source, axes="BCHW")

        if name in WHOLE_PICTURE:
            self.refuse("what it answers at one position depends on the whole picture.")
        self.refuse_unknown(source)

    def alike(self, sources: list[Features]) -> Features:
        """The common meaning of inputs that are combined position by position."""
        first = sources[0]
        pool = next((source.pool for source in sources if source.pool), None)
        for source in sources[1:]:
            if (source.axes, source.size) != (first.axes, first.size):
                sizes = f"{first.size[0]}x{first.size[1]} ({first.axes}) and {source.size[0]}x{source.size[1]}"
                cause = f" {pool} reads a whole map, and so would every position of what follows." if pool else ""
                self.refuse(f"it combines maps of {sizes} ({source.axes}) positions, which must be alike.{cause}")
        return replace(first, pool=pool)

    def require_channels(self, source: Features, dim: int | None) -> None:
        if source.axes in ("flat", "BC1"):
            # Any other spelling of the last dimension of a vector, like -1, is the width of a map.
            right = dim == 1
        else:
            right = dim is not None and -len(source.axes) <= dim < len(source.axes) and source.axes[dim] == "C"
        if not right:
            self.refuse(f"it works along dim={dim}, on a map no longer the channels; use dim=1.")

    def understand_elementwise(self, call: _Call, sources: list[Features]) -> Features:
        meaning = self.alike(sources)
        if call.result.ndim != (2 if meaning.axes == "flat" else len(meaning.axes)):
            self.refuse("it gives its input another dimension.")
        for shape in [tuple(tensor.shape) for tensor in call.tensors() if not self.meaning(tensor)]:
            vector = meaning.axes in ("flat", "BC1")
            # Broadcasting aligns the last dimensions. Those of a vector aren't where those of its map are.
            axes = " " * len(shape) if vector else meaning.axes[len(meaning.axes) - len(shape) :]
            if any(length != 1 for axis, length in zip(axes, shape, strict=True) if axis != "C"):
                self.refuse(
                    f"a constant of shape {shape} meets {'a flattened map' if vector else 'a map'} and "
                    f"fixes its size to {meaning.size[0]}x{meaning.size[1]} positions (a positional embedding?).",
                )
        return meaning

    def understand_reshape(self, call: _Call, source: Features) -> Features:
        before, after = tuple(call.args[0].shape), tuple(call.result.shape)
        batch, count = before[0], torch.Size(before[1:]).numel()
        if source.axes not in ("BCHW", "BC1", "flat"):
            self.refuse(f"it reshapes a map with the axes {source.axes}; only BCHW can be flattened.")
        self.skip()
        if after == (batch, count):
            return replace(source, axes="flat")
        if source.size == (1, 1) and after in ((batch, count, 1), (batch, count, 1, 1)):
            return replace(source, axes="BC1" if len(after) == 3 else "BCHW")
        self.refuse(f"it reshapes {before} to {after}; only a flattening to {(batch, count)} is known.")

    def understand_adaptive_pool(self, call: _Call, source: Features) -> Features:
        size = tuple(call.result.shape[-2:])
        if size == source.size:
            self.skip()
            return source
        windows = [_uniform_windows(*sizes) for sizes in zip(source.size, size, strict=True)]
        if None in windows:
            self.refuse(
                f"at input_size {self.input_size} it pools {source.size[0]}x{source.size[1]} positions to "
                f"{size[0]}x{size[1]} in windows that differ, which no pooling of a larger map repeats. Choose an "
                f"input_size that gives {size[0]}x{size[1]} positions or a multiple of them.",
            )
        kernel_size, stride = zip(*[window for window in windows if window], strict=True)
        meaning = replace(source, size=size, pool=self.title())
        pool, function = ADAPTIVE_POOLS[call.name]
        if self.module_run is not None:
            self.use(pool(kernel_size, stride))
        else:
            self.call_instead(function, kernel_size, stride)
        return meaning

    def understand_mean(self, call: _Call, source: Features) -> Features:
        dims = call.argument(1, "dim")
        if not isinstance(dims, Iterable) or {dim % 4 for dim in dims} != {2, 3}:
            self.refuse(f"it takes the mean over dim={dims}; only the mean over height and width is known.")
        meaning = Features("BCHW" if call.result.ndim == 4 else "flat", (1, 1), self.title())
        self.call_instead(F.avg_pool2d, source.size, 1)
        return meaning

    def understand_linear(self, linear: nn.Linear, source: Features) -> Features:
        if source.axes != "flat":
            self.refuse(f"it works along the last of the axes {source.axes} of a map that isn't flattened.")
        if linear._forward_hooks or linear._forward_pre_hooks:
            self.refuse("it carries hooks (weight or spectral normalisation?), which would be lost; remove them.")
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
        self.use(convolution)
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
    conversion = _Conversion(classifier, graph, size)
    try:
        with torch.no_grad(), _Observer(conversion.see):
            # Two pictures tell the batch from a dimension of size 1.
            conversion.run(torch.zeros(2, channels, *size, dtype=parameter.dtype, device=parameter.device))
    except _Refusal:
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
