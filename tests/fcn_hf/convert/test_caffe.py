"""The release's nets through the converter: recognised, refused where something is wrong, and answering as Caffe."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from fcn_hf import optimize
from fcn_hf.convert import ConversionError, convert, write_model_folder
from fcn_hf.convert.caffe_file import CaffeFileError
from tests.fcn_hf.convert.caffe_nets import (
    MESSAGES,
    PUBLISHED,
    Blob,
    Layer,
    PublishedNet,
    caffe_answer,
    net_layers,
    write_caffemodel,
)
from tests.helpers import assert_refused

# What the release subtracts, as its infer.py and its data layers have it: colours in the order of BGR.
BGR = (104.00698793, 116.66876762, 122.67891434)
OWN_BGR = {"siftflow": (114.578, 115.294, 108.353), "nyud": (116.190, 97.203, 92.318)}
HHA = (132.431, 94.076, 118.477)
LOG_DEPTH = (7.844,)
MEANS = {"color": BGR, "hha": HHA, "depth": LOG_DEPTH}


def kinds(name: str) -> list[str]:
    """What the net's inputs are, one after the other."""
    return [top for top in PUBLISHED[name].parameters.get("tops", ["color"]) if top != "label"]


def pictures(name: str, height: int, width: int) -> np.ndarray:
    """Random (C, H, W), as a user has it: RGB or HHA in whole 0..255, the logarithm of a depth."""
    generator = np.random.default_rng(height * width)
    parts = [
        generator.uniform(6, 9, (1, height, width))
        if kind == "depth"
        else generator.integers(0, 256, (3, height, width))
        for kind in kinds(name)
    ]
    return np.concatenate(parts).astype(np.float32)


def caffe_inputs(name: str, picture: np.ndarray, with_data_layer: bool) -> dict[str, np.ndarray]:
    """The same as the release's data layers would load it."""
    means = dict(MEANS)
    if with_data_layer:
        means["color"] = OWN_BGR.get(name.partition("-")[0], BGR)
    start, inputs = 0, {}
    for (top, channels), kind in zip(PUBLISHED[name].inputs.items(), kinds(name), strict=True):
        part = picture[start : start + channels].astype(np.float64)
        start += channels
        if kind == "color":
            part = part[::-1]
        inputs[top] = (part - np.array(means[kind])[:, None, None]).astype(np.float32)[None]
    return inputs


