"""The 15 nets of the FCN release with random weights, as Caffe would save and run them (OpenCV runs them here).

Independent of fcn_hf: layers are given by their prototxt and the shapes of their blobs, weights are made and
serialised here, and answers come from OpenCV's importer, which reads Caffe's files with Caffe's own caffe.proto.
OpenCV 4 is needed, as OpenCV 5 has no such importer.
"""

import math
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CHUNK = 2**22


@dataclass(frozen=True)
class PublishedNet:
    """What tells one published net from the others.

    `heads` gives the classes of each output, `inputs` the channels of each input in the order of the data layer's tops,
    `skip_scales` the factors of pool4 and pool3 before their scorers, `data` the module and class of the data layer.
    """

    heads: dict[str, int]
    stride: int
    data: tuple[str, str]
    inputs: dict[str, int] = field(default_factory=lambda: {"data": 3})
    backbone: str = "vgg16"
    skip_scales: tuple[float, float] | None = None
    parameters: dict = field(default_factory=dict)


VOC = {
    "heads": {"score": 21},
    "data": ("voc_layers", "SBDDSegDataLayer"),
    "parameters": {"sbdd_dir": "../../data/sbdd", "mean": (104.00699, 116.66877, 122.67892)},
}
CONTEXT = {
    "heads": {"score": 60},
    "data": ("pascalcontext_layers", "PASCALContextSegDataLayer"),
    "parameters": {"voc_dir": "../../data/pascal", "context_dir": "../../data/pascal-context"},
}
SIFTFLOW = {
    "heads": {"score_sem": 33, "score_geo": 3},
    "data": ("siftflow_layers", "SIFTFlowSegDataLayer"),
    "parameters": {"siftflow_dir": "../data/sift-flow"},
}


def nyud(*tops: str, **settings) -> PublishedNet:
    parameters = {"nyud_dir": "../data/nyud", "tops": [*tops, "label"]}
    return PublishedNet({"score": 40}, 32, ("nyud_layers", "NYUDSegDataLayer"), parameters=parameters, **settings)


PUBLISHED: dict[str, PublishedNet] = {
    "voc-fcn32s": PublishedNet(stride=32, **VOC),
    "voc-fcn16s": PublishedNet(stride=16, **VOC),
    "voc-fcn8s": PublishedNet(stride=8, **VOC),
    "voc-fcn8s-atonce": PublishedNet(stride=8, skip_scales=(0.01, 0.0001), **VOC),
    "voc-fcn-alexnet": PublishedNet(stride=32, backbone="alexnet", **VOC),
    "pascalcontext-fcn32s": PublishedNet(stride=32, **CONTEXT),
    "pascalcontext-fcn16s": PublishedNet(stride=16, **CONTEXT),
    "pascalcontext-fcn8s": PublishedNet(stride=8, **CONTEXT),
    "siftflow-fcn32s": PublishedNet(stride=32, **SIFTFLOW),
    "siftflow-fcn16s": PublishedNet(stride=16, **SIFTFLOW),
    "siftflow-fcn8s": PublishedNet(stride=8, **SIFTFLOW),
    "nyud-fcn32s-color": nyud("color"),
    "nyud-fcn32s-hha": nyud("hha"),
    "nyud-fcn32s-color-d": nyud("color", "depth", inputs={"color": 3, "depth": 1}),
    "nyud-fcn32s-color-hha": nyud("color", "hha", inputs={"color": 3, "hha": 3}),
}


@dataclass(frozen=True)
class Blob:
    """Numbers in the making: `chunks()` yields flat float32 arrays that fill `shape` in C order."""

    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray) -> "Blob":
        return cls(array.shape, lambda: iter([np.ascontiguousarray(array, "<f4").reshape(-1)]))

    def array(self) -> np.ndarray:
        return np.concatenate(list(self.chunks())).reshape(self.shape)


