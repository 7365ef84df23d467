"""torchfcn's state dicts through the converter: parity, which net it is, and what is refused."""

import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from fcn_hf.convert import convert, write_model_folder
from fcn_hf.convert.state_dicts import read_state_dict
from tests.fcn_hf.convert.torchfcn_nets import STRIDES, TorchFCN
from tests.helpers import assert_refused, run

BGR = (104.00698793, 116.66876762, 122.67891434)
FILES = {"FCN32s": "fcn32s.pth", "FCN16s": "fcn16s.pth", "FCN8s": "fcn8s.pth", "FCN8sAtOnce": "fcn8s-atonce.pth"}


def save(folder, name, content=None, **settings):
    path = folder / FILES[name]
    torch.save(TorchFCN(name).state_dict() if content is None else content, path, **settings)
    return path


@pytest.mark.parametrize("name", STRIDES)
def test_pictures_get_the_answer_that_torchfcn_gives(tmp_path, name):
    net = TorchFCN(name)
    write_model_folder(convert(save(tmp_path, name, net.state_dict())), tmp_path / "model")
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    for height, width in [(37, 51), (64, 33)]:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        bgr = torch.from_numpy((pixels[:, :, ::-1] - np.array(BGR)).astype(np.float32)).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = net(bgr)
            answer = model(**processor(Image.fromarray(pixels), return_tensors="pt")).logits
        assert answer.shape == expected.shape == (1, 21, height, width)
        assert expected.abs().max() > 0.1
        assert (answer - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_a_checkpoint_may_hold_numbers_of_numpy(tmp_path, module):
    state = TorchFCN("FCN32s").state_dict()
    numbers = {"best_mean_iu": np.float64(0.5), "epoch": np.int64(3), "done": np.bool_(True), "lr": np.float32(1e-5)}
    content = {"arch": "FCN32s", "model_state_dict": state, **numbers}
    # Without a zip archive's checksums, what another version of NumPy would have written can be put in.
    path = save(tmp_path, "FCN32s", content, _use_new_zipfile_serialization=False)
    path.write_bytes(re.sub(rb"cnumpy\._?core", b"c" + module, path.read_bytes()))
    assert b"c" + module + b".multiarray" in path.read_bytes()
    tensors, architecture = read_state_dict(path)
    assert architecture == "FCN32s" and tensors.keys() == state.keys()


@pytest.mark.parametrize("name", STRIDES)
def test_every_layer_matters_in_the_parity(name):
    """A net whose skips vanished in the answer would hide mistakes."""
    net, picture = TorchFCN(name), torch.randn(1, 3, 40, 30) * 100
    with torch.no_grad():
        answer = net(picture)
        for layer in [layer for layer in net.children() if isinstance(layer, torch.nn.Conv2d)]:
            bias = layer.bias.clone()
            layer.bias += 1
            assert (net(picture) - answer).abs().max() > 1e-3 * answer.abs().max()
            layer.bias.copy_(bias)


@pytest.mark.parametrize(
    "form", ["state dict", "parameters", "checkpoint", "legacy", "DataParallel", "float16 checkpoint", "safetensors"]
)
def test_all_forms_of_files_give_the_same_tensors(tmp_path, form):
    state = TorchFCN("FCN16s").state_dict()
    if form == "safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "fcn16s.safetensors"
        save_file(state, path)
    elif form == "legacy":
        path = save(tmp_path, "FCN16s", state, _use_new_zipfile_serialization=False)
        assert path.read_bytes()[:2] != b"PK"
    elif form == "parameters":
        path = save(tmp_path, "FCN16s", dict(TorchFCN("FCN16s").named_parameters()))
    elif form == "DataParallel":
        path = save(tmp_path, "FCN16s", torch.nn.DataParallel(TorchFCN("FCN16s")).state_dict())
    elif form.endswith("checkpoint"):
        if form.startswith("float16"):
            state = {key: tensor.half() for key, tensor in state.items()}
        content = {"epoch": 3, "arch": "FCN16s", "model_state_dict": state, "best_mean_iu": 0.5}
        path = save(tmp_path, "FCN16s", content)
    else:
        path = save(tmp_path, "FCN16s", state)
    conversion = convert(path)
    conversion.check()
    assert conversion.config.prediction_stride == 16
    for key, tensor in state.items():
        expected = tensor.float().numpy()
        if key == "conv1_1.weight":
            expected = expected[:, ::-1]
        if key.startswith("upscore"):
            expected = expected[range(21), range(21)][:, None]
        ours = conversion.tensors[key]
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("file", "architecture", "options", "scales"),
    [
        ("fcn8s.pth", None, [], (1, 1)),
        ("fcn8s-atonce_from_caffe.pth", None, [], (0.01, 0.0001)),
        ("FCN8sAtOnce.pth", None, [], (0.01, 0.0001)),
        ("model_best.pth.tar.pth", "FCN8sAtOnce", [], (0.01, 0.0001)),
        ("model_best.pth", "FCN8s", [], (1, 1)),
        ("fcn8s.pth", None, ["--at-once"], (0.01, 0.0001)),
        ("fcn8s.pth", "FCN8s", ["--at-once"], (0.01, 0.0001)),
        ("fcn8s-atonce.pth", "FCN8sAtOnce", ["--stepwise"], (1, 1)),
    ],
)
def test_names_tell_the_at_once_net_unless_the_user_does(tmp_path, file, architecture, options, scales):
    state = TorchFCN("FCN8s", n_class=5, widths=(4,) * 5, hidden=4).state_dict()
    torch.save(state if architecture is None else {"arch": architecture, "model_state_dict": state}, tmp_path / file)
    result = run("convert", tmp_path / file, tmp_path / "model", *options)
    assert result.exit_code == 0, result.output
    config = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "model").config
    assert tuple(config.skip_scales) == scales
    assert f"Taken for {'FCN8s, not AtOnce' if scales == (1, 1) else 'FCN8sAtOnce'}" in result.stdout
    assert ("as asked for" in result.stdout) == bool(options)
    assert config.id2label == {index: f"class {index}" for index in range(5)}


