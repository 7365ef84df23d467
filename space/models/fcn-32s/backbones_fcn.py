"""Classifiers made fully convolutional: what comes before the scores of an FCN.

Each `add_*` function registers a classifier's layers on the model itself, under the names of the paper and of the
release, and returns a `Trunk` that says in which order they run and where their feature maps lie in the picture.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_fcn import FCNConfig
from .upsampling_fcn import CoordinateMap


@dataclass
class FeatureMap:
    """One of the maps that an FCN scores.

    Args:
        stage: index of the stage that ends with it.
        channels: its channels.
        position: where its positions lie in the picture.
    """

    stage: int
    channels: int
    position: CoordinateMap


@dataclass
class Trunk:
    """The layers of one stream, by name, and its feature maps.

    Args:
        suffix: of every name; empty for the first stream.
        stages: names of the layers of each stage, in order; empty for `backbone="auto"`.
        head: names of the layers between the last stage and the scores.
        maps: the deepest feature map at stride 8 and at stride 16, by stride.
        channels: of what `head` returns.
        position: of what `head` returns.
        fc6_is_padded: whether `head` keeps the size of the last map; otherwise it loses what fc6's kernel reaches over.
        pad_to: picture sizes are padded to multiples of this, for backbones that would drop the rest.
    """

    suffix: str
    stages: list[list[str]] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    maps: dict[int, FeatureMap] = field(default_factory=dict)
    channels: int = 3
    position: CoordinateMap = CoordinateMap()
    fc6_is_padded: bool = True
    pad_to: int = 1

    def add(self, model: nn.Module, name: str, layer: nn.Module) -> None:
        """Register a layer on the model and run it after those before it, in the present stage."""
        model.add_module(name + self.suffix, layer)
        self.stages[-1].append(name + self.suffix)


class FCNStage(GradientCheckpointingLayer):
    """One stage of layers; the unit of gradient checkpointing.

    A stage owns no weights. Its layers are the model's own, under the paper's names, and are handed over at each call.
    Under gradient checkpointing batch normalisation updates its running statistics twice a step, as a stage runs twice.
    """

    def forward(self, hidden_state: torch.Tensor, *layers: nn.Module) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        for layer in layers:
            hidden_state = layer(hidden_state)
        return hidden_state


class FCNPooling(nn.Module):
    """Max pooling with stride 2 of maps that are nowhere negative, with sizes rounded up as Caffe does.

    After ReLU a border of zeros changes no maximum, and unlike `ceil_mode=True` it puts no guard on even or odd sizes
    into `torch.export`.

    Args:
        kernel_size (`int`): 2 (VGG) or 3 (AlexNet, GoogLeNet).
        centred (`bool`): pad a kernel of 3 by 1 on both sides, so that any size from 1 on can be pooled; the release
            pads only where its rounding up demands it.
    """

    def __init__(self, kernel_size: int = 2, centred: bool = False):
        super().__init__()
        self.kernel_size = kernel_size
        self.padding = 1 if centred and kernel_size == 3 else 0

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C, H', W')`, half as large."""
        padded = F.pad(hidden_state, (self.padding, 1, self.padding, 1))
        return F.max_pool2d(padded, self.kernel_size, stride=2)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride=2, padding={self.padding}"


class FCNLocalResponseNorm(nn.LocalResponseNorm):
    """Half precisions are normalised in float32: float16 can't hold squares from 256 on, and CPUs lack the pooling."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> the same, in the same dtype."""
        half = input.dtype in (torch.float16, torch.bfloat16)
        return super().forward(input.float() if half else input).to(input.dtype)