@dataclass(frozen=True)
class Layer:
    """A layer as its prototxt gives it: `settings` holds all but the names; an in-place layer's top is its bottom."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    top: str
    settings: str = ""
    blobs: tuple[Blob, ...] = ()

    def prototxt(self) -> str:
        bottoms = " ".join(f'bottom: "{bottom}"' for bottom in self.bottoms)
        return f'layer {{ name: "{self.name}" type: "{self.type}" {bottoms} top: "{self.top}" {self.settings} }}'


def random_chunks(shape: tuple[int, ...], scale: float, seed: str) -> Iterator[np.ndarray]:
    generator = np.random.Generator(np.random.SFC64(zlib.crc32(seed.encode())))
    missing = math.prod(shape)
    while missing:
        chunk = generator.standard_normal(min(CHUNK, missing), dtype=np.float32)
        missing -= chunk.size
        chunk *= np.float32(scale)
        yield chunk


def bilinear_chunks(classes: int, kernel_size: int) -> Iterator[np.ndarray]:
    """A class's own kernel interpolates bilinearly, all others are zero (`interp` of the release's surgery.py)."""
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 else factor - 0.5
    tent = 1 - abs(np.arange(kernel_size) - centre) / factor
    for label in range(classes):
        kernels = np.zeros((classes, kernel_size, kernel_size), np.float32)
        kernels[label] = np.outer(tent, tent)
        yield kernels.reshape(-1)


class Net:
    """Layers one after the other; each method appends some and returns the name of their result."""

    def __init__(self, name: str):
        self.name = name
        self.layers: list[Layer] = []
        self.channels = dict(PUBLISHED[name].inputs)

    def add(self, name: str, type: str, *bottoms: str, settings="", blobs=(), channels=None, in_place=False) -> str:
        top = bottoms[0] if in_place else name
        self.channels[top] = channels or self.channels[bottoms[0]]
        self.layers.append(Layer(name, type, bottoms, top, settings, tuple(blobs)))
        return top

    def convolution(self, name, bottom, channels, kernel_size, pad=0, stride=1, group=1, scale=1.0) -> str:
        """Kaiming weights times `scale`, and biases that are large enough to be missed."""
        shape = (channels, self.channels[bottom] // group, kernel_size, kernel_size)
        deviation = scale * math.sqrt(2 / math.prod(shape[1:]))
        blobs = (
            Blob(shape, partial(random_chunks, shape, deviation, f"{self.name} {name} weight")),
            Blob((channels,), partial(random_chunks, (channels,), 0.1, f"{self.name} {name} bias")),
        )
        settings = f"num_output: {channels} kernel_size: {kernel_size} pad: {pad} stride: {stride} group: {group}"
        settings = f"convolution_param {{ {settings} }}"
        return self.add(name, "Convolution", bottom, settings=settings, blobs=blobs, channels=channels)

    def relu(self, bottom: str) -> str:
        return self.add(f"relu_{bottom}", "ReLU", bottom, in_place=True)

    def dropout(self, bottom: str) -> str:
        return self.add(
            f"drop_{bottom}", "Dropout", bottom, settings="dropout_param { dropout_ratio: 0.5 }", in_place=True
        )

    def pool(self, name, bottom, kernel_size=2) -> str:
        settings = f"pooling_param {{ pool: MAX kernel_size: {kernel_size} stride: 2 }}"
        return self.add(name, "Pooling", bottom, settings=settings)

    def upsampling(self, name, bottom, kernel_size, stride) -> str:
        classes = self.channels[bottom]
        blob = Blob((classes, classes, kernel_size, kernel_size), partial(bilinear_chunks, classes, kernel_size))
        settings = f"num_output: {classes} kernel_size: {kernel_size} stride: {stride} bias_term: false"
        settings = f"convolution_param {{ {settings} }}"
        return self.add(name, "Deconvolution", bottom, settings=settings, blobs=[blob])

    def crop(self, name, bottom, like, offset) -> str:
        return self.add(name, "Crop", bottom, like, settings=f"crop_param {{ axis: 2 offset: {offset} }}")

    def classifier(self, bottom, hidden, kernel_size, suffix="") -> str:
        for name, size in (("fc6", kernel_size), ("fc7", 1)):
            bottom = self.dropout(self.relu(self.convolution(name + suffix, bottom, hidden, size)))
        return bottom

    def vgg16(self, bottom: str, narrow: bool, suffix="", first="conv1_1") -> str:
        """Up to fc7. The first weights are small, so that colours of 0-255 become activations around 1."""
        channels = (8, 8, 12, 16, 16) if narrow else (64, 128, 256, 512, 512)
        for stage, (size, depth) in enumerate(zip(channels, (2, 2, 3, 3, 3), strict=True), start=1):
            for layer in range(1, depth + 1):
                start = stage == layer == 1
                name = first if start else f"conv{stage}_{layer}"
                pad, scale = (100, 1 / 64) if start else (1, 1.0)
                bottom = self.relu(self.convolution(name + suffix, bottom, size, 3, pad, scale=scale))
            bottom = self.pool(f"pool{stage}{suffix}", bottom)
        return self.classifier(bottom, 24 if narrow else 4096, 7, suffix)

    def alexnet(self, bottom: str, narrow: bool) -> str:
        """Up to fc7. Activations keep the colours' size, as response normalisation only acts on large ones."""
        size = (8, 16, 12, 12, 8) if narrow else (96, 256, 384, 384, 256)
        normalisation = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
        bottom = self.relu(self.convolution("conv1", bottom, size[0], 11, pad=100, stride=4))
        bottom = self.add("norm1", "LRN", self.pool("pool1", bottom, 3), settings=normalisation)
        bottom = self.relu(self.convolution("conv2", bottom, size[1], 5, pad=2, group=2))
        bottom = self.add("norm2", "LRN", self.pool("pool2", bottom, 3), settings=normalisation)
        bottom = self.relu(self.convolution("conv3", bottom, size[2], 3, pad=1))
        bottom = self.relu(self.convolution("conv4", bottom, size[3], 3, pad=1, group=2))
        bottom = self.relu(self.convolution("conv5", bottom, size[4], 3, pad=1, group=2))
        return self.classifier(self.pool("pool5", bottom, 3), 24 if narrow else 4096, 6)

    def skip(self, scores: str, pool: str, upsampling: str, offset: int, suffix: str, scale: float | None) -> str:
        """Upsampled scores plus those of a pool, which SIFT Flow's two heads share."""
        classes = self.channels[scores]
        upsampled = self.upsampling(upsampling + suffix, scores, 4, 2)
        bottom = pool
        if scale:
            blob = Blob.of(np.full(self.channels[pool], scale, np.float32))
            bottom = self.add(f"scale_{pool}", "Scale", pool, blobs=[blob], settings="scale_param { bias_term: false }")
        # Large weights make up for the small scale: the shallow scores have to matter in the answer.
        pool_scores = self.convolution(f"score_{pool}{suffix}", bottom, classes, 1, scale=1 / (scale or 1))
        pool_scores = self.crop(f"score_{pool}{suffix}c", pool_scores, upsampled, offset)
        settings = "eltwise_param { operation: SUM }"
        return self.add(f"fuse_{pool}{suffix}", "Eltwise", upsampled, pool_scores, settings=settings)


