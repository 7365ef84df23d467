"""Caffe's weight files: what is read, what is refused, and what it costs."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fcn_hf
from fcn_hf.convert.caffe_file import CaffeFileError, read_caffemodel
from tests.fcn_hf.convert.caffe_nets import (
    MESSAGES,
    PUBLISHED,
    Blob,
    Layer,
    caffe_answer,
    deploy_prototxt,
    net_layers,
    write_caffemodel,
)

NUMBERS = np.arange(24, dtype=np.float32)
KERNEL = NUMBERS.reshape(2, 3, 2, 2)


def new_layer(net, name="conv", shape=(2, 3, 2, 2), data=NUMBERS):
    """A layer with one blob in a protobuf message that tests may spoil before they write it."""
    layer = net.layer.add(name=name, type="Convolution")
    blob = layer.blobs.add(data=data)
    blob.shape.dim.extend(shape)
    return layer


def small_net():
    """Every kind of field in some hundred bytes."""
    net = MESSAGES["NetParameter"](name="small", input=["data"])
    python = net.layer.add(name="data", type="Python", top=["data", "label"], phase=0)
    python.python_param.module, python.python_param.layer = "voc_layers", "SBDDSegDataLayer"
    python.python_param.param_str = "{'seed': 1337}"
    layer = new_layer(net)
    layer.blobs.add(data=[1, -2], diff=[5, 6]).shape.dim.append(2)
    new_layer(net, "score", (1, 2), [3, 4]).loss_weight.append(1)
    return net


def write(path, net) -> Path:
    path.write_bytes(net.SerializeToString())
    return path


def contents(layers):
    return [(layer.name, layer.type, [blob.read().tolist() for blob in layer.blobs]) for layer in layers]


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("name", ["voc-fcn8s", "voc-fcn-alexnet", "siftflow-fcn16s"])
def test_both_forms_give_names_types_shapes_and_numbers(tmp_path, name, v1):
    layers = net_layers(name)
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, layers, v1)
    read = read_caffemodel(path)
    assert [layer.name for layer in read] == [layer.name for layer in layers]
    for layer, written in zip(read, layers, strict=True):
        assert layer.type == ("V1 type 0" if v1 and written.type in ("Crop", "Scale") else written.type)
        for blob, original in zip(layer.blobs, written.blobs, strict=True):
            axes = (1,) * (4 - len(original.shape)) if v1 else ()
            assert blob.shape == axes + original.shape
            assert blob.read().dtype == np.float32
            np.testing.assert_array_equal(blob.read().reshape(original.shape), original.array())


@pytest.mark.parametrize("v1", [False, True])
def test_protobuf_agrees_about_the_files_of_these_tests(tmp_path, v1):
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, net_layers("voc-fcn8s"), v1, None if v1 else PUBLISHED["voc-fcn8s"])
    net = MESSAGES["NetParameter"].FromString(path.read_bytes())
    assert net.SerializeToString() == path.read_bytes()
    for layer, message in zip(read_caffemodel(path), net.layers if v1 else net.layer, strict=True):
        assert layer.name == message.name
        for blob, numbers in zip(layer.blobs, message.blobs, strict=True):
            np.testing.assert_array_equal(blob.read().reshape(-1), np.array(numbers.data, np.float32))


def test_the_python_layer_says_which_data_a_net_was_trained_on(tmp_path):
    name = "nyud-fcn32s-hha"
    # Only the first convolution: the rest is large and says no more.
    write_caffemodel(tmp_path / "net.caffemodel", net_layers(name)[:1], data=PUBLISHED[name])
    data, convolution = read_caffemodel(tmp_path / "net.caffemodel")
    assert (data.type, data.python_module) == ("Python", "nyud_layers")
    assert "'tops': ['hha', 'label']" in data.python_parameters
    assert convolution.python_module == convolution.python_parameters == ""


def test_gradients_and_other_fields_are_passed_over(tmp_path):
    read = read_caffemodel(write(tmp_path / "net.caffemodel", small_net()))
    assert contents(read) == [
        ("data", "Python", []),
        ("conv", "Convolution", [KERNEL.tolist(), [1, -2]]),
        ("score", "Convolution", [[[3, 4]]]),
    ]


def test_float64_becomes_float32(tmp_path):
    net = MESSAGES["NetParameter"]()
    numbers = np.random.default_rng(0).standard_normal(5)
    net.layer.add(name="conv", type="Convolution").blobs.add(double_data=numbers).shape.dim.append(5)
    (layer,) = read_caffemodel(write(tmp_path / "net.caffemodel", net))
    copy = io.BytesIO()
    layer.blobs[0].copy_to(copy)
    assert copy.getvalue() == layer.blobs[0].read().tobytes() == numbers.astype("<f4").tobytes()


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number):
    net = MESSAGES["NetParameter"]()
    net.layer.add(name="conv", type="Convolution").blobs.add(double_data=[0, number]).shape.dim.append(2)
    (layer,) = read_caffemodel(write(tmp_path / "net.caffemodel", net))
    for use in (layer.blobs[0].read, lambda: layer.blobs[0].copy_to(io.BytesIO())):
        with pytest.raises(CaffeFileError, match="numbers behind byte .* aren't finite"):
            use()


def test_unknown_old_types_are_numbered(tmp_path):
    net = MESSAGES["NetParameter"]()
    for number in (14, 39, 77):
        net.layers.add(name=f"layer{number}", type=number).blobs.add(num=1, channels=1, height=1, width=1, data=[0])
    read = read_caffemodel(write(tmp_path / "net.caffemodel", net))
    assert [layer.type for layer in read] == ["InnerProduct", "Deconvolution", "V1 type 77"]


def test_no_offset_of_a_cut_gives_a_wrong_answer(tmp_path):
    net = small_net()
    whole = write(tmp_path / "whole.caffemodel", net).read_bytes()
    expected = contents(read_caffemodel(tmp_path / "whole.caffemodel"))
    # Between two layers a cut can't be seen.
    unseen = {}
    for count in range(len(net.layer)):
        part = MESSAGES["NetParameter"]()
        part.CopyFrom(net)
        del part.layer[count:]
        unseen[part.ByteSize()] = expected[:count]
    path = tmp_path / "cut.caffemodel"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if any(blobs for _, _, blobs in unseen.get(length, [])):
            assert contents(read_caffemodel(path)) == unseen[length]
        else:
            with pytest.raises(CaffeFileError, match="cut.caffemodel"):
                read_caffemodel(path)


def test_damaged_bytes_end_in_an_answer_or_in_one_kind_of_error(tmp_path):
    whole = small_net().SerializeToString()
    path = tmp_path / "damaged.caffemodel"
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for position in generator.integers(len(whole), size=3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            contents(read_caffemodel(path))
        except CaffeFileError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def foreign_files():
    picture, archive, weights = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "png")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights.bin", b"\0" * 100)
    torch.save({"weight": torch.zeros(3)}, weights)
    return {
        "png": picture.getvalue(),
        "zip": archive.getvalue(),
        "pth": weights.getvalue(),
        "prototxt": deploy_prototxt("voc-fcn32s", {"data": (1, 3, 8, 8)}).encode(),
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "html": b"<!doctype html><title>404</title>",
        "json": json.dumps({"layer": 1}).encode(),
        "random": np.random.default_rng(0).bytes(100_000),
        "zeros": b"\0" * 1000,
        "spaces": b" " * 1000,
        "newlines": b"\n" * 1000,
    }


@pytest.mark.parametrize("kind", foreign_files())
def test_foreign_files_are_refused(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    path.write_bytes(foreign_files()[kind])
    with pytest.raises(CaffeFileError, match=f"file.{kind} is no whole .caffemodel: .*expected the weights"):
        read_caffemodel(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(CaffeFileError, match="missing.caffemodel does not exist: check the path"):
        read_caffemodel(tmp_path / "missing.caffemodel")
    with pytest.raises(CaffeFileError, match="is a folder: give the .caffemodel file"):
        read_caffemodel(tmp_path)
    (tmp_path / "empty.caffemodel").touch()
    with pytest.raises(CaffeFileError, match="it is empty"):
        read_caffemodel(str(tmp_path / "empty.caffemodel"))


SPOILED = {
    "too few numbers": (lambda net: new_layer(net, data=[1, 2]), "blob 0 of layer 'conv'.*24 numbers, but 8 bytes"),
    "no numbers": (lambda net: new_layer(net, data=[]), "asks for 24 numbers, but 0 bytes"),
    "no shape": (lambda net: new_layer(net, shape=()), r"shape \(\) asks for 1 numbers"),
    "negative size": (lambda net: new_layer(net, shape=(-2, -12)), r"shape is \(-2, -12\); expected.*positive"),
    "size of zero": (lambda net: new_layer(net, shape=(0, 3), data=[]), r"shape is \(0, 3\)"),
    "absurd size": (lambda net: new_layer(net, shape=(2**62, 2**62)), "asks for 2126764793255865396646091296448551"),
    "many axes": (lambda net: new_layer(net, shape=(1,) * 33, data=[1]), "at most 32"),
    "half of an old shape": (lambda net: net.layers.add(name="a").blobs.add(num=1, data=[1]), r"\(1, 0, 0, 0\)"),
    "both forms": (lambda net: (new_layer(net), net.layers.add(name="old")), "in the old form and in the new"),
    "same name": (lambda net: (new_layer(net), new_layer(net)), "two layers called 'conv'"),
    "same name, one empty": (lambda net: (new_layer(net), net.layer.add(name="conv")), "two layers called 'conv'"),
    "no name": (lambda net: new_layer(net, name=""), "has no name"),
    "no weights": (lambda net: net.layer.add(name="relu", type="ReLU"), "after layer 'relu', no layer with weights"),
    "two kinds of numbers": (lambda net: new_layer(net).blobs[0].double_data.extend([1]), "in 2 parts"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_nets_that_contradict_themselves_are_refused(tmp_path, case):
    spoil, message = SPOILED[case]
    net = MESSAGES["NetParameter"]()
    spoil(net)
    with pytest.raises(CaffeFileError, match=message):
        read_caffemodel(write(tmp_path / "net.caffemodel", net))


def test_unpacked_numbers_are_refused(tmp_path):
    # Field 5 with wire type 5 before each of three numbers, then the shape (3,).
    blob = (b"\x2d" + np.float32(1).tobytes()) * 3 + b"\x3a\x03\x0a\x01\x03"
    layer = MESSAGES["LayerParameter"](name="conv").SerializeToString() + b"\x3a" + bytes([len(blob)]) + blob
    serialised = b"\xa2\x06" + bytes([len(layer)]) + layer
    assert list(MESSAGES["NetParameter"].FromString(serialised).layer[0].blobs[0].data) == [1, 1, 1]
    (tmp_path / "net.caffemodel").write_bytes(serialised)
    with pytest.raises(CaffeFileError, match="layer 'conv'.*unpacked"):
        read_caffemodel(tmp_path / "net.caffemodel")


@pytest.mark.parametrize("text", [b"conv", b"voc_layers"])
def test_names_that_are_no_text_are_refused(tmp_path, text):
    path = write(tmp_path / "net.caffemodel", small_net())
    path.write_bytes(path.read_bytes().replace(text, b"\xff" * len(text)))
    with pytest.raises(CaffeFileError, match="is no UTF-8 text"):
        read_caffemodel(path)


def test_layers_without_weights_may_share_a_name(tmp_path):
    net = small_net()
    net.layer.add(name="data", type="Data")
    assert len(read_caffemodel(write(tmp_path / "net.caffemodel", net))) == 4


def test_a_file_that_shrinks_behind_the_readers_back_is_noticed(tmp_path):
    path = write(tmp_path / "net.caffemodel", small_net())
    blob = read_caffemodel(path)[1].blobs[0]
    path.write_bytes(path.read_bytes()[: blob.offset + 10])
    for use in (blob.read, lambda: blob.copy_to(io.BytesIO())):
        with pytest.raises(CaffeFileError, match="has become shorter"):
            use()


MEASURED = """
import resource, sys, types