class FCNInception(nn.Module):
    """GoogLeNet's block: 1x1, 3x3, 5x5 and pooled branches side by side, their channels behind one another.

    Names are torchvision's. With batch normalisation it is torchvision's block, whose third branch is 3x3; without, it
    is that of the paper (arXiv:1409.4842, table 1).

    Args:
        channels (`int`): coming in.
        widths (`tuple[int, ...]`): of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; and of the projection after the pooling.
        batch_norm (`bool`): see above.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], batch_norm: bool):
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        kernel = 3 if batch_norm else 5
        self.branch1 = FCNConvolution(channels, one, 1, batch_norm=batch_norm)
        self.branch2 = nn.Sequential(
            FCNConvolution(channels, reduce3, 1, batch_norm=batch_norm),
            FCNConvolution(reduce3, three, 3, padding=1, batch_norm=batch_norm),
        )
        self.branch3 = nn.Sequential(
            FCNConvolution(channels, reduce5, 1, batch_norm=batch_norm),
            FCNConvolution(reduce5, five, kernel, padding=kernel // 2, batch_norm=batch_norm),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), FCNConvolution(channels, projection, 1, batch_norm=batch_norm)
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H, W)`."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(hidden_state) for branch in branches], dim=1)


class FCNConvolution(nn.Module):
    """Convolution, batch normalisation if wanted, and ReLU: torchvision's `BasicConv2d`, with its names."""

    def __init__(self, channels: int, width: int, kernel_size: int, batch_norm: bool, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel_size, bias=not batch_norm, **kwargs)
        self.bn = nn.BatchNorm2d(width, eps=0.001) if batch_norm else nn.Identity()

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C', H', W')`."""
        return F.relu(self.bn(self.conv(hidden_state)))


# The release pads its first convolution by 100 px, so that fc6, unpadded, has an answer for every pixel.
CAFFE_PADDING = 100