def net_layers(name: str, narrow: bool = True) -> list[Layer]:
    """The layers of a published net behind its inputs; narrow has few channels, otherwise it is full size.

    Tests may leave layers out or `dataclasses.replace` them before they write the file.
    """
    published = PUBLISHED[name]
    net = Net(name)
    first, *others = published.inputs
    if name == "nyud-fcn32s-color-hha":
        trunks = [net.vgg16(modality, narrow, modality) for modality in ("color", "hha")]
        scores = [
            net.convolution(f"score_fr{modality}", trunk, 40, 1)
            for modality, trunk in zip(("color", "hha"), trunks, strict=True)
        ]
        settings = "eltwise_param { operation: SUM coeff: 0.5 coeff: 0.5 }"
        fused = net.add("score_fused", "Eltwise", *scores, settings=settings)
        net.crop("score", net.upsampling("upscore", fused, 64, 32), first, 19)
        return net.layers
    if others:
        data = net.add("data", "Concat", first, *others, channels=sum(published.inputs.values()))
        hidden = net.vgg16(data, narrow, first="conv1_1_bgrd")
    elif published.backbone == "alexnet":
        data, hidden = first, net.alexnet(first, narrow)
    else:
        data, hidden = first, net.vgg16(first, narrow)
    scale4, scale3 = published.skip_scales or (None, None)
    for head, classes in published.heads.items():
        suffix = head.removeprefix("score")
        scores = net.convolution(f"score_fr{suffix}", hidden, classes, 1)
        if published.backbone == "alexnet":
            net.crop(head, net.upsampling("upscore", scores, 63, 32), data, 18)
        elif published.stride == 32:
            net.crop(head, net.upsampling(f"upscore{suffix}", scores, 64, 32), data, 19)
        else:
            scores = net.skip(scores, "pool4", "upscore2", 5, suffix, scale4)
            if published.stride == 16:
                net.crop(head, net.upsampling(f"upscore16{suffix}", scores, 32, 16), data, 27)
            else:
                scores = net.skip(scores, "pool3", "upscore_pool4", 9, suffix, scale3)
                net.crop(head, net.upsampling(f"upscore8{suffix}", scores, 16, 8), data, 31)
    return net.layers


