"""What a piece of code asks torch for, seen while it runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Call:
    """A call of one of torch's functions, with what it answered.

    `name` is the same whether a function, a method, an operator or a module asks for an operation: `nn.ReLU`, `F.relu`,
    `torch.relu`, `x.relu()` and `x.relu_()` are all "relu", `x += y` is "add", `x.shape` is "shape", and `nn.ReLU6`,
    which is written with another function, is "hardtanh".
    """

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


class Observer(TorchFunctionMode):
    """Shows every call of a torch function, but not the calls that it makes itself."""

    def __init__(self, show: Callable[[Call], None]):
        super().__init__()
        self.show = show

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.show(Call(function, args, kwargs, result))
        return result