# In bare packages: the real one would import torch, whose peak would hide this one.
for name in ("fcn_hf", "fcn_hf.convert"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = ["/".join([sys.argv[1], *name.split(".")[1:]])]
from fcn_hf.convert import caffe_file
assert "torch" not in sys.modules
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers = caffe_file.read_caffemodel(sys.argv[2])
reading = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[3], "wb") as copy:
    layers[0].blobs[0].copy_to(copy)
print(reading - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_takes_little_memory(tmp_path):
    shape = (1024, 512, 7, 7)
    row = np.arange(np.prod(shape[1:]), dtype=np.float32)
    blob = Blob(shape, lambda: (row + label for label in range(shape[0])))
    path, copy = tmp_path / "large.caffemodel", tmp_path / "copy"
    write_caffemodel(path, [Layer("fc6", "Convolution", ("pool5",), "fc6", blobs=(blob,))])
    assert path.stat().st_size > 100e6
    command = [sys.executable, "-c", MEASURED, fcn_hf.__path__[0], str(path), str(copy)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    reading, everything = (int(kib) / 1024 for kib in answer.stdout.split())
    assert reading < 4, f"{reading:.0f} MiB for names and shapes"
    assert everything < 24, f"{everything:.0f} MiB, but a piece is 16 MiB"
    kernel = np.fromfile(copy, "<f4").reshape(shape[0], -1)
    for label in (0, 163, 164, 1023):
        np.testing.assert_array_equal(kernel[label], row + label)


def torch_answer(name: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A direct reading of the release's nets."""
    published = PUBLISHED[name]
    weights = {layer.name: [torch.from_numpy(blob.array()) for blob in layer.blobs] for layer in net_layers(name)}
    pixels = torch.cat(list(inputs.values()), dim=1)

    def convolution(x, name, **settings):
        return F.conv2d(x, *weights[name], **settings)

    def relu_convolution(x, name, **settings):
        return F.relu(convolution(x, name, **settings))

    def crop(x, offset, like):
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    def classifier(x, suffix=""):
        return relu_convolution(relu_convolution(x, f"fc6{suffix}"), f"fc7{suffix}")

    def alexnet(x):
        x = F.max_pool2d(relu_convolution(x, "conv1", padding=100, stride=4), 3, 2, ceil_mode=True)
        x = relu_convolution(F.local_response_norm(x, 5, 1e-4, 0.75), "conv2", padding=2, groups=2)
        x = F.local_response_norm(F.max_pool2d(x, 3, 2, ceil_mode=True), 5, 1e-4, 0.75)
        x = relu_convolution(x, "conv3", padding=1)
        x = relu_convolution(x, "conv4", padding=1, groups=2)
        return classifier(F.max_pool2d(relu_convolution(x, "conv5", padding=1, groups=2), 3, 2, ceil_mode=True))

    def vgg16(x, suffix="", first="conv1_1"):
        for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
            for layer in range(1, depth + 1):
                start = stage == layer == 1
                layer_name = f"{first if start else f'conv{stage}_{layer}'}{suffix}"
                x = relu_convolution(x, layer_name, padding=100 if start else 1)
            x = pools[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
        return classifier(x, suffix)

    pools = {}
    if name == "nyud-fcn32s-color-hha":
        scores = [convolution(vgg16(inputs[part], part), f"score_fr{part}") for part in ("color", "hha")]
        upsampled = F.conv_transpose2d((scores[0] + scores[1]) / 2, *weights["upscore"], stride=32)
        return {"score": crop(upsampled, 19, pixels)}
    if published.backbone == "alexnet":
        upsampled = F.conv_transpose2d(convolution(alexnet(pixels), "score_fr"), *weights["upscore"], stride=32)
        return {"score": crop(upsampled, 18, pixels)}
    hidden = vgg16(pixels, first="conv1_1_bgrd" if "depth" in inputs else "conv1_1")
    scale4, scale3 = published.skip_scales or (1, 1)
    answers = {}
    for head in published.heads:
        s = head.removeprefix("score")
        x, offset, final = convolution(hidden, f"score_fr{s}"), 19, "upscore"
        if published.stride < 32:
            x = F.conv_transpose2d(x, *weights[f"upscore2{s}"], stride=2)
            x = x + crop(convolution(pools[4] * scale4, f"score_pool4{s}"), 5, x)
            offset, final = 27, "upscore16"
        if published.stride < 16:
            x = F.conv_transpose2d(x, *weights[f"upscore_pool4{s}"], stride=2)
            x = x + crop(convolution(pools[3] * scale3, f"score_pool3{s}"), 9, x)
            offset, final = 31, "upscore8"
        answers[head] = crop(F.conv_transpose2d(x, *weights[f"{final}{s}"], stride=published.stride), offset, pixels)
    return answers


@pytest.mark.parametrize("name", PUBLISHED)
def test_opencv_runs_the_nets_as_the_release_describes_them(tmp_path, name):
    """This checks `caffe_answer`, to which other tests hold fcn_hf."""
    generator = np.random.default_rng(0)
    write_caffemodel(tmp_path / "net.caffemodel", net_layers(name), data=PUBLISHED[name])
    # Odd sizes, so that rounding matters.
    height, width = 37, 51
    inputs = {
        top: generator.uniform(-120, 130, (1, channels, height, width)).astype(np.float32)
        for top, channels in PUBLISHED[name].inputs.items()
    }
    answers = caffe_answer(name, tmp_path / "net.caffemodel", inputs)
    expected = torch_answer(name, {top: torch.from_numpy(array) for top, array in inputs.items()})
    assert answers.keys() == expected.keys()
    for head, answer in answers.items():
        assert answer.shape == expected[head].shape == (1, PUBLISHED[name].heads[head], height, width)
        size = expected[head].abs().max().item()
        assert size > 0.1
        np.testing.assert_allclose(answer, expected[head].numpy(), rtol=0, atol=1e-5 * size)
