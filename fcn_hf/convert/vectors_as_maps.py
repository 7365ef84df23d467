"""A classifier's forward, from pixels to logits, read so that every vector is a map of vectors.

torch.fx gives the order of modules, functions and methods. What each of them does is seen when the classifier runs
once: whatever asks for an operation, torch calls it by one name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from ..torch_calls import Call

# Operations by the names that `Call.name` gives them.
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


class Refusal(ValueError):
    """A part of the classifier that can't be converted."""


def _uniform_windows(size: int, outputs: int) -> tuple[int, int] | None:
    """(kernel, stride) of the pooling which adaptive pooling of `size` positions to `outputs` amounts to, if any."""
    starts = [index * size // outputs for index in range(outputs)]
    ends = [-(-(index + 1) * size // outputs) for index in range(outputs)]
    kernels = {end - start for start, end in zip(starts, ends, strict=True)}
    strides = {after - before for before, after in zip(starts, starts[1:], strict=False)} or {1}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 and 0 not in strides else None


class Conversion(fx.Interpreter):
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
        self.calls: list[Call] = []
        self.sized = False
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
        raise Refusal(f"convolutionalize can't convert {self.title()}: {reason}")

    def refuse_unknown(self, source: Features) -> NoReturn:
        what = "the flattened map" if source.axes == "flat" else f"a map with the axes {source.axes}"
        self.refuse(f"it isn't known to treat all positions of {what} alike, whatever the picture's size.")

    def meaning(self, value: Any) -> Features | None:
        """Of a tensor, or of the parts of one, which are alike; None for what doesn't depend on the pixels."""
        value = value[0] if isinstance(value, list | tuple) and value else value
        return self.features.get(value) if isinstance(value, torch.Tensor) else None

    def run_node(self, n: fx.Node) -> Any:
        self.node, self.calls, self.sized, self.changed = n, [], False, False
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
        elif not self.calls:
            self.refuse_unknown(sources[0])
        elif self.sized or sources[0].axes != "BCHW":
            self.sizes.add(n)
        return value

    def see(self, call: Call) -> None:
        """Note what the answer of a call means, and change the node that makes the call where it has to be."""
        self.calls.append(call)
        sources = [meaning for tensor in call.tensors() if (meaning := self.meaning(tensor))]
        if sources and call.name in SIZES:
            self.sized = True
        elif sources and call.name not in CONSTANTS:
            meaning = self.understand(call, sources)
            for part in call.result if isinstance(call.result, list | tuple) else [call.result]:
                self.features[part] = meaning

    def check_answer(self, answer: Any) -> None:
        meaning = self.meaning(answer)
        if meaning is None or meaning.axes != "flat" or meaning.size != (1, 1):
            shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else "something else"
            raise Refusal(
                "convolutionalize expects a classifier that answers with a tensor of shape (batch, classes); "
                f"{type(self.classifier).__name__} at {self.input_size} answers with {shape}."
            )

    def check_calls(self, value: torch.Tensor) -> None:
        """What a node or module does with a map has to be the same at every size."""
        operations = [call for call in self.calls if isinstance(call.result, torch.Tensor)]
        if self.changed and len(operations) > 1:
            names = ", ".join(call.name for call in operations)
            self.refuse(f"one of its operations ({names}) would have to change; it may do but one.")
        given_sizes = not self.sizes.isdisjoint(self.node.all_input_nodes)
        if given_sizes and any(call.name not in RESHAPES for call in self.calls):
            self.refuse("it is given sizes of the picture or of a map, which would change with the picture.")
        if self.module_run is not None and self.sized and not self.changed:
            self.fix_sizes(operations, value)

    def fix_sizes(self, operations: list[Call], value: torch.Tensor) -> None:
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

    def understand(self, call: Call, sources: list[Features]) -> Features:
        """What the answer of `call` means."""
        name, source, module = call.name, sources[0], self.module_run
        if name in ("split", "chunk") and source.axes != "flat":
            self.require_channels(source, call.argument(2, "dim", 0))
            return source
        if not isinstance(call.result, torch.Tensor):
            self.refuse_unknown(source)
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
            height, width = call.result.shape[-2:]
            return replace(source, size=(height, width))
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
        if name == "prelu" and source.axes == "flat" and source.size == (1, 1):
            return source
        if type(module) is nn.BatchNorm1d and source.axes == "flat" and source.size == (1, 1):
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
        if name == "getitem" and source.axes == "BCHW" and isinstance(call.args[1], tuple):
            batch, channels, *positions = call.args[1]
            if all(index == slice(None) for index in (batch, *positions)):
                if isinstance(channels, slice):
                    return source
                # GoogLeNet and Inception select channels, x[:, 0], to change the normalisation of the picture.
                if isinstance(channels, int) and not positions:
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

    def understand_elementwise(self, call: Call, sources: list[Features]) -> Features:
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

    def understand_reshape(self, call: Call, source: Features) -> Features:
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

    def understand_adaptive_pool(self, call: Call, source: Features) -> Features:
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

    def understand_mean(self, call: Call, source: Features) -> Features:
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
