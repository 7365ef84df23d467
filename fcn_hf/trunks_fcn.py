"""Classifiers made fully convolutional: what comes before the scores of an FCN.

Each `*_layers` function lists a classifier's layers, stage by stage, in the order in which they run and under the names
of the paper and of the release; `FCNTrunk` runs them and knows where its feature maps lie in the picture.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import AutoBackbone
from transformers.modeling_layers import GradientCheckpointingLayer

from .blocks_fcn import FCNConvolution, FCNInception, FCNLocalResponseNorm, FCNPooling
from .configuration_fcn import FCNConfig
from .upsampling_fcn import CoordinateMap

Layers = dict[str, nn.Module]


class FeatureMap(NamedTuple):
    """One of the maps that a trunk returns.

    Args:
        place: among them, from 0.
        channels: how many it has.
        position: where its positions lie in the picture.
    """

    place: int
    channels: int
    position: CoordinateMap


class FCNStage(GradientCheckpointingLayer, nn.Sequential):
    """One stage of layers; the unit of gradient checkpointing.

    Under gradient checkpointing batch normalisation updates its running statistics twice a step, as a stage runs twice.
    """

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        return nn.Sequential.forward(self, hidden_state)


class FCNStages(nn.ModuleList):
    """Stages one behind the other. It has a forward of its own, as models in shards (FSDP) want of all containers."""

    def forward(self, hidden_state: torch.Tensor) -> list[torch.Tensor]:
        """`(B, C, H, W)` -> the feature map of each stage."""
        maps = []
        for stage in self:
            hidden_state = stage(hidden_state)
            maps.append(hidden_state)
        return maps


class FCNTrunk(nn.Module):
    """A classifier's stages and, behind them, its fully connected layers as convolutions.

    Args:
        stages (`list[dict[str, nn.Module]]`): the layers of each stage by name, in the order in which they run.
        classifier (`dict[str, nn.Module]`): likewise fc6 and fc7.

    Attributes:
        maps (`dict[int, FeatureMap]`): the deepest map of each stride, such as pool3 under 8 and pool4 under 16.
        answer (`FeatureMap`): what the classifier makes of the last one.
        keeps_size (`bool`): whether fc6 is padded; otherwise the answer lacks what its kernel reaches over.
        pad_to (`int`): pictures are padded right and bottom to multiples of it; of these layers any size is one.
    """

    keeps_size, pad_to = True, 1

    def __init__(self, stages: list[Layers], classifier: Layers):
        super().__init__()
        self.stages = FCNStages(FCNStage(OrderedDict(layers)) for layers in stages)
        self.classifier = nn.Sequential(OrderedDict(classifier))
        self.maps: dict[int, FeatureMap] = {}
        position = CoordinateMap()
        for index, layers in enumerate(stages):
            for window in windows(layers.values()):
                position = position.convolution(*window)
            self.maps[round(position.scale)] = FeatureMap(index, out_channels(layers.values()), position)
        for kernel_size, padding, stride in windows(classifier.values()):
            position = position.convolution(kernel_size, padding, stride)
            self.keeps_size &= padding > 0 or kernel_size == 1
        last = [*stages[-1].values(), *classifier.values()]
        self.answer = FeatureMap(len(stages), out_channels(last), position)

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """`(B, C, H, W)` -> the feature map of each stage (pool1 ... pool5 of VGG) and the answer (fc7)."""
        maps = self.stages(pixel_values)
        return [*maps, self.classifier(maps[-1])]


def windows(layers: Iterable[nn.Module]) -> Iterator[tuple[int, int, int]]:
    """Kernel size, padding and stride of the layers that move a window; blocks are centred, and keep positions."""
    for layer in layers:
        layer = layer.conv if isinstance(layer, FCNConvolution) else layer
        if isinstance(layer, nn.Conv2d | FCNPooling):
            sizes = (layer.kernel_size, layer.padding, layer.stride)
            kernel_size, padding, stride = (size[0] if isinstance(size, tuple) else int(size) for size in sizes)
            yield kernel_size, padding, stride


def out_channels(layers: Iterable[nn.Module]) -> int:
    """Channels behind some layers: those of the last one that changes them."""
    return [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d | FCNConvolution | FCNInception)][-1]


# The release pads its first convolution by 100 px, so that fc6, unpadded, has an answer for every pixel.
CAFFE_PADDING = 100

# Widths of GoogLeNet's blocks (arXiv:1409.4842, table 1), by stage: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; projection.
INCEPTION_WIDTHS = {
    3: [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
    4: [
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ],
    5: [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
}


def vgg_layers(config: FCNConfig, channels: int) -> tuple[list[Layers], Layers]:
    """Stages of 3x3 convolutions, each ended by a 2x2 pooling (arXiv:1409.1556)."""
    stages = []
    padding = 1 if config.geometry == "same" else CAFFE_PADDING
    for stage, (width, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True), start=1):
        layers: Layers = {}
        for layer in range(1, depth + 1):
            layers[f"conv{stage}_{layer}"] = nn.Conv2d(channels, width, 3, padding=padding)
            if config.use_batch_norm:
                layers[f"bn{stage}_{layer}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}_{layer}"] = nn.ReLU()
            channels, padding = width, 1
        layers[f"pool{stage}"] = FCNPooling()
        stages.append(layers)
    return stages, fully_connected(config, channels, 7)


def alexnet_layers(config: FCNConfig, channels: int) -> tuple[list[Layers], Layers]:
    """AlexNet as the release has it (voc-fcn-alexnet/net.py): five convolutions and three 3x3 poolings."""
    same, groups = config.geometry == "same", config.conv_groups
    width1, width2, width3, width4, width5 = config.hidden_sizes
    stage1 = {
        "conv1": nn.Conv2d(channels, width1, 11, stride=4, padding=5 if same else CAFFE_PADDING),
        "relu1": nn.ReLU(),
        "pool1": FCNPooling(3, centred=same),
    }
    stage2 = {
        "norm1": response_norm(config),
        "conv2": nn.Conv2d(width1, width2, 5, padding=2, groups=groups),
        "relu2": nn.ReLU(),
        "pool2": FCNPooling(3, centred=same),
    }
    stage3 = {
        "norm2": response_norm(config),
        "conv3": nn.Conv2d(width2, width3, 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(width3, width4, 3, padding=1, groups=groups),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(width4, width5, 3, padding=1, groups=groups),
        "relu5": nn.ReLU(),
        "pool5": FCNPooling(3, centred=same),
    }
    return [stage1, stage2, stage3], fully_connected(config, width5, 6)


def googlenet_layers(config: FCNConfig, channels: int) -> tuple[list[Layers], Layers]:
    """GoogLeNet: two convolutions and nine inception blocks. Its classifier is one layer, which the scorer replaces.

    With batch normalisation it is torchvision's net, whose last pooling is 2x2; without, the paper's with its local
    response normalisation. Scores come from the deepest map of each stride: of block 3b at 8 and of block 4e at 16.
    """
    same, batch_norm = config.geometry == "same", config.use_batch_norm
    width1, width2 = config.hidden_sizes[:2]
    padding = 3 if same else CAFFE_PADDING
    stage1 = {
        "conv1": FCNConvolution(channels, width1, 7, batch_norm, stride=2, padding=padding),
        "pool1": FCNPooling(3, centred=same),
        "norm1": response_norm(config),
    }
    stage2 = {
        "conv2": FCNConvolution(width1, width1, 1, batch_norm),
        "conv3": FCNConvolution(width1, width2, 3, batch_norm, padding=1),
        "norm2": response_norm(config),
        "pool2": FCNPooling(3, centred=same),
    }
    stages: list[Layers] = [stage1, stage2]
    channels = width2
    for stage, blocks in INCEPTION_WIDTHS.items():
        layers: Layers = {}
        if stage > 3:
            layers[f"pool{stage - 1}"] = FCNPooling(2 if batch_norm and stage == 5 else 3, centred=same)
        for letter, widths in zip("abcde", blocks, strict=False):
            block = FCNInception(channels, tuple(width * width1 // 64 for width in widths), batch_norm)
            layers[f"inception{stage}{letter}"] = block
            channels = block.out_channels
        stages.append(layers)
    return stages, one_convolution(config, channels)


def response_norm(config: FCNConfig) -> nn.Module:
    """AlexNet's and the first GoogLeNet's, where the config wants it (arXiv:1409.4842; voc-fcn-alexnet/net.py)."""
    if not config.use_local_response_norm or (config.backbone == "googlenet" and config.use_batch_norm):
        return nn.Identity()
    return FCNLocalResponseNorm(5, alpha=1e-4, beta=0.75)


def fully_connected(config: FCNConfig, channels: int, kernel_size: int) -> Layers:
    """fc6 and fc7: fully connected layers are convolutions whose kernel covers their whole input (CVPR, section 3.1).

    VGG16's fc6 reads 7x7x512 and answers with 4096 values: a 7x7 convolution, 512 -> 4096.
    """
    same, width = config.geometry == "same", int(config.hidden_size or 0)
    # "same" keeps the size: an even kernel has one more row above its centre than below.
    even = {"pad6": nn.ZeroPad2d((0, 1, 0, 1))} if same and kernel_size % 2 == 0 else {}
    return {
        **even,
        "fc6": nn.Conv2d(channels, width, kernel_size, padding=(kernel_size - 1) // 2 if same else 0),
        "relu6": nn.ReLU(),
        "drop6": nn.Dropout(config.hidden_dropout_prob),
        "fc7": nn.Conv2d(width, width, 1),
        "relu7": nn.ReLU(),
        "drop7": nn.Dropout(config.hidden_dropout_prob),
    }


def one_convolution(config: FCNConfig, channels: int) -> Layers:
    """For classifiers whose only fully connected layer is the last one, which the scorer replaces.

    With a `hidden_size` a 3x3 convolution fc6 comes in between, as in the head of torchvision's FCN.
    """
    drop = {"drop6": nn.Dropout(config.hidden_dropout_prob)}
    if not config.hidden_size:
        return {**drop}
    return {"fc6": nn.Conv2d(channels, config.hidden_size, 3, padding=1), "relu6": nn.ReLU(), **drop}


# Height and width, in pixels, of a picture as crops are for training: a multiple of every stride.
TRAINED_SIZE = 256

# Likewise of one whose size no stride divides, which tells both the strides and whether a backbone drops what is left
# over; large enough to tell 14 (DINOv2) from 16.
PROBE = 225


class PaddingBefore(TorchFunctionMode):
    """Notes how much is padded before the first row and column of each map, by `F.pad`."""

    def __init__(self) -> None:
        super().__init__()
        self.amounts: list[list[int]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.pad:
            self.amounts.append(list(args[1] if len(args) > 1 else kwargs["pad"])[::2])
        return func(*args, **kwargs)


class Observed(NamedTuple):
    """What is seen of a backbone when pictures go through it.

    Args:
        sizes: width of each feature map of a picture of `PROBE` x `PROBE` pixels.
        channels: of each feature map.
        shifts: whether what it pads depends on the picture's size.
    """

    sizes: tuple[int, ...]
    channels: tuple[int, ...]
    shifts: bool


# By class and settings of the backbone's config: nets side by side mostly have the same one, and looking at it takes
# longer than building it.
OBSERVED: dict[tuple[type, str], Observed] = {}


@torch.no_grad()
def observed(backbone: nn.Module, backbone_config: Any) -> Observed:
    """What is seen of a backbone of this config: of this one, unless an earlier one had the same.

    Raises:
        `ValueError`: if it doesn't take pictures of any size.
    """
    key = (type(backbone_config), backbone_config.to_json_string(use_diff=False))
    if key in OBSERVED:
        return OBSERVED[key]
    parameter = next(backbone.parameters())
    paddings = []
    try:
        for size in (TRAINED_SIZE, PROBE):
            shape = (1, backbone_config.num_channels, size, size)
            picture = torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)
            with PaddingBefore() as padding:
                maps = backbone.eval()(picture).feature_maps
            paddings.append(padding.amounts)
    except Exception as error:  # whatever a backbone of fixed size raises, an AssertionError for one
        raise ValueError(
            f"backbone_config ({backbone_config.model_type}) takes no picture of {PROBE}x{PROBE}: {error} "
            "An FCN needs a backbone that takes pictures of any size."
        ) from error
    backbone.train()
    sizes, channels = (tuple(feature_map.shape[axis] for feature_map in maps) for axis in (-1, 1))
    OBSERVED[key] = Observed(sizes, channels, paddings[0] != paddings[1])
    return OBSERVED[key]


class FCNBackboneTrunk(nn.Module):
    """Any backbone of transformers or timm whose last feature maps have strides 8, 16 and 32 (or less, if dilated).

    It has the interface of `FCNTrunk`. Its positions are taken for the centres of squares of `stride` pixels, as
    resizing with `align_corners=False` does.

    Raises:
        `ValueError`: if it doesn't take pictures of any size, or its feature maps have other strides.
    """

    keeps_size = True

    def __init__(self, config: FCNConfig, channels: int):
        super().__init__()
        backbone_config: Any = deepcopy(config.backbone_config)
        backbone_config.num_channels = channels
        # Of the dtype that the whole model is built in, not of the one that its own file once had.
        backbone_config.dtype = None
        stage_names = getattr(backbone_config, "stage_names", None) or ()
        # The last map alone is the default of every backbone; any other choice is the user's.
        if list(getattr(backbone_config, "out_indices", None) or [-1]) in ([-1], [len(stage_names) - 1]):
            backbone_config.out_indices = [-3, -2, -1]
        self.backbone = AutoBackbone.from_config(backbone_config)

        seen = observed(self.backbone, backbone_config)
        tables = [{-(-PROBE // stride): stride, PROBE // stride: stride} for stride in (4, 8, 16, 32)]
        strides = [next((table[size] for table in tables if size in table), None) for size in seen.sizes]
        coarsest = strides[-1]
        allowed = [stride for stride in (32, 16, 8) if stride >= config.prediction_stride]
        skipped = {stride for stride in (8, 16) if config.prediction_stride <= stride < (coarsest or 0)}
        if coarsest not in allowed or not skipped <= set(strides):
            raise ValueError(
                f"The feature maps of backbone_config ({backbone_config.model_type}) have strides "
                f"{[stride or round(PROBE / size) for stride, size in zip(strides, seen.sizes, strict=True)]}; an FCN-"
                f"{config.prediction_stride}s scores maps of strides {sorted(allowed)}. Choose them with out_features, "
                "another prediction_stride, or another backbone."
            )
        # Picture sizes are padded to multiples of this for backbones that would drop the rest, and for those whose maps
        # lie elsewhere in pictures of other sizes, as TensorFlow's "same" padding has it: they would see a shifted
        # picture, unlike the crops that they were trained on.
        drops = any(size != -(-PROBE // stride) for size, stride in zip(seen.sizes, strides, strict=True) if stride)
        self.pad_to = coarsest if drops or seen.shifts else 1
        self.maps = {
            stride: FeatureMap(index, channels, CoordinateMap(stride, (stride - 1) / 2))
            for index, (stride, channels) in enumerate(zip(strides, seen.channels, strict=True))
            if stride is not None
        }
        last = self.maps[coarsest]
        self.classifier = nn.Sequential(OrderedDict(one_convolution(config, last.channels)))
        self.answer = FeatureMap(len(seen.sizes), config.hidden_size or last.channels, last.position)

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """`(B, C, H, W)` -> the backbone's feature maps and the answer."""
        if self.pad_to > 1:
            height, width = pixel_values.shape[-2:]
            pixel_values = F.pad(pixel_values, (0, -width % self.pad_to, 0, -height % self.pad_to))
        maps = list(self.backbone(pixel_values).feature_maps)
        return [*maps, self.classifier(maps[-1])]