def test_classes_are_named_where_there_are_as_many_as_in_voc(tmp_path):
    config = convert(save(tmp_path, "FCN32s")).config
    assert (config.id2label[0], config.id2label[20], len(config.palette)) == ("background", "tvmonitor", 21)


@pytest.mark.parametrize("options", [["--at-once"]])
@pytest.mark.parametrize("name", ["FCN32s", "FCN16s"])
def test_only_the_8s_can_be_at_once(tmp_path, name, options):
    message = f"an FCN-{STRIDES[name]}s can't be the at-once net"
    assert_refused(tmp_path, [save(tmp_path, name), *options], message)


@pytest.mark.parametrize("option", [["--num-labels", "5"], ["--inputs", "color"], ["--prediction-stride", "8"]])
def test_options_of_other_nets_are_refused(tmp_path, option):
    name = option[0].removeprefix("--").replace("-", "_")
    assert_refused(tmp_path, [save(tmp_path, "FCN32s"), *option], f"{name} doesn't apply to .* a net of torchfcn")


@pytest.mark.parametrize(
    "key",
    ["conv1_1.bias", "conv2_2.weight", "conv3_1.weight", "conv5_3.bias", "fc6.weight", "fc7.bias", "score_fr.weight"]
    + ["score_fr.bias", "score_pool4.weight", "score_pool3.bias", "upscore2.weight", "upscore_pool4.weight"]
    + ["upscore8.weight"],
)
def test_a_missing_tensor_is_named(tmp_path, key):
    state = TorchFCN("FCN8s").state_dict()
    del state[key]
    assert_refused(
        tmp_path, [save(tmp_path, "FCN8s", state)], f"{re.escape(key)} is missing|none of .*'{re.escape(key)}'"
    )


def mixed(weight):
    weight = weight.clone()
    weight[1, 2] = 1
    return weight


WRONG = {
    "surplus": ("conv6_1.weight", lambda state: torch.zeros(3), "conv6_1.weight is not part of FCN-8s"),
    "bias length": ("conv2_1.bias", lambda state: torch.zeros(7), r"conv2_1.bias has shape \(7,\); expected \(8,\)"),
    "channels": (
        "conv3_2.weight",
        lambda state: torch.zeros(12, 11, 3, 3),
        r"conv3_2.weight has shape \(12, 11, 3, 3\); expected \(12, 12, 3, 3\)",
    ),
    "classes": ("score_pool3.bias", lambda state: torch.zeros(20), r"score_pool3.bias .*\(20,\); expected \(21,\)"),
    "kernel": ("upscore8.weight", lambda state: torch.zeros(21, 21, 8, 8), r"upscore8.weight .*8, 8\); expected .*16"),
    "mixed": ("upscore2.weight", lambda state: mixed(state["upscore2.weight"]), "upscore2.weight mixes classes: 16"),
    "not dense": (
        "upscore2.weight",
        lambda state: torch.zeros(21, 5, 4, 4),
        r"upscore2.weight has shape \(21, 5, 4, 4",
    ),
    "a number": ("fc6.weight", lambda state: torch.tensor(1.0), r"fc6.weight .*\(\)"),
    "grey pictures": ("conv1_1.weight", lambda state: torch.zeros(8, 1, 3, 3), r"conv1_1.weight .*\(8, 1, 3, 3\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_tensor_is_named(tmp_path, case):
    key, make, message = WRONG[case]
    state = TorchFCN("FCN8s").state_dict()
    state[key] = make(state)
    assert_refused(tmp_path, [save(tmp_path, "FCN8s", state)], message)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, form):
    content = {"conv1_1.weight": torch.zeros(1), "bomb": Bomb(tmp_path / "exploded")}
    if form == "bare pickle":
        path = tmp_path / "fcn32s.pth"
        path.write_bytes(pickle.dumps({"bomb": Bomb(tmp_path / "exploded")}))
    else:
        path = save(tmp_path, "FCN32s", content, _use_new_zipfile_serialization=form == "zip")
    assert_refused(tmp_path, [path], "holds more than tensors .* not unpickled, since that would run its code")
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(OSError):
        # The file is as dangerous as it should be: unpickled without care, it makes the folder, then fails to again.
        torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
        torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, legacy, share):
    path = save(tmp_path, "FCN32s", _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert_refused(tmp_path, [path], "fcn32s.pth (can't be read|holds more than tensors)")


@pytest.mark.parametrize(
    "content",
    [{}, {"epoch": 3}, [torch.zeros(3)], torch.zeros(3), {"model_state_dict": {}}, {0: torch.zeros(3)}],
    ids=["empty", "no tensors", "list", "tensor", "empty checkpoint", "numbered"],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    assert_refused(tmp_path, [save(tmp_path, "FCN32s", content)], "fcn32s.pth holds no state dict")


@pytest.mark.parametrize("name", ["a.pth", "b.safetensors", "c.caffemodel"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    assert_refused(tmp_path, [tmp_path / name], f"{name} does not exist; check the path")


def test_a_git_lfs_pointer_is_called_one(tmp_path):
    for name in ("fcn32s.pth", "fcn32s.safetensors", "fcn8s.caffemodel"):
        path = tmp_path / name
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        assert_refused(tmp_path, [path], "is a Git LFS pointer")