# Widths of GoogLeNet's blocks (arXiv:1409.4842, table 1), by stage: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; projection.
INCEPTION_WIDTHS = {
    "3": [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
    "4": [
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ],
    "5": [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
}


def add_vgg(model: nn.Module, config: FCNConfig, channels: int, suffix: str) -> Trunk:
    """Stages of 3x3 convolutions, each ended by a 2x2 pooling; fc6 and fc7 as convolutions (CVPR, section 3.1)."""
    trunk = Trunk(suffix, channels=channels)
    same = config.geometry == "same"
    for stage, (width, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True), start=1):
        trunk.stages.append([])
        for layer in range(1, depth + 1):
            padding = CAFFE_PADDING if not same and stage == layer == 1 else 1
            trunk.add(model, f"conv{stage}_{layer}", nn.Conv2d(trunk.channels, width, 3, padding=padding))
            if config.use_batch_norm:
                trunk.add(model, f"bn{stage}_{layer}", nn.BatchNorm2d(width))
            trunk.stages[-1].append("relu")
            trunk.position = trunk.position.convolution(3, padding)
            trunk.channels = width
        trunk.add(model, f"pool{stage}", FCNPooling())
        trunk.position = trunk.position.convolution(2, stride=2)
        if stage in (3, 4):
            trunk.maps[2**stage] = FeatureMap(stage - 1, width, trunk.position)
    add_fully_connected(model, config, trunk, kernel_size=7)
    return trunk


def add_alexnet(model: nn.Module, config: FCNConfig, channels: int, suffix: str) -> Trunk:
    """AlexNet as the release has it (voc-fcn-alexnet/net.py): five convolutions and three 3x3 poolings."""
    trunk = Trunk(suffix, channels=channels)
    same = config.geometry == "same"
    # kernel size, padding, stride, whether it is grouped, whether a pooling follows
    layers = [
        (11, 5 if same else CAFFE_PADDING, 4, False, True),
        (5, 2, 1, True, True),
        (3, 1, 1, False, False),
        (3, 1, 1, True, False),
        (3, 1, 1, True, True),
    ]
    for number, (width, (kernel_size, padding, stride, grouped, pooled)) in enumerate(
        zip(config.hidden_sizes, layers, strict=True), start=1
    ):
        if number <= 3:
            trunk.stages.append([])
        if number in (2, 3) and config.use_local_response_norm:
            trunk.add(model, f"norm{number - 1}", FCNLocalResponseNorm(5, alpha=1e-4, beta=0.75))
        groups = config.conv_groups if grouped else 1
        convolution = nn.Conv2d(trunk.channels, width, kernel_size, stride=stride, padding=padding, groups=groups)
        trunk.add(model, f"conv{number}", convolution)
        trunk.stages[-1].append("relu")
        trunk.position = trunk.position.convolution(kernel_size, padding, stride)
        trunk.channels = width
        if pooled:
            trunk.add(model, f"pool{number}", FCNPooling(3, centred=same))
            trunk.position = trunk.position.convolution(3, int(same), 2)
        if number < 3:
            trunk.maps[round(trunk.position.scale)] = FeatureMap(number - 1, width, trunk.position)
    add_fully_connected(model, config, trunk, kernel_size=6)
    return trunk


def add_googlenet(model: nn.Module, config: FCNConfig, channels: int, suffix: str) -> Trunk:
    """GoogLeNet: two convolutions and nine inception blocks. Its classifier is one layer, which the scorer replaces.

    With batch normalisation it is torchvision's net, whose last pooling is 2x2; without, the paper's with its local
    response normalisation. Scores come from the deepest map of each stride: of block 3b at 8 and of block 4e at 16.
    """
    trunk = Trunk(suffix, stages=[[]], channels=channels)
    same, batch_norm = config.geometry == "same", config.use_batch_norm
    ratio = config.hidden_sizes[0] / 64
    width1, width2 = config.hidden_sizes[:2]
    padding = 3 if same else CAFFE_PADDING

    def pool(number: int, kernel_size: int = 3) -> None:
        trunk.add(model, f"pool{number}", FCNPooling(kernel_size, centred=same))
        trunk.position = trunk.position.convolution(kernel_size, int(same and kernel_size == 3), 2)

    def normalise(number: int) -> None:
        if not batch_norm and config.use_local_response_norm:
            trunk.add(model, f"norm{number}", FCNLocalResponseNorm(5, alpha=1e-4, beta=0.75))

    trunk.add(model, "conv1", FCNConvolution(channels, width1, 7, batch_norm, stride=2, padding=padding))
    trunk.position = trunk.position.convolution(7, padding, 2)
    pool(1)
    normalise(1)
    trunk.stages.append([])
    trunk.add(model, "conv2", FCNConvolution(width1, width1, 1, batch_norm))
    trunk.add(model, "conv3", FCNConvolution(width1, width2, 3, batch_norm, padding=1))
    normalise(2)
    pool(2)
    trunk.channels = width2
    for stage, blocks in INCEPTION_WIDTHS.items():
        trunk.stages.append([])
        if stage != "3":
            pool(int(stage) - 1, 2 if batch_norm and stage == "5" else 3)
        for letter, widths in zip("abcde", blocks, strict=False):
            scaled = tuple(round(width * ratio) for width in widths)
            trunk.add(model, f"inception{stage}{letter}", FCNInception(trunk.channels, scaled, batch_norm))
            trunk.channels = scaled[0] + scaled[2] + scaled[4] + scaled[5]
        if stage != "5":
            trunk.maps[2 ** int(stage)] = FeatureMap(len(trunk.stages) - 1, trunk.channels, trunk.position)
    add_convolutional_head(model, config, trunk)
    return trunk


def add_backbone(model: nn.Module, config: FCNConfig, channels: int, suffix: str) -> Trunk:
    """Any backbone of transformers or timm whose last feature maps have strides 8, 16 and 32 (or less, if dilated).

    Its positions are taken for the centres of squares of `stride` pixels, as resizing with `align_corners=False` does.

    Raises:
        `ValueError`: if its feature maps have other strides.
    """
    backbone_config: Any = deepcopy(config.backbone_config)
    backbone_config.num_channels = channels
    # Of the dtype that the whole model is built in, not of the one that its own file once had.
    backbone_config.dtype = None
    stage_names = getattr(backbone_config, "stage_names", None) or ()
    # The last map alone is the default of every backbone; any other choice is the user's.
    if list(getattr(backbone_config, "out_indices", None) or [-1]) in ([-1], [len(stage_names) - 1]):
        backbone_config.out_indices = [-3, -2, -1]
    backbone = AutoBackbone.from_config(backbone_config)
    model.add_module("backbone" + suffix, backbone)
    trunk = Trunk(suffix, channels=channels)

    # A size that no stride divides tells both the strides and whether the backbone drops what is left over; it is large
    # enough to tell 14 (DINOv2) from 16.
    probe = 225
    parameter = next(backbone.parameters())
    with torch.no_grad():
        picture = torch.zeros(1, channels, probe, probe, device=parameter.device, dtype=parameter.dtype)
        maps = backbone.eval()(picture).feature_maps
    backbone.train()
    sizes = [feature_map.shape[-1] for feature_map in maps]
    strides = [{-(-probe // s): s, probe // s: s} for s in (4, 8, 16, 32)]
    found = [next((table[size] for table in strides if size in table), None) for size in sizes]
    allowed = [stride for stride in (32, 16, 8) if stride >= config.prediction_stride]
    if found[-1] not in allowed or not {s for s in (8, 16) if config.prediction_stride <= s < found[-1]} <= set(found):
        raise ValueError(
            f"The feature maps of backbone_config ({backbone_config.model_type}) have strides "
            f"{[stride or round(probe / size) for stride, size in zip(found, sizes, strict=True)]}; an FCN-"
            f"{config.prediction_stride}s scores maps of strides {[s for s in (8, 16, 32) if s in allowed]}. Choose "
            "them with out_features, another prediction_stride, or another backbone."
        )
    for stage, (stride, feature_map) in enumerate(zip(found, maps, strict=True)):
        if stride is not None and stride < found[-1]:
            trunk.maps[stride] = FeatureMap(stage, feature_map.shape[1], CoordinateMap(stride, (stride - 1) / 2))
    if any(size != -(-probe // stride) for size, stride in zip(sizes, found, strict=True) if stride):
        trunk.pad_to = found[-1]
    trunk.channels = maps[-1].shape[1]
    trunk.position = CoordinateMap(found[-1], (found[-1] - 1) / 2)
    add_convolutional_head(model, config, trunk)
    return trunk


def add_fully_connected(model: nn.Module, config: FCNConfig, trunk: Trunk, kernel_size: int) -> None:
    """fc6 and fc7: fully connected layers are convolutions whose kernel covers their whole input (CVPR, section 3.1).

    VGG16's fc6 reads 7x7x512 and answers with 4096 values: a 7x7 convolution, 512 -> 4096.
    """
    same = config.geometry == "same"
    # "same" keeps the size: an even kernel has one more row above its centre than below.
    padding = (kernel_size - 1) // 2 if same else 0
    hidden_size = int(config.hidden_size or 0)
    if same and kernel_size % 2 == 0:
        model.add_module(f"pad6{trunk.suffix}", nn.ZeroPad2d((0, 1, 0, 1)))
        trunk.head.append(f"pad6{trunk.suffix}")
    fc6 = nn.Conv2d(trunk.channels, hidden_size, kernel_size, padding=padding)
    model.add_module(f"fc6{trunk.suffix}", fc6)
    model.add_module(f"fc7{trunk.suffix}", nn.Conv2d(hidden_size, hidden_size, 1))
    trunk.head += [f"fc6{trunk.suffix}", "relu", "dropout", f"fc7{trunk.suffix}", "relu", "dropout"]
    trunk.channels, trunk.fc6_is_padded = hidden_size, same
    trunk.position = trunk.position.convolution(kernel_size, padding)


def add_convolutional_head(model: nn.Module, config: FCNConfig, trunk: Trunk) -> None:
    """For classifiers whose only fully connected layer is the last one, which the scorer replaces.

    With a `hidden_size` a 3x3 convolution fc6 comes in between, as in the head of torchvision's FCN.
    """
    if config.hidden_size:
        model.add_module(f"fc6{trunk.suffix}", nn.Conv2d(trunk.channels, config.hidden_size, 3, padding=1))
        trunk.head += [f"fc6{trunk.suffix}", "relu"]
        trunk.channels = config.hidden_size
    trunk.head.append("dropout")


ADD_TRUNK = {"vgg": add_vgg, "alexnet": add_alexnet, "googlenet": add_googlenet, "auto": add_backbone}


__all__ = ["ADD_TRUNK", "FCNStage", "Trunk"]
