"""Which pixels the positions of a feature map can see, followed through whatever layers make the map."""

from math import inf
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .convert.vectors_as_maps import WHOLE_PICTURE
from .torch_calls import Call, Observer


class Field(NamedTuple):
    """Along one axis, position `i` of a feature map sees pixels `stride * i + first` to `stride * i + last`, both
    included. Where padding is, a field lies outside of the picture."""

    stride: int = 1
    first: float = 0
    last: float = 0

    @property
    def size(self) -> float:
        """How many pixels a position sees."""
        return self.last - self.first + 1

    def behind(self, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> "Field":
        """The field of a map that a convolution or pooling makes of a map with this one."""
        reach = dilation * (kernel_size - 1)
        first, last = self.first - self.stride * padding, self.last + self.stride * (reach - padding)
        return Field(self.stride * stride, first, last)

    def joined(self, other: "Field") -> "Field":
        """The field of the sum of two maps, or of their channels side by side."""
        if self.stride != other.stride:
            return EVERYWHERE
        return Field(self.stride, min(self.first, other.first), max(self.last, other.last))

    def seen_by(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """Start and stop (excluded) of the pixels of a picture, `length` along this axis, that positions `start` to
        `stop` (excluded) see together."""
        first = max(0, self.stride * start + self.first)
        last = min(length - 1, self.stride * (stop - 1) + self.last)
        return int(first), int(max(first, last + 1))


EVERYWHERE = Field(1, -inf, inf)


class Fields(NamedTuple):
    """A map's fields along both axes."""

    y: Field = Field()
    x: Field = Field()


class FollowedFields(Observer):
    """While this context is open, every map that torch makes of some pixels is followed, and its fields are known.

    Convolutions, poolings and paddings count by their kernels, strides and dilations, whatever module asks for them;
    branches are joined; what keeps a map's height and width counts as working on each position alone. Everything else,
    such as attention, is taken to see the whole picture, and so is what looks at it all to normalise or to weight it
    (squeeze-and-excitation).

    Args:
        pixel_values: the pixels, shape (B, C, H, W).
    """

    def __init__(self, pixel_values: torch.Tensor):
        super().__init__(self.follow)
        self.known = WeakTensorKeyDictionary()
        self.known[pixel_values] = Fields()

    def of(self, feature_map: torch.Tensor) -> Fields:
        """The fields of a map made of the pixels; the whole picture for any other tensor."""
        return self.known.get(feature_map, Fields(EVERYWHERE, EVERYWHERE))

    def follow(self, call: Call) -> None:
        """Note the fields of what a call answers."""
        sources = [tensor for tensor in call.tensors() if tensor in self.known]
        if not sources:
            return
        for part in call.result if isinstance(call.result, list | tuple) else [call.result]:
            if isinstance(part, torch.Tensor):
                self.known[part] = self.fields_behind(call, sources, part)

    def fields_behind(self, call: Call, sources: list[torch.Tensor], result: torch.Tensor) -> Fields:
        fields = self.known[sources[0]]
        if call.name in WINDOWS:
            return _windowed(fields, *WINDOWS[call.name](call))
        apart = all(source.shape[-2:] in (result.shape[-2:], (1, 1)) for source in sources)
        if call.name in WHOLE_PICTURE or not apart:
            return Fields(EVERYWHERE, EVERYWHERE)
        for source in sources[1:]:
            fields = Fields(*(one.joined(other) for one, other in zip(fields, self.known[source], strict=True)))
        return fields


def _convolution(call: Call) -> tuple[Any, ...]:
    kernel_size = tuple(call.argument(1, "weight").shape[-2:])
    stride, padding, dilation = (
        call.argument(place, name, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if isinstance(padding, str):
        steps = zip(_pair(dilation), kernel_size, strict=True)
        padding = tuple(step * (size - 1) // 2 for step, size in steps) if padding == "same" else 0
    return kernel_size, stride, padding, dilation


def _pooling(call: Call) -> tuple[Any, ...]:
    kernel_size = call.argument(1, "kernel_size")
    dilation = call.argument(4, "dilation", 1) if call.name == "max_pool2d" else 1
    return kernel_size, call.argument(2, "stride") or kernel_size, call.argument(3, "padding", 0), dilation


def _padding(call: Call) -> tuple[Any, ...]:
    left, _, top, _ = (*call.argument(1, "pad"), 0, 0)[:4]
    return 1, 1, (top, left), 1


# What a call looks at, as (kernel size, stride, padding, dilation), each one number or one for each axis.
WINDOWS = {"conv2d": _convolution, "max_pool2d": _pooling, "avg_pool2d": _pooling, "pad": _padding}


def _windowed(fields: Fields, *window: Any) -> Fields:
    axes = zip(*(_pair(part) for part in window), strict=True)
    return Fields(*(field.behind(*axis) for field, axis in zip(fields, axes, strict=True)))


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