def our_answer(folder: Path, picture: np.ndarray, optimized: bool = False) -> dict[str, np.ndarray]:
    """Logits of each task; colour goes in as a PIL picture, more channels as an array."""
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    if optimized:
        model = optimize(model)
    processor = AutoImageProcessor.from_pretrained(folder)
    if len(picture) == 3:
        inputs = processor(Image.fromarray(picture.transpose(1, 2, 0).astype(np.uint8)), return_tensors="pt")
    else:
        inputs = processor(picture, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    return {task: logits.numpy() for task, logits in (outputs.logits_by_task or {"": outputs.logits}).items()}


def assert_close(ours: dict[str, np.ndarray], caffe: dict[str, np.ndarray], size: tuple[int, int]) -> None:
    tasks = {"score": "", "score_sem": "semantic", "score_geo": "geometric"}
    assert list(ours) == [tasks[head] for head in caffe]
    for head, expected in caffe.items():
        answer = ours[tasks[head]]
        assert answer.shape == expected.shape and answer.shape[2:] == size
        largest = abs(expected).max()
        assert largest > 0.1
        assert abs(answer - expected).max() <= 1e-5 * largest


def caffemodel(path: Path, name: str, layers: list[Layer] | None = None, with_data_layer=False, **settings) -> Path:
    data = PUBLISHED[name] if with_data_layer else None
    write_caffemodel(path, net_layers(name) if layers is None else layers, data=data, **settings)
    return path


@pytest.mark.parametrize(
    ("with_data_layer", "sizes"), [(True, [(37, 51), (1, 3)]), (False, [(65, 34)])], ids=["data layer", "layers alone"]
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_nets_answer_as_in_caffe(tmp_path, name, with_data_layer, sizes):
    path = caffemodel(tmp_path / f"{name}.caffemodel", name, with_data_layer=with_data_layer)
    # Nothing but the data layer tells HHA from colour.
    inputs = ["hha"] if name == "nyud-fcn32s-hha" and not with_data_layer else None
    write_model_folder(convert(path, inputs), tmp_path / "model")
    for size in sizes:
        picture = pictures(name, *size)
        expected = caffe_answer(name, path, caffe_inputs(name, picture, with_data_layer))
        for optimized in (False, True):
            assert_close(our_answer(tmp_path / "model", picture, optimized), expected, size)


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {
        name: tensor if isinstance(tensor, np.ndarray) else tensor.read()
        for name, tensor in convert(path).tensors.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_old_and_new_form_give_the_same_bits(tmp_path, name):
    new = tensors(caffemodel(tmp_path / "new.caffemodel", name))
    old = tensors(caffemodel(tmp_path / "old.caffemodel", name, v1=True))
    assert list(new) == list(old)
    for key, tensor in new.items():
        assert tensor.dtype == old[key].dtype == np.float32
        np.testing.assert_array_equal(tensor, old[key])


# Stride, number and first and last name of the classes; all but voc-fcn8s-atonce have skip_scales of 1.
RECOGNISED = {
    "voc-fcn32s": (32, 21, "background", "tvmonitor"),
    "voc-fcn16s": (16, 21, "background", "tvmonitor"),
    "voc-fcn8s": (8, 21, "background", "tvmonitor"),
    "voc-fcn8s-atonce": (8, 21, "background", "tvmonitor"),
    "voc-fcn-alexnet": (32, 21, "background", "tvmonitor"),
    "pascalcontext-fcn32s": (32, 60, "background", "wood"),
    "pascalcontext-fcn16s": (16, 60, "background", "wood"),
    "pascalcontext-fcn8s": (8, 60, "background", "wood"),
    "siftflow-fcn32s": (32, 33, "awning", "window"),
    "siftflow-fcn16s": (16, 33, "awning", "window"),
    "siftflow-fcn8s": (8, 33, "awning", "window"),
    "nyud-fcn32s-color": (32, 40, "wall", "otherprop"),
    "nyud-fcn32s-hha": (32, 40, "wall", "otherprop"),
    "nyud-fcn32s-color-d": (32, 40, "wall", "otherprop"),
    "nyud-fcn32s-color-hha": (32, 40, "wall", "otherprop"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_net_is_is_recognised_and_said(tmp_path, name):
    conversion = convert(caffemodel(tmp_path / "net.caffemodel", name, with_data_layer=True))
    config, (stride, count, first, last) = conversion.config, RECOGNISED[name]
    assert (config.prediction_stride, config.num_labels, config.geometry) == (stride, count, "caffe")
    assert (config.id2label[0], config.id2label[count - 1]) == (first, last)
    assert config.backbone == ("alexnet" if name == "voc-fcn-alexnet" else "vgg")
    if config.backbone == "vgg":
        assert list(config.depths) == [2, 2, 3, 3, 3] and list(config.hidden_sizes) == [8, 8, 12, 16, 16]
    assert config.skip_scales == pytest.approx((0.01, 0.0001) if name == "voc-fcn8s-atonce" else (1, 1))
    assert config.streams == ([3, 3] if name == "nyud-fcn32s-color-hha" else None)
    assert config.num_channels == sum(PUBLISHED[name].inputs.values()) == len(conversion.processor.image_mean)
    if name.startswith("siftflow"):
        assert config.tasks == {"semantic": 33, "geometric": 3}
        assert config.id2label_by_task["geometric"] == {0: "sky", 1: "horizontal", 2: "vertical"}
        assert config.id2label_by_task["semantic"] == config.id2label
    else:
        assert config.tasks is None and config.id2label_by_task is None
    said = " ".join(conversion.notes)
    assert f"FCN-{stride}s on {'AlexNet' if config.backbone == 'alexnet' else 'VGG16'}" in said
    assert f"{count} classes" in said or "33 semantic and 3 geometric classes" in said
    assert f"{config.num_channels} input channels" in said


def test_no_published_score_is_claimed_for_a_net_of_another_size(tmp_path):
    conversion = convert(caffemodel(tmp_path / "net.caffemodel", "voc-fcn8s"))
    assert not any("Published score" in note for note in conversion.notes)


MISSING = {
    "voc-fcn8s": (
        ["conv1_1", "conv1_2", "conv3_1", "conv3_2", "conv4_3", "conv5_3", "fc6", "fc7", "score_fr"]
        + ["score_pool4", "score_pool3", "upscore2", "upscore_pool4", "upscore8"]
    ),
    "voc-fcn8s-atonce": ["scale_pool4", "scale_pool3"],
    "voc-fcn32s": ["upscore"],
    "voc-fcn-alexnet": ["conv1", "conv4", "fc6", "upscore"],
    "siftflow-fcn16s": ["score_pool4_geo", "upscore2_sem", "upscore16_geo"],
    "nyud-fcn32s-color-d": ["conv1_1_bgrd", "fc6"],
    "nyud-fcn32s-color-hha": ["conv1_1hha", "conv4_2color", "fc6color", "fc7hha"],
}


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, layers in MISSING.items() for layer in layers])
def test_a_missing_layer_is_named(tmp_path, name, layer):
    layers = [other for other in net_layers(name) if other.name != layer]
    with pytest.raises(ConversionError) as raised:
        convert(caffemodel(tmp_path / "net.caffemodel", name, layers))
    missing = layer.removesuffix("_bgrd")
    assert missing in str(raised.value) and "\n" not in str(raised.value)
    assert "missing" in str(raised.value) or "neither" in str(raised.value) or "none of" in str(raised.value)


def changed(name: str, layer: str, *shapes: tuple[int, ...], spoil=None) -> list[Layer]:
    """A net's layers, with one whose blobs have other shapes, or whose first blob went through `spoil`."""
    layers = net_layers(name)
    index = [other.name for other in layers].index(layer)
    blobs = tuple(Blob.of(np.full(shape, 0.5, np.float32)) for shape in shapes)
    if spoil:
        weight = layers[index].blobs[0].array()
        spoil(weight)
        blobs = (Blob.of(weight), *layers[index].blobs[1:])
    layers[index] = replace(layers[index], blobs=blobs)
    return layers


def mix_classes(weight: np.ndarray) -> None:
    weight[3, 4, 1, 1] = 1e-3


def surplus(name: str, layer: str, *shapes: tuple[int, ...]) -> list[Layer]:
    blobs = tuple(Blob.of(np.zeros(shape, np.float32)) for shape in shapes)
    return [*net_layers(name), Layer(layer, "Convolution", ("fc7",), layer, blobs=blobs)]


def classifier(v1: bool) -> list[Layer]:
    """VGG16 as it was published for ILSVRC: fully connected layers, and no scores."""
    layers = [layer for layer in net_layers("voc-fcn32s") if layer.name not in ("score_fr", "upscore", "score")]
    for index, layer in enumerate(layers):
        if layer.name in ("fc6", "fc7"):
            matrix = layer.blobs[0].array().reshape((1, 1) * v1 + (24, -1))
            layers[index] = replace(layer, type="InnerProduct", blobs=(Blob.of(matrix), layer.blobs[1]))
    matrix = Blob.of(np.zeros((1, 1) * v1 + (1000, 24), np.float32))
    return [*layers, Layer("fc8", "InnerProduct", ("fc7",), "fc8", blobs=(matrix, Blob.of(np.zeros(1000, np.float32))))]


SPOILED = {
    "bias too short": (changed("voc-fcn8s", "conv2_1", (8, 8, 3, 3), (7,)), r"bias of layer 'conv2_1'.*\(7,\).*\(8,\)"),
    "no bias": (changed("voc-fcn8s", "fc7", (24, 24, 1, 1)), "layer 'fc7' has 1 blobs; expected 2"),
    "channels don't follow": (
        changed("voc-fcn8s", "conv3_2", (12, 11, 3, 3), (12,)),
        r"conv3_2.*\(12, 11, 3, 3\); expected \(12, 12, 3, 3\)",
    ),
    "kernel of 5": (changed("voc-fcn8s", "conv4_1", (16, 12, 5, 5), (16,)), r"conv4_1.*5\); expected \(16, 12, 3, 3"),
    "fc6 of DeepLab": (changed("voc-fcn8s", "fc6", (24, 16, 3, 3), (24,)), r"fc6.*3, 3\); expected \(24, 16, 7, 7"),
    "width changes in a stage": (changed("voc-fcn8s", "conv5_2", (9, 16, 3, 3), (9,)), r"conv5_2.*\[16, 9, 16\]"),
    "more classes in a skip": (changed("voc-fcn8s", "score_pool4", (22, 16, 1, 1), (22,)), r"score_pool4.*\[21, 22\]"),
    "kernel of upscore": (changed("voc-fcn8s", "upscore8", (21, 1, 32, 32)), r"upscore8.*32\); expected \(21, 1, 16"),
    "classes of upscore": (
        changed("voc-fcn8s", "upscore2", (21, 20, 4, 4)),
        r"'upscore2' has shape \(21, 20, 4, 4\); expected \(classes, classes",
    ),
    "upscore mixes classes": (
        changed("voc-fcn8s", "upscore_pool4", spoil=mix_classes),
        "'upscore_pool4' mixes classes: 1 weights off its diagonal",
    ),
    "factors of scale": (changed("voc-fcn8s-atonce", "scale_pool3", (11,)), "'scale_pool3' has 11 factors.*12"),
    "surplus layer": (surplus("voc-fcn8s", "conv6_1", (3, 3, 1, 1), (3,)), "'conv6_1' isn't part of an FCN-8s"),
    "skip of a finer net": (surplus("voc-fcn16s", "score_pool3", (21, 12, 1, 1), (21,)), "'score_pool3' isn't part"),
    "scores of a second task": (surplus("voc-fcn32s", "score_fr_depth", (9, 24, 1, 1), (9,)), "upscore_depth"),
    "five channels": (changed("voc-fcn32s", "conv1_1", (8, 5, 3, 3), (8,)), "takes 5 channels; expected 3"),
    "classifier": (classifier(v1=False), "'score_fr' is missing; it has fc8, so it is a classifier"),
    "another net": (
        [Layer(n, "", ("data",), n, blobs=(Blob.of(np.zeros(3, np.float32)),)) for n in ("res2a", "bn2a")],
        r"neither conv1_1 \(VGG\) nor conv1 \(AlexNet\) is among its layers \(res2a, bn2a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_net_with_something_wrong_is_refused_in_one_line(tmp_path, case):
    layers, message = SPOILED[case]
    write_caffemodel(tmp_path / "net.caffemodel", layers)
    assert_refused(tmp_path, [tmp_path / "net.caffemodel"], message)


def test_a_classifier_in_the_old_form_is_refused_too(tmp_path):
    write_caffemodel(tmp_path / "net.caffemodel", classifier(v1=True), v1=True)
    assert_refused(tmp_path, [tmp_path / "net.caffemodel"], "'score_fr' is missing; it has fc8")


FOREIGN = {
    "truncated": (lambda whole: whole[:-1000], "no whole .caffemodel"),
    "truncated in the middle": (lambda whole: whole[: len(whole) // 2], "no whole .caffemodel"),
    "empty": (lambda whole: b"", "it is empty"),
    "text": (lambda whole: b'name: "net"\nlayer { name: "data" }\n', "no whole .caffemodel"),
    "picture": (lambda whole: b"\x89PNG\r\n\x1a\n" + bytes(100), "no whole .caffemodel"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_files_that_are_no_nets_are_refused_in_one_line(tmp_path, case):
    make, message = FOREIGN[case]
    path = caffemodel(tmp_path / "net.caffemodel", "voc-fcn32s")
    path.write_bytes(make(path.read_bytes()))
    assert_refused(tmp_path, [path], message)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("voc-fcn32s", "color,depth", r"take \[3\] channels; the inputs \['color', 'depth'\]"),
        ("voc-fcn32s", "depth", r"take \[3\] channels; the inputs \['depth'\]"),
        ("voc-fcn32s", "colour", r"the inputs \['colour'\] aren't all among \['color', 'hha', 'depth'\]"),
        ("voc-fcn32s", "", r"the inputs \[''\] aren't all among"),
        ("nyud-fcn32s-color-hha", "color", r"take \[3, 3\] channels"),
        ("nyud-fcn32s-color-d", "hha", r"take \[4\] channels"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, name, inputs, message):
    path = caffemodel(tmp_path / "net.caffemodel", name, with_data_layer=True)
    assert_refused(tmp_path, [path, "--inputs", inputs], message)


@pytest.mark.parametrize("option", [["--num-labels", "5"], ["--prediction-stride", "8"], ["--at-once"]])
def test_options_of_other_nets_are_refused(tmp_path, option):
    path = caffemodel(tmp_path / "net.caffemodel", "voc-fcn32s")
    name = option[0].removeprefix("--").replace("-", "_")
    assert_refused(tmp_path, [path, *option], f"{name} doesn't apply to .*, which is a Caffe file")


def test_inputs_decide_what_the_data_layer_says_otherwise(tmp_path):
    path = caffemodel(tmp_path / "net.caffemodel", "nyud-fcn32s-hha", with_data_layer=True)
    first = net_layers("nyud-fcn32s-hha")[0].blobs[0].array()
    as_hha, as_color = convert(path), convert(path, ["color"])
    np.testing.assert_array_equal(as_hha.tensors["conv1_1.weight"].read(), first)
    np.testing.assert_array_equal(as_color.tensors["conv1_1.weight"], first[:, ::-1])
    assert "H, H, A" in as_hha.notes[1] and "RGB" not in as_hha.notes[1]
    assert "red, green, blue" in as_color.notes[1] and "takes RGB where Caffe's took BGR" in as_color.notes[1]


def test_colours_are_reversed_wherever_they_stand(tmp_path):
    path = caffemodel(tmp_path / "net.caffemodel", "nyud-fcn32s-color-d")
    first = net_layers("nyud-fcn32s-color-d")[1].blobs[0].array()
    conversion = convert(path, ["depth", "color"])
    np.testing.assert_array_equal(conversion.tensors["conv1_1.weight"], first[:, [0, 3, 2, 1]])
    np.testing.assert_allclose(np.array(conversion.processor.image_mean) * 255, (*LOG_DEPTH, *BGR[::-1]))


@pytest.mark.parametrize(
    ("module", "parameters", "mean"),
    [
        ("my_layers", {"mean": (1, 2.5, 3)}, (3, 2.5, 1)),
        ("my_layers", {"tops": ["data", "label"], "mean": (1, 2, 3)}, (3, 2, 1)),
        ("my_layers", {"mean": "mean.npy", "tops": 7}, BGR[::-1]),
        ("my_layers", {"mean": ("a", "b", "c")}, BGR[::-1]),
        ("my_layers", {"mean": (1, 2)}, BGR[::-1]),
        ("siftflow_layers", {"mean": (1, 2, 3)}, OWN_BGR["siftflow"][::-1]),
    ],
)
def test_the_mean_is_the_data_layers_where_it_has_a_usable_one(tmp_path, module, parameters, mean):
    data = PublishedNet({"score": 21}, 32, (module, "Layer"), parameters=parameters)
    write_caffemodel(tmp_path / "net.caffemodel", net_layers("voc-fcn32s"), data=data)
    conversion = convert(tmp_path / "net.caffemodel")
    np.testing.assert_allclose(np.array(conversion.processor.image_mean) * 255, mean)
    np.testing.assert_allclose(conversion.processor.image_std, 1 / 255)
    assert ("'data'" in conversion.notes[1]) == (mean[0] == 3)


@pytest.mark.parametrize("text", ["{[]: 1}", "(" * 1000, "lambda: 1", "[1, 2]", "{'mean'"])
def test_settings_of_a_data_layer_that_are_no_dictionary_are_passed_over(tmp_path, text):
    path = caffemodel(tmp_path / "net.caffemodel", "voc-fcn32s")
    net = MESSAGES["NetParameter"]()
    python = net.layer.add(name="data", type="Python").python_param
    python.module, python.layer, python.param_str = "my_layers", "Layer", text
    path.write_bytes(net.SerializeToString() + path.read_bytes())
    np.testing.assert_allclose(np.array(convert(path).processor.image_mean) * 255, BGR[::-1])


def other_net(depths=(2, 2, 3, 3, 3), widths=(4, 4, 4, 8, 8), hidden=6, heads=None, stride=32) -> list[Layer]:
    """A net in the release's names that nobody published; layers in files only need names and blobs."""
    layers: list[Layer] = []
    generator = np.random.default_rng(0)

    def add(name: str, *shape: int, bias: bool = True) -> None:
        blobs = [Blob.of(generator.standard_normal(shape).astype(np.float32))]
        blobs += [Blob.of(np.arange(shape[0], dtype=np.float32))] * bias
        layers.append(Layer(name, "Convolution", ("data",), name, blobs=tuple(blobs)))

    def add_upsampling(name: str, count: int, size: int) -> None:
        kernels = np.eye(count, dtype=np.float32)[:, :, None, None] * np.full((size, size), 0.5, np.float32)
        layers.append(Layer(name, "Deconvolution", ("data",), name, blobs=(Blob.of(kernels),)))

    channels = 3
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for layer in range(1, depth + 1):
            add(f"conv{stage}_{layer}", width, channels, 3, 3)
            channels = width
    add("fc6", hidden, channels, 7, 7)
    add("fc7", hidden, hidden, 1, 1)
    for suffix, count in (heads or {"": 7}).items():
        add(f"score_fr{suffix}", count, hidden, 1, 1)
        if stride < 32:
            add_upsampling(f"upscore2{suffix}", count, 4)
            add(f"score_pool4{suffix}", count, widths[3], 1, 1)
        if stride < 16:
            add_upsampling(f"upscore_pool4{suffix}", count, 4)
            add(f"score_pool3{suffix}", count, widths[2], 1, 1)
        add_upsampling(f"upscore{stride if stride < 32 else ''}{suffix}", count, 2 * stride)
    return layers


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"num_labels": 7, "id2label": {index: f"class {index}" for index in range(7)}}),
        ({"depths": (1, 1, 2, 2, 2)}, {"depths": [1, 1, 2, 2, 2]}),
        ({"depths": (2, 2, 4, 4, 4), "stride": 8}, {"depths": [2, 2, 4, 4, 4], "prediction_stride": 8}),
        ({"widths": (2, 3, 5, 7, 11), "hidden": 13}, {"hidden_sizes": [2, 3, 5, 7, 11], "hidden_size": 13}),
        (
            {"heads": {"_sem": 5, "_parts": 4}, "stride": 16},
            {"prediction_stride": 16, "tasks": {"semantic": 5, "parts": 4}, "num_labels": 5},
        ),
        # Three classes are SIFT Flow's geometric ones only where the layers say so.
        ({"heads": {"": 3}}, {"id2label": {0: "class 0", 1: "class 1", 2: "class 2"}}),
        ({"heads": {"_new": 21}}, {"tasks": None, "num_labels": 21}),
    ],
    ids=["7 classes", "VGG11", "VGG19", "other widths", "16s with two heads", "3 classes", "renamed scores"],
)
def test_nets_that_nobody_published_are_converted_too(tmp_path, settings, expected):
    write_caffemodel(tmp_path / "net.caffemodel", other_net(**settings))
    conversion = convert(tmp_path / "net.caffemodel")
    assert {name: getattr(conversion.config, name) for name in expected} == expected
    write_model_folder(conversion, tmp_path / "model")
    answer = our_answer(tmp_path / "model", pictures("voc-fcn32s", 9, 21))
    assert all(logits.shape[2:] == (9, 21) and abs(logits).max() > 0 for logits in answer.values())


@pytest.mark.parametrize("heads", [{"": 4}, {"_sem": 4, "_geo": 3}])
def test_factors_that_differ_by_channel_reach_every_scorer(tmp_path, heads):
    factors = {"pool4": np.arange(1, 9, dtype=np.float32), "pool3": np.full(4, 0.25, np.float32)}
    layers = other_net(heads=heads, stride=8)
    scorers = {layer.name: layer.blobs[0].array() for layer in layers if layer.name.startswith("score_pool")}
    for pool, values in factors.items():
        layers.append(Layer(f"scale_{pool}", "Scale", (pool,), f"scale_{pool}", blobs=(Blob.of(values),)))
    write_caffemodel(tmp_path / "net.caffemodel", layers)
    conversion = convert(tmp_path / "net.caffemodel")
    assert list(conversion.config.skip_scales) == [1, 0.25]
    for suffix in heads:
        ours = {"_sem": "_semantic", "_geo": "_geometric"}.get(suffix, suffix)
        weight = scorers[f"score_pool4{suffix}"] * factors["pool4"][:, None, None]
        np.testing.assert_array_equal(conversion.tensors[f"score_pool4{ours}.weight"], weight)
        unscaled = conversion.tensors[f"score_pool3{ours}.weight"].read()
        np.testing.assert_array_equal(unscaled, scorers[f"score_pool3{suffix}"])
    assert any("scale_pool4 differ by channel" in note for note in conversion.notes)


def test_the_file_may_not_change_before_the_folder_is_written(tmp_path):
    path = caffemodel(tmp_path / "net.caffemodel", "voc-fcn32s")
    conversion = convert(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CaffeFileError, match="become shorter"):
        write_model_folder(conversion, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [path]


# Runs the command and prints its exit status, its peak in KiB and its seconds of CPU, which don't grow with other load.
# It stands between pytest and the command, as a process starts with the peak of the one that it was forked from.
MEASURED = """
import resource, subprocess, sys
answer = subprocess.run([sys.executable, "-m", "fcn_hf.cli", "convert", *sys.argv[1:]], stdout=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(answer.returncode, usage.ru_maxrss, round(usage.ru_utime + usage.ru_stime))
"""


def test_a_full_size_net_is_converted_within_a_minute_and_twice_its_size(tmp_path):
    """voc-fcn8s as published: 134M parameters. Its answer is Caffe's, as those of the narrow nets."""
    if shutil.disk_usage(tmp_path).free < 3e9 or psutil.virtual_memory().available < 4e9:
        pytest.skip("needs 3 GB on the disk and 4 GB of memory")
    path, folder = tmp_path / "voc-fcn8s.caffemodel", tmp_path / "model"
    try:
        write_caffemodel(path, net_layers("voc-fcn8s", narrow=False), data=PUBLISHED["voc-fcn8s"])
        command = [sys.executable, "-c", MEASURED, str(path), str(folder)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
        status, peak, seconds = map(int, answer.stdout.split())
        assert status == 0, answer.stderr
        assert "Published score of voc-fcn8s: mean IU 65.5" in answer.stderr
        assert 500e6 < path.stat().st_size < 600e6
        assert peak * 1024 < 2 * path.stat().st_size, f"{peak / 1024:.0f} MiB"
        assert seconds < 60
        picture = pictures("voc-fcn8s", 23, 31)
        ours = our_answer(folder, picture)
        inputs = caffe_inputs("voc-fcn8s", picture, with_data_layer=True)
        assert_close(ours, caffe_answer("voc-fcn8s", path, inputs, narrow=False), (23, 31))
    finally:
        path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