def deploy_prototxt(name: str, shapes: dict[str, tuple[int, ...]], narrow: bool = True) -> str:
    """The text of a net that reads inputs of these (1, C, H, W) shapes."""
    lines = [f'name: "{name}"']
    for top, shape in shapes.items():
        dims = " ".join(f"dim: {size}" for size in shape)
        lines.append(f'layer {{ name: "{top}" type: "Input" top: "{top}" input_param {{ shape {{ {dims} }} }} }}')
    return "\n".join([*lines, *(layer.prototxt() for layer in net_layers(name, narrow))])


def caffe_messages() -> dict[str, type]:
    """NetParameter and its parts with all fields that are written here, as classes of the protobuf library."""
    text, whole, real = "TYPE_STRING", "TYPE_INT32", "TYPE_FLOAT"
    messages = {
        "BlobShape": {"dim": (1, "TYPE_INT64", "packed")},
        "BlobProto": {
            **{
                name: (number, whole, "") for number, name in enumerate(("num", "channels", "height", "width"), start=1)
            },
            "data": (5, real, "packed"),
            "diff": (6, real, "packed"),
            "shape": (7, "BlobShape", ""),
            "double_data": (8, "TYPE_DOUBLE", "packed"),
            "double_diff": (9, "TYPE_DOUBLE", "packed"),
        },
        "PythonParameter": {"module": (1, text, ""), "layer": (2, text, ""), "param_str": (3, text, "")},
        "LayerParameter": {
            "name": (1, text, ""),
            "type": (2, text, ""),
            "bottom": (3, text, "repeated"),
            "top": (4, text, "repeated"),
            "loss_weight": (5, real, "repeated"),
            "blobs": (7, "BlobProto", "repeated"),
            "phase": (10, whole, ""),
            "python_param": (130, "PythonParameter", ""),
        },
        "V1LayerParameter": {
            "bottom": (2, text, "repeated"),
            "top": (3, text, "repeated"),
            "name": (4, text, ""),
            "type": (5, whole, ""),
            "blobs": (6, "BlobProto", "repeated"),
            "blobs_lr": (7, real, "repeated"),
        },
        "NetParameter": {
            "name": (1, text, ""),
            "layers": (2, "V1LayerParameter", "repeated"),
            "input": (3, text, "repeated"),
            "layer": (100, "LayerParameter", "repeated"),
        },
    }
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tests/caffe.proto", package="tests", syntax="proto2")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, how) in fields.items():
            label = kinds.LABEL_REPEATED if how else kinds.LABEL_OPTIONAL
            added = message.field.add(name=name, number=number, label=label)
            if kind.startswith("TYPE_"):
                added.type = kinds.Type.Value(kind)
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".tests.{kind}"
            added.options.packed = how == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tests.{name}")) for name in messages}


MESSAGES = caffe_messages()
# LayerType of V1LayerParameter. Crop, Scale and Python are younger than V1; their layers are written without a type.
V1_TYPES = {
    "Concat": 3,
    "Convolution": 4,
    "Dropout": 6,
    "InnerProduct": 14,
    "LRN": 15,
    "Pooling": 17,
    "ReLU": 18,
    "Eltwise": 25,
    "Deconvolution": 39,
}