class FCNStreams(nn.ModuleList):
    """Several trunks, each on channels of its own; their maps lie behind one another, to be scored together.

    It has the interface of `FCNTrunk`.
    """

    def __init__(self, config: FCNConfig, streams: Iterable[int]):
        self.streams = list(streams)
        trunks = [build_trunk(config, channels) for channels in self.streams]
        super().__init__(trunks)
        # All trunks are alike: their maps lie in the same places and have the same channels.
        first, count = trunks[0], len(trunks)
        self.keeps_size, self.pad_to = first.keeps_size, first.pad_to
        self.maps = {stride: map._replace(channels=map.channels * count) for stride, map in first.maps.items()}
        self.answer = first.answer._replace(channels=first.answer.channels * count)

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """`(B, sum of the streams, H, W)` -> each map of all trunks, joined by channels."""
        parts = pixel_values.split(self.streams, dim=1)
        maps = [trunk(part) for trunk, part in zip(self, parts, strict=True)]
        return [torch.cat(alike, dim=1) for alike in zip(*maps, strict=True)]


def build_trunk(config: FCNConfig, channels: int) -> FCNTrunk | FCNBackboneTrunk:
    """The trunk of one stream, which takes pictures of that many channels."""
    if config.backbone == "auto":
        return FCNBackboneTrunk(config, channels)
    layers = {"vgg": vgg_layers, "alexnet": alexnet_layers, "googlenet": googlenet_layers}[config.backbone]
    return FCNTrunk(*layers(config, channels))


__all__ = ["FCNBackboneTrunk", "FCNStage", "FCNStreams", "FCNTrunk", "FeatureMap", "build_trunk"]
