"""The FCNs of the authors' Caffe release -> `FCNForSemanticSegmentation`.

The net is recognised from its layers' names and shapes alone (net.py of each net in the release). What the weights
can't tell, the mean and the meaning of the input channels, comes from the data layer that a file of the release names,
or else from the number of channels and the mean that most of the nets share.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..configuration_fcn import FCNConfig
from ..label_sets import (
    NYUD_40,
    PASCAL_CONTEXT,
    SIFT_FLOW,
    SIFT_FLOW_GEOMETRIC,
    VOC,
    LabelSet,
    class_names,
)
from ..palettes import voc_palette
from .caffe_file import CaffeBlob, CaffeLayer, read_caffemodel
from .model_folder import (
    RELEASE_MEAN,
    Conversion,
    ConversionError,
    caffe_processor,
    checked_config,
    describe_config,
    one_kernel_each,
)
from .published import PUBLISHED

LABEL_SETS = {len(labels.labels): labels for labels in (VOC, PASCAL_CONTEXT, SIFT_FLOW, NYUD_40)}
TASKS = {"_sem": "semantic", "_geo": "geometric"}
Tensor = np.ndarray | CaffeBlob
# 3x3 convolutions in each stage of VGG11, 13, 16 and 19 (arXiv:1409.1556, table 1).
VGG_DEPTHS = ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4))

# Means of each kind of input, in 0..255, in the order of a picture's channels (so RGB where Caffe has BGR): those of
# the release's infer.py and nyud_layers.py; then those of data layers that have others.
MEANS: dict[str, dict[str, Sequence[float]]] = {
    "": {"color": RELEASE_MEAN, "hha": (132.431, 94.076, 118.477), "depth": (7.844,)},
    "siftflow_layers": {"color": (108.353, 115.294, 114.578)},
    "nyud_layers": {"color": (92.318, 97.203, 116.190)},
}
KINDS = {1: ["depth"], 3: ["color"], 4: ["color", "depth"]}
CHANNELS = {"color": 3, "hha": 3, "depth": 1}


def convert_caffe(path: str | Path, inputs: Sequence[str] | None = None) -> Conversion:
    """Recognise the net in a `.caffemodel` and say how each of its blobs becomes a tensor.

    Args:
        path: of the file; its numbers are left there until the model folder is written.
        inputs: what the input channels are, of "color", "hha" and "depth", in order; found out where left out.

    Raises:
        `CaffeFileError`: if it isn't a whole `.caffemodel`.
        `ConversionError`: if its layers aren't those of an FCN, naming the layer and what was expected.
    """
    path = Path(path)
    layers = read_caffemodel(path)
    weights = {layer.name: layer.blobs for layer in layers if layer.blobs}
    return _CaffeNet(
        path.name, weights, next((layer for layer in layers if layer.python_module), None), inputs
    ).convert()


class _CaffeNet:
    """One file's layers, taken out of `blobs` as they are understood; what is left over at the end is an error."""

    def __init__(
        self,
        source: str,
        blobs: Mapping[str, tuple[CaffeBlob, ...]],
        data_layer: CaffeLayer | None,
        inputs: Sequence[str] | None,
    ):
        self.source = source
        self.blobs = dict(blobs)
        self.data_layer = data_layer
        self.inputs = inputs
        self.tensors: dict[str, Tensor] = {}
        self.factors: dict[str, np.ndarray] = {}
        self.notes: list[str] = []
        self.mean_source = ""

    def error(self, message: str) -> ConversionError:
        return ConversionError(f"{self.source}: {message}")

    def matches(self, pattern: str) -> list[str]:
        """What `pattern`'s group matches in the names of the layers, in the order of the file."""
        return [match[1] for name in self.blobs if (match := re.fullmatch(pattern, name))]

    def take(self, name: str, count: int) -> tuple[CaffeBlob, ...]:
        """The blobs of a layer, without those axes of length 1 that older files put in front of biases."""
        if name not in self.blobs:
            raise self.error(f"the layer {name!r} is missing.")
        blobs = self.blobs.pop(name)
        if len(blobs) != count:
            raise self.error(f"the layer {name!r} has {len(blobs)} blobs; expected {count}.")
        if len(blobs[0].shape) != 4 and count > 1:
            raise self.error(f"the weights of layer {name!r} have shape {blobs[0].shape}; expected 4 axes.")
        for blob in blobs[1:]:
            if blob.shape[-1:] != (int(np.prod(blob.shape)),) or blob.shape[-1] != blobs[0].shape[0]:
                raise self.error(f"the bias of layer {name!r} has shape {blob.shape}; expected {blobs[0].shape[:1]}.")
        return (blobs[0], *(dataclasses.replace(blob, shape=blob.shape[-1:]) for blob in blobs[1:]))

    def convolution(self, name: str, ours: str) -> tuple[int, ...]:
        """Take over weight and bias of a convolution; returns the weight's shape."""
        weight, bias = self.take(name, 2)
        self.tensors[f"{ours}.weight"], self.tensors[f"{ours}.bias"] = weight, bias
        return weight.shape

    def convert(self) -> Conversion:
        first = self.matches(r"conv1_1(.*)")
        backbone = "vgg" if first else "alexnet"
        first = first or self.matches(r"conv1(?!_\d)(.*)")
        if not first:
            found = ", ".join(list(self.blobs)[:5])
            raise self.error(f"neither conv1_1 (VGG) nor conv1 (AlexNet) is among its layers ({found}, ...).")
        score_suffixes = self.matches(r"score_fr(.*)")
        if not score_suffixes:
            classifier = "; it has fc8, so it is a classifier, not an FCN" if "fc8" in self.blobs else ""
            raise self.error(f"the layer 'score_fr' is missing{classifier}.")
        trunks = self.matches(r"fc6(.*)")
        # Two trunks end in the names of their inputs.
        suffixes = [""] if "" in trunks else list(dict.fromkeys([*first, *trunks]))
        if len(suffixes) == 1 and first[0]:
            # The early fusion of colour and depth calls its first layer conv1_1_bgrd, and nothing else differently.
            name = "conv1_1" if backbone == "vgg" else "conv1"
            self.blobs[name] = self.blobs.pop(name + first[0])
            suffixes = [""]
        channels, sizes = [], []
        for number, suffix in enumerate(suffixes, start=1):
            sizes.append(self.trunk(backbone, suffix, f"_stream{number}" if number > 1 else ""))
            channels.append(sizes[-1].pop("num_channels"))
            if sizes[-1] != sizes[0]:
                raise self.error(f"the trunks {suffixes} differ: {sizes[0]} and {sizes[-1]}; expected equal ones.")
        settings, kinds, means = sizes[0], self.kinds(channels, suffixes), self.means()
        for number, stream_kinds in enumerate(kinds, start=1):
            self.reverse_colours(backbone, stream_kinds, f"_stream{number}" if number > 1 else "")

        tasks = [""] if len(suffixes) > 1 else score_suffixes
        if len(suffixes) > 1 and sorted(score_suffixes) != sorted(suffixes):
            raise self.error(f"score_fr is there as {score_suffixes}; expected one for each task or trunk {suffixes}.")
        stride, upscore = self.stride(tasks[0])
        scales = [1.0, 1.0]
        counts = {}
        for suffix in tasks:
            task = TASKS.get(suffix, suffix.strip("_"))
            ours = f"_{task}" if len(tasks) > 1 else ""
            counts[task] = self.head(suffix, ours, suffixes, stride, upscore, scales)
        if stride == 8 and len(scaled := {pool[:5] for pool in self.factors}) == 1:
            (other,) = {"pool4", "pool3"} - scaled
            raise self.error(f"the layer 'scale_{other}' is missing; expected it beside 'scale_{scaled.pop()}'.")
        if self.blobs:
            raise self.error(f"the layer {next(iter(self.blobs))!r} isn't part of an FCN-{stride}s.")

        geometric = {"geometric": SIFT_FLOW_GEOMETRIC}
        labels = [
            labels if (labels := geometric.get(task)) and len(labels.labels) == count else LABEL_SETS.get(count)
            for task, count in counts.items()
        ]
        main = next(iter(counts.values()))
        config = checked_config(
            self.source,
            backbone=backbone,
            prediction_stride=stride,
            geometry="caffe",
            upsampling="bilinear",
            skip_scales=scales,
            streams=channels if len(channels) > 1 else None,
            num_channels=sum(channels),
            tasks=counts if len(counts) > 1 else None,
            id2label=class_names(labels[0], main),
            id2label_by_task={
                task: class_names(label_set, count)
                for (task, count), label_set in zip(counts.items(), labels, strict=True)
            }
            if len(counts) > 1
            else None,
            palette=voc_palette(main),
            **settings,
        )
        flat_kinds = [kind for stream_kinds in kinds for kind in stream_kinds]
        mean = [value for kind in flat_kinds for value in means[kind]]
        order = {
            "color": "red, green, blue",
            "hha": "H, H, A (horizontal disparity, height, angle)",
            "depth": "log depth",
        }
        self.notes.insert(0, f"Recognised from names and shapes of the layers: {describe_config(config)}.")
        colour = ", and the first convolution takes RGB where Caffe's took BGR" if "color" in flat_kinds else ""
        self.notes.append(
            f"Input channels: {'; '.join(order[kind] for kind in flat_kinds)}. The means subtracted from them, "
            f"{', '.join(f'{value:g}' for value in mean)}, are {self.mean_source}; they stand in the preprocessor's "
            f"config{colour}."
        )
        published = self.published(config, labels[0], flat_kinds)
        if published is not None:
            self.notes.append(f"Published score of {published.name}: {published.score}.")
        title = f"FCN-{stride}s" if backbone == "vgg" else "FCN-AlexNet"
        if labels[0] is not None:
            title += f", {labels[0].name}"
        return Conversion(
            config=config,
            processor=caffe_processor(mean, main),
            tensors=self.tensors,
            title=title,
            description='A net of the reference release of "Fully Convolutional Networks for Semantic Segmentation" '
            "(Long, Shelhamer, Darrell; CVPR 2015, PAMI 2016), converted from Caffe with the release's geometry.",
            source=self.source,
            notes=self.notes,
            license_note="those of the authors' release are for unrestricted use (its README). ImageNet and the "
            "datasets that they were trained on have terms of their own.",
        )

    def trunk(self, backbone: str, suffix: str, ours: str) -> dict:
        """Take over conv1_1 ... fc7 of one trunk; returns the config's settings for it."""
        sizes: list[int] = []
        depths: list[int] = []
        inputs: list[int] = []
        for stage in range(1, 6):
            names = [f"conv{stage}"]
            if backbone == "vgg":
                layers = sorted(map(int, self.matches(rf"conv{stage}_(\d+){re.escape(suffix)}")))
                names = [f"conv{stage}_{layer}" for layer in range(1, max([1, *layers]) + 1)]
            shapes = [self.convolution(name + suffix, name + ours) for name in names]
            if {shape[0] for shape in shapes} != {shapes[0][0]}:
                widths = [shape[0] for shape in shapes]
                raise self.error(f"the layers {names} have {widths} channels; expected one number throughout a stage.")
            sizes.append(shapes[0][0])
            depths.append(len(names))
            inputs.append(shapes[0][1])
        if backbone == "vgg":
            self.check_depths(depths, suffix)
        hidden_size = self.convolution(f"fc6{suffix}", f"fc6{ours}")[0]
        self.convolution(f"fc7{suffix}", f"fc7{ours}")
        settings: dict = {"num_channels": inputs[0], "hidden_sizes": sizes, "hidden_size": hidden_size}
        return settings | ({"depths": depths} if backbone == "vgg" else {"conv_groups": max(1, sizes[0] // inputs[1])})

    def check_depths(self, depths: list[int], suffix: str) -> None:
        """Refuse all but VGG's own depths: a file that lacks the last convolution of a stage would go unnoticed."""
        if tuple(depths) in VGG_DEPTHS:
            return
        for vgg in VGG_DEPTHS:
            if all(depth <= most for depth, most in zip(depths, vgg, strict=True)):
                stage = next(stage for stage in range(5) if depths[stage] < vgg[stage])
                name = f"conv{stage + 1}_{depths[stage] + 1}{suffix}"
                raise self.error(
                    f"the layer {name!r} is missing; its stages have {depths} convolutions, expected {list(vgg)} as in "
                    f"VGG{sum(vgg) + 3}."
                )
        raise self.error(f"its stages have {depths} convolutions; expected those of VGG11, 13, 16 or 19.")

    def stride(self, task: str) -> tuple[int, str]:
        """The prediction stride and the name of the last upsampling, without the task's suffix."""
        for stride, name in ((8, "upscore8"), (16, "upscore16"), (32, "upscore32"), (32, "upscore")):
            if name + task in self.blobs:
                return stride, name
        raise self.error(f"none of the layers upscore{task}, upscore16{task}, upscore8{task} is there; expected one.")

    def head(self, task: str, ours: str, streams: list[str], stride: int, upscore: str, scales: list[float]) -> int:
        """Take over one task's scorers and upsamplings; returns its number of classes."""
        scorers = ["score_fr", *["score_pool4", "score_pool3"][: {32: 0, 16: 1, 8: 2}[stride]]]
        counts = set()
        for scorer in scorers:
            weights: list[Tensor] = []
            biases: list[Tensor] = []
            for stream in streams:
                weight, bias = self.take(scorer + task + stream, 2)
                counts.add(weight.shape[0])
                pool = scorer.removeprefix("score_") + stream
                weights.append(self.scale(pool, f"{scorer}{ours}.weight", weight, scales, len(streams) == 1))
                biases.append(bias)
            if len(streams) > 1:
                # Caffe averages the scores of its streams; here one scorer reads the maps of all of them.
                weights = [np.concatenate([read(weight) for weight in weights], axis=1) / len(streams)]
                biases = [np.mean([read(bias) for bias in biases], axis=0)]
            self.tensors[f"{scorer}{ours}.weight"], self.tensors[f"{scorer}{ours}.bias"] = weights[0], biases[0]
        if len(counts) > 1:
            raise self.error(f"the layers {scorers} score {sorted(counts)} classes; expected one number.")
        upsamplings = {upscore: f"upscore{stride}"}
        for name in ("upscore2", "upscore_pool4")[: len(scorers) - 1]:
            upsamplings[name] = name
        for theirs, name in upsamplings.items():
            self.tensors[f"{name}{ours}.weight"] = self.upsampling(theirs + task)
        return counts.pop()

    def scale(self, pool: str, name: str, scorer: CaffeBlob, scales: list[float], alone: bool) -> Tensor:
        """A scorer's weight with the factor on its pooled map, of the net trained at once (voc-fcn8s-atonce/net.py).

        Several tasks share it. One factor for all channels of the one stream goes into the config; others, which it
        has no place for, into the scorer.
        """
        if f"scale_{pool}" in self.blobs:
            self.factors[pool] = self.take(f"scale_{pool}", 1)[0].read().reshape(-1)
        if pool not in self.factors:
            return scorer
        factors = self.factors[pool]
        if len(factors) not in (1, scorer.shape[1]):
            raise self.error(f"the layer 'scale_{pool}' has {len(factors)} factors; expected {scorer.shape[1]}.")
        if alone and len(set(factors.tolist())) == 1:
            scales[0 if pool.startswith("pool4") else 1] = float(factors[0])
            return scorer
        self.notes.append(f"The factors of scale_{pool} differ by channel or stream; {name} was multiplied by them.")
        return scorer.read() * factors[None, :, None, None]

    def upsampling(self, name: str) -> np.ndarray:
        """One kernel for each class."""
        (blob,) = self.take(name, 1)
        return one_kernel_each(blob.read(), f"the layer {name!r}", self.source)

    def reverse_colours(self, backbone: str, kinds: list[str], ours: str) -> None:
        """Turn the first convolution's colour channels from BGR to RGB."""
        name = ("conv1_1" if backbone == "vgg" else "conv1") + f"{ours}.weight"
        weight = self.tensors[name]
        if "color" in kinds and isinstance(weight, CaffeBlob):
            start = sum(CHANNELS[kind] for kind in kinds[: kinds.index("color")])
            reversed_weight = weight.read()
            reversed_weight[:, start : start + 3] = reversed_weight[:, start : start + 3][:, ::-1].copy()
            self.tensors[name] = reversed_weight

    def data_settings(self) -> dict:
        """The settings of the data layer, where the file has one."""
        if self.data_layer is None:
            return {}
        try:
            settings = ast.literal_eval(self.data_layer.python_parameters)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return {}
        return settings if isinstance(settings, dict) else {}

    def kinds(self, channels: list[int], suffixes: list[str]) -> list[list[str]]:
        """What the channels of each stream are: as asked for, as the data layer says, as the trunks are called, or as
        most likely from their number."""
        tops = self.data_settings().get("tops")
        named = [top for top in tops if top != "label"] if isinstance(tops, tuple | list) else []
        # Only nyud_layers.py names tops by what they are; data layers of others say "data", for one.
        given = list(self.inputs or (named if all(top in list(CHANNELS) for top in named) else []))
        if not given and len(suffixes) > 1 and set(suffixes) <= set(CHANNELS):
            given = suffixes
        if not given:
            unknown = [count for count in channels if count not in KINDS]
            if unknown:
                raise self.error(f"its first layer takes {unknown[0]} channels; expected 3 (colour) or 4 (with depth).")
            return [KINDS[count] for count in channels]
        if not set(given) <= set(CHANNELS):
            raise self.error(f"the inputs {given} aren't all among {list(CHANNELS)}.")
        streams, rest = [], list(given)
        for count in channels:
            kinds: list[str] = []
            while rest and sum(CHANNELS[kind] for kind in kinds) < count:
                kinds.append(rest.pop(0))
            streams.append(kinds)
        found = [sum(CHANNELS[kind] for kind in kinds) for kinds in streams]
        if rest or found != channels:
            raise self.error(f"its first layers take {channels} channels; the inputs {given} don't make up these.")
        return streams

    def means(self) -> dict[str, Sequence[float]]:
        """The mean of each kind of input, and in `mean_source` where it is from."""
        means: dict[str, Sequence[float]] = dict(MEANS[""])
        mean = self.data_settings().get("mean")
        self.mean_source = "those of the release's infer.py, as the file names no data layer that has others"
        if self.data_layer is not None and self.data_layer.python_module in MEANS:
            means |= MEANS[self.data_layer.python_module]
            self.mean_source = f"those of the release's {self.data_layer.python_module}.py, which the file names"
        elif self.data_layer is not None and mean is not None and is_colour(mean):
            means["color"] = tuple(map(float, mean[::-1]))
            self.mean_source = f"those of the data layer {self.data_layer.name!r} in the file"
        return means

    def published(self, config: FCNConfig, labels: LabelSet | None, kinds: list[str]):
        """The net of the release that this is, if it is one of them at full size."""
        full = FCNConfig(backbone=config.backbone)
        sizes = ("hidden_sizes", "hidden_size", "depths")
        if any(
            np.atleast_1d(getattr(config, name)).tolist() != np.atleast_1d(getattr(full, name)).tolist()
            for name in sizes
        ):
            return None
        at_once = tuple(config.skip_scales) != (1.0, 1.0)
        for net in PUBLISHED:
            if (net.labels, net.backbone, net.prediction_stride, net.inputs, net.at_once) == (
                labels,
                config.backbone,
                config.prediction_stride,
                tuple(kinds),
                at_once,
            ):
                return net
        return None


def read(tensor: Tensor) -> np.ndarray:
    """Its numbers in memory."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.read()


def is_colour(value: object) -> bool:
    """Whether a data layer's setting is three numbers."""
    return isinstance(value, tuple | list) and len(value) == 3 and all(isinstance(part, int | float) for part in value)