def delimited(number: int, length: int) -> bytes:
    """What stands before a message or a packed array of so many bytes in field `number`."""
    start = b""
    for value in (number * 8 + 2, length):
        while value > 127:
            start += bytes([value % 128 + 128])
            value //= 128
        start += bytes([value])
    return start


def blob_parts(blob: Blob, v1: bool) -> tuple[bytes, bytes]:
    """A serialised blob, split where its numbers go: older files have the shape before, newer ones behind."""
    before, behind = MESSAGES["BlobProto"](), MESSAGES["BlobProto"]()
    if v1:
        # Caffe gave a bias of N numbers the shape (1, 1, 1, N).
        before.num, before.channels, before.height, before.width = (1,) * (4 - len(blob.shape)) + blob.shape
    else:
        behind.shape.dim.extend(blob.shape)
    start = delimited(5, 4 * math.prod(blob.shape))
    return before.SerializeToString() + start, behind.SerializeToString()


def write_caffemodel(path: Path, layers: list[Layer], v1: bool = False, data: PublishedNet | None = None) -> None:
    """Write layers as Caffe does, in the newer form or the older, in pieces: a full-size net needs no memory.

    Args:
        path: the file.
        layers: what `net_layers` gives.
        v1: the older form: V1LayerParameter, and blobs of 4 axes.
        data: the net whose Python data layer stands first, as in the files of the release; only in the newer form.
    """
    with open(path, "wb") as file:
        file.write(MESSAGES["NetParameter"](name="random").SerializeToString())
        if data is not None:
            layer = MESSAGES["NetParameter"]().layer.add(name="data", type="Python")
            labels = ["label" if head == "score" else head.removeprefix("score_") for head in data.heads]
            layer.top.extend([*data.inputs, *labels])
            layer.python_param.module, layer.python_param.layer = data.data
            layer.python_param.param_str = str({**data.parameters, "split": "train", "seed": 1337})
            serialised = layer.SerializeToString()
            file.write(delimited(100, len(serialised)) + serialised)
        for layer in layers:
            if v1:
                message = MESSAGES["V1LayerParameter"](name=layer.name, bottom=layer.bottoms, top=[layer.top])
                if layer.type in V1_TYPES:
                    message.type = V1_TYPES[layer.type]
            else:
                message = MESSAGES["LayerParameter"](
                    name=layer.name, type=layer.type, bottom=layer.bottoms, top=[layer.top]
                )
            head = message.SerializeToString()
            parts = []
            for blob in layer.blobs:
                before, behind = blob_parts(blob, v1)
                before = delimited(6 if v1 else 7, len(before) + 4 * math.prod(blob.shape) + len(behind)) + before
                parts.append((before, blob, behind))
            length = len(head) + sum(len(a) + 4 * math.prod(blob.shape) + len(b) for a, blob, b in parts)
            file.write(delimited(2 if v1 else 100, length) + head)
            for before, blob, behind in parts:
                file.write(before)
                for chunk in blob.chunks():
                    file.write(chunk.data)
                file.write(behind)


def caffe_answer(
    name: str, caffemodel: Path, inputs: dict[str, np.ndarray], narrow: bool = True
) -> dict[str, np.ndarray]:
    """What Caffe answers, computed by OpenCV: a (1, classes, H, W) float32 map for each head.

    Args:
        name: of the published net.
        caffemodel: its weights, full size unless `narrow`.
        inputs: (1, C, H, W) float32, BGR minus the mean, for each of the net's inputs (`PUBLISHED[name].inputs`).
    """
    import cv2

    prototxt = deploy_prototxt(name, {top: array.shape for top, array in inputs.items()}, narrow)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "deploy.prototxt"
        text.write_text(prototxt)
        net = cv2.dnn.readNetFromCaffe(str(text), str(caffemodel))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    # Winograd's convolutions alone are off by up to 1e-5 from a computation in float64, ours by 8e-7.
    net.enableWinograd(False)
    for top, array in inputs.items():
        net.setInput(np.ascontiguousarray(array), top)
    heads = list(PUBLISHED[name].heads)
    return {head: answer.copy() for head, answer in zip(heads, net.forward(heads), strict=True)}
