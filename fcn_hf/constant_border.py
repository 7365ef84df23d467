"""VGG on pictures with a wide border of zeros, as in the release, without working through most of that border."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from .blocks_fcn import FCNPooling
from .packed_convolution import PackedConvolution, is_watched
from .trunks_fcn import FCNStages, FCNTrunk


class Span(NamedTuple):
    """Along one axis of a map, the positions `start` to `stop` (excluded) that depend on the picture."""

    start: int
    stop: int

    def behind(self, depth: int) -> "Span":
        """Those of the map behind `depth` 3x3 convolutions and a 2x2 pooling."""
        return Span((self.start - depth) // 2, -((self.stop + depth) // -2))

    def read(self, depth: int) -> slice:
        """What these positions, behind such a stage, are made of."""
        return slice(2 * self.start - depth, 2 * self.stop + depth)

    @property
    def positions(self) -> slice:
        return slice(self.start, self.stop)


class BorderedStages(FCNStages):
    """Stages of 3x3 convolutions and 2x2 poolings on pictures with a wide border of zeros.

    A convolution after the other, the picture spreads into the border, and so does the edge of the padding, which the
    convolutions surround by zeros once more. What lies beyond the picture's reach depends on the weights and the size
    alone, and between the two it is the same everywhere. So only positions within the picture's reach are computed, as
    long as they end before the border does; those around them come from a picture of zeros that is as small as can be,
    the same for all sizes that are alike modulo the stride, and are repeated in its middle as often as it takes.

    Of the release's VGG16, with 100 px around a picture of 375x500, that is four of the five stages and nearly a third
    of the arithmetic. Under gradients, and in graphs, everything is computed.

    Args:
        stages (`FCNStages`): of `PackedConvolution` and, at the end of each, a 2x2 pooling.
    """

    # How many surroundings are kept for sizes that come again: of VGG16 one takes 2.5 MB.
    KEPT = 32

    def __init__(self, stages: Any):
        super().__init__(stages)
        # The first convolution has the padding, and like all others one more ring of zeros.
        padding: Any = next(convolutions(stages[0])).padding
        self.border = padding[0] - 1
        self.depths = [len(list(convolutions(stage))) for stage in stages]
        # How many stages the border is wide enough for, and a position of the last one's map beyond the reach of edges.
        self.count, self.middle, width = 0, 0, self.border
        for depth in self.depths:
            middle = (self.middle + depth) // 2 + 1
            # What is read lies within the border, and the smallest surroundings within those of any picture.
            if 2 * depth + 1 > width or 2 ** (self.count + 1) * (middle + 1) > self.border + 1:
                break
            self.count, self.middle, width = self.count + 1, middle, (width - depth) // 2
        self.kept: dict[tuple, list[torch.Tensor]] = {}

    def forward(self, hidden_state: torch.Tensor) -> list[torch.Tensor]:
        """Pictures `(B, C, H, W)` -> the feature map of each stage."""
        if is_watched(hidden_state):
            return super().forward(hidden_state)
        border, (height, width) = self.border, hidden_state.shape[-2:]
        rows, columns = Span(border, border + height), Span(border, border + width)
        hidden_state = F.pad(hidden_state, [border] * 4)
        maps = []
        for stage, depth, surroundings in zip(self, self.depths, self.surroundings(hidden_state), strict=False):
            rows, columns = rows.behind(depth), columns.behind(depth)
            inner = run(stage, hidden_state[..., rows.read(depth), columns.read(depth)], padding=0)
            hidden_state = surroundings
            hidden_state[..., rows.positions, columns.positions] = inner
            maps.append(hidden_state)
        for stage in islice(self, self.count, None):
            hidden_state = run(stage, hidden_state, padding=1)
            maps.append(hidden_state)
        return maps

    def surroundings(self, hidden_state: torch.Tensor) -> Iterator[torch.Tensor]:
        """Padded pictures `(B, C, H, W)` -> maps of the first stages as they would be of zeros, new ones."""
        batch, channels, *size = hidden_state.shape
        stride = 2**self.count
        smallest = [stride * (2 * self.middle + 1) + edge % stride for edge in size]
        key = (*smallest, hidden_state.dtype, hidden_state.device)
        maps = self.kept.get(key)
        if maps is None:
            zeros, maps = hidden_state.new_zeros(1, channels, *smallest), []
            for stage in islice(self, self.count):
                zeros = run(stage, zeros, padding=1)
                maps.append(zeros)
            self.kept[key] = maps
            for oldest in list(self.kept)[: -self.KEPT]:
                self.kept.pop(oldest, None)
        repeats = [(edge - least) // stride for edge, least in zip(size, smallest, strict=True)]
        for power, small in enumerate(maps, 1):
            scale = 2 ** (self.count - power)
            result = small.expand(batch, -1, -1, -1).permute(0, 2, 3, 1)
            for axis, count in enumerate(repeats, 1):
                positions = torch.arange(result.shape[axis] + scale * count, device=small.device)
                middle = positions.clamp(max=scale * self.middle)
                result = result.index_select(axis, middle.maximum(positions - scale * count))
            yield result.permute(0, 3, 1, 2)


def skip_constant_border(trunk: FCNTrunk) -> None:
    """Let a trunk's stages be `BorderedStages`, if they are such as those take, and their padding is wide."""
    stages: Any = trunk.stages
    layers: list[Any] = [layer for stage in stages for layer in stage]
    if all(map(is_of_vgg, layers)) and layers[0].padding > (1, 1):
        trunk.stages = BorderedStages(stages).eval()


def is_of_vgg(layer: torch.nn.Module) -> bool:
    """Whether a layer is a 3x3 convolution with its ReLU, or a 2x2 pooling."""
    return (isinstance(layer, PackedConvolution) and layer.kernel_size == (3, 3)) or (
        isinstance(layer, FCNPooling) and layer.kernel_size == 2
    )


def convolutions(stage: Any) -> Iterator[PackedConvolution]:
    return (layer for layer in stage if isinstance(layer, PackedConvolution))


def run(stage: Any, hidden_state: torch.Tensor, padding: int) -> torch.Tensor:
    """A stage whose convolutions have this padding, whatever their own is."""
    for layer in stage:
        if isinstance(layer, PackedConvolution):
            hidden_state = layer.padded(hidden_state, (padding, padding))
        else:
            hidden_state = layer(hidden_state)
    return hidden_state
