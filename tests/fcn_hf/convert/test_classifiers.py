"""Classifiers as starting points: their weights, their answers, and the preprocessing that they want."""

import re
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import make_layers

from fcn_hf import FCNForSemanticSegmentation
from fcn_hf.convert import ConversionError, convert, from_classifier
from fcn_hf.convert import classifiers as module
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import assert_refused, layers, published_state, run

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def head(features: int, hidden: int, classes: int, alexnet: bool = False) -> nn.Sequential:
    """torchvision's three fully connected layers: AlexNet's come after dropout, VGG's before."""
    fc6, fc7, scorer = nn.Linear(features, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
    if alexnet:
        return nn.Sequential(nn.Dropout(), fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU(), scorer)
    return nn.Sequential(fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU(), nn.Dropout(), scorer)


class TinyClassifier(nn.Module):
    """VGG or AlexNet with torchvision's names and arithmetic, which in torchvision have 61M parameters or more."""

    def __init__(self, name: str, classes: int = 10):
        super().__init__()
        torch.manual_seed(0)
        if name == "alexnet":
            convolutions = [(3, 4, 11, 4, 2), (4, 6, 5, 1, 2), (6, 8, 3, 1, 1), (8, 8, 3, 1, 1), (8, 6, 3, 1, 1)]
            layers: list[nn.Module] = []
            for number, (*channels, kernel, stride, padding) in enumerate(convolutions, start=1):
                layers += [nn.Conv2d(*channels, kernel, stride, padding), nn.ReLU()]
                layers += [nn.MaxPool2d(3, 2)] if number in (1, 2, 5) else []
            self.features, kernel, channels = nn.Sequential(*layers), 6, 6
        else:
            layout = [4, "M", 6, 6, "M", 8, "M", 8, 8, "M", 10, "M"]
            self.features, kernel, channels = make_layers(layout, batch_norm=name == "vgg_bn"), 7, 10
        self.avgpool = nn.AdaptiveAvgPool2d(kernel)
        self.classifier = head(channels * kernel * kernel, 12, classes, name == "alexnet")
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight)
                    layer.bias.normal_(0, 0.3)
                elif isinstance(layer, nn.BatchNorm2d):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_(0, 0.3)
                    layer.running_mean.normal_(0, 0.3)
                    layer.running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def coarse_scores(model, pixel_values):
    """What the scorer answers, before any upsampling."""
    with torch.no_grad():
        return model(pixel_values).coarse_scores


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_the_small_classifiers_of_these_tests_have_torchvisions_names(name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().classifier.state_dict()
        first = getattr(torchvision.models, name)().features[0]
    ours = TinyClassifier(name.replace("16", ""))
    assert list(ours.classifier.state_dict()) == list(theirs)
    assert ours.features[0].kernel_size == first.kernel_size and ours.features[0].padding == first.padding


@pytest.mark.parametrize("name", ["vgg", "vgg_bn"])
def test_the_kept_scorer_answers_as_the_classifier_where_it_sees_the_same(name):
    classifier = TinyClassifier(name)
    model, _ = from_classifier(classifier)
    assert list(model.config.depths) == [1, 2, 1, 2, 1] and list(model.config.hidden_sizes) == [4, 6, 8, 8, 10]
    assert model.config.use_batch_norm == (name == "vgg_bn") and not model.training
    pixel_values = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = classifier(pixel_values)
    scores = coarse_scores(model, pixel_values)
    assert scores.shape == (2, 10, 7, 7) and expected.std() > 0.1
    # At the centre of the map fc6's window is the whole map, as for the classifier; elsewhere it reaches beyond.
    torch.testing.assert_close(scores[:, :, 3, 3], expected, rtol=1e-5, atol=1e-5)
    assert (scores[:, :, 2, 3] - expected).abs().max() > 0.01


@pytest.mark.parametrize(("name", "kernel"), [("vgg", 7), ("vgg_bn", 7), ("alexnet", 6)])
def test_all_weights_are_the_classifiers(name, kernel):
    classifier = TinyClassifier(name)
    model, _ = from_classifier(classifier)
    ours, theirs = published_state(model), classifier.state_dict()
    fresh = {key for key in ours if key.startswith("upscore")}
    assert fresh and len(ours) - len(fresh) == len(theirs)
    for (key, tensor), expected in zip(
        [item for item in ours.items() if item[0] not in fresh], theirs.values(), strict=True
    ):
        assert torch.equal(tensor.reshape(expected.shape), expected), key
    assert ours["fc6.weight"].shape[-2:] == (kernel, kernel) and ours["fc7.weight"].shape[-2:] == (1, 1)


def test_alexnet_is_torchvisions_not_the_releases():
    config = from_classifier(TinyClassifier("alexnet"))[0].config
    assert (config.backbone, config.conv_groups, config.use_local_response_norm) == ("alexnet", 1, False)
    assert list(config.hidden_sizes) == [4, 6, 8, 8, 6] and config.hidden_size == 12


@pytest.fixture(scope="module")
def googlenet():
    torch.manual_seed(0)
    return torchvision.models.GoogLeNet(
        num_classes=10, aux_logits=True, transform_input=True, init_weights=False
    ).eval()


def test_googlenet_keeps_its_weights_but_the_auxiliary_classifiers(googlenet):
    model, _ = from_classifier(googlenet)
    ours, theirs = published_state(model), googlenet.state_dict()
    kept = {key: tensor for key, tensor in theirs.items() if not key.startswith(("aux1.", "aux2.", "fc."))}
    assert {key for key in ours if key not in kept} == {"score_fr.weight", "score_fr.bias", "upscore32.weight"}
    assert all(torch.equal(ours[key], tensor) for key, tensor in kept.items())
    assert torch.equal(ours["score_fr.weight"][:, :, 0, 0], theirs["fc.weight"])
    assert torch.equal(ours["score_fr.bias"], theirs["fc.bias"])


@pytest.mark.parametrize("transform_input", [True, False])
def test_googlenets_pictures_are_those_it_would_make_itself(googlenet, transform_input):
    """Its weights are TensorFlow's, in -1..1; torchvision undoes ImageNet's normalisation inside of the net."""
    googlenet.transform_input = transform_input
    _, processor = from_classifier(googlenet)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    pixels = torchvision.transforms.functional.to_tensor(picture)
    usual = torchvision.transforms.functional.normalize(pixels, *IMAGENET)[None]
    expected = googlenet._transform_input(usual)
    assert torch.equal(expected, usual) != transform_input
    pixel_values = processor(picture, return_tensors="pt").pixel_values
    torch.testing.assert_close(pixel_values, expected, rtol=0, atol=1e-5)
    googlenet.transform_input = True


@pytest.mark.parametrize("name", ["vgg", "vgg_bn", "alexnet"])
def test_vgg_and_alexnet_want_imagenets_normalisation(name):
    _, processor = from_classifier(TinyClassifier(name), num_labels=4)
    assert (list(processor.image_mean), list(processor.image_std)) == IMAGENET
    assert processor.num_labels == 4 and not processor.do_resize


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("name", ["vgg", "vgg_bn", "alexnet"])
def test_a_new_scorer_starts_as_in_a_new_net_with_skips_of_zero(tmp_path, name, stride):
    torch.save(TinyClassifier(name).state_dict(), tmp_path / "classifier.pth")
    result = run(
        "convert", tmp_path / "classifier.pth", tmp_path / "m", "--num-labels", 5, "--prediction-stride", stride
    )
    assert result.exit_code == 0, result.output
    assert "Its scorers are new: fine-tune it." in result.stdout
    model = FCNForSemanticSegmentation.from_pretrained(tmp_path / "m")
    assert model.config.num_labels == 5 and model.config.prediction_stride == stride
    head = model.heads["semantic"]
    assert head.score_fr.weight.shape == (5, 12, 1, 1)
    assert 0 < head.score_fr.weight.abs().max() < 0.1 and not head.score_fr.bias.any()
    skips = {32: [], 16: ["score_pool4"], 8: ["score_pool4", "score_pool3"]}[stride]
    assert [key for key, _ in head.named_children() if key.startswith("score_pool")] == skips
    assert not any(parameter.any() for skip in skips for parameter in getattr(head, skip).parameters())
    kernel = getattr(head, f"upscore{stride}").weight
    expected = bilinear_kernel(stride, kernel.shape[-1])
    torch.testing.assert_close(kernel, torch.as_tensor(expected).expand_as(kernel).to(kernel))


@pytest.mark.parametrize("form", ["module", "pth", "safetensors", "path"])
def test_a_classifier_may_be_a_module_or_a_file(tmp_path, form):
    classifier = TinyClassifier("vgg")
    source = classifier
    if form in ("pth", "path"):
        torch.save(classifier.state_dict(), tmp_path / "vgg.pth")
        source = tmp_path / "vgg.pth" if form == "path" else str(tmp_path / "vgg.pth")
    elif form == "safetensors":
        save_file(classifier.state_dict(), tmp_path / "vgg.safetensors")
        source = str(tmp_path / "vgg.safetensors")
    model, _ = from_classifier(source, num_labels=4, prediction_stride=16, id2label=dict(enumerate("abcd")))
    assert torch.equal(layers(model)["conv2_2"].weight, classifier.features[5].weight)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    # The net is a copy: training it leaves the classifier alone.
    with torch.no_grad():
        layers(model)["conv2_2"].weight.zero_()
    assert classifier.features[5].weight.any()


def in_timms_names(state):
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if kind == "weight" and layer == "classifier.0":
            tensor = tensor.reshape(len(tensor), -1, 7, 7)
        elif kind == "weight" and layer == "classifier.3":
            tensor = tensor[:, :, None, None]
        renamed[f"{names.get(layer, layer)}.{kind}"] = tensor.contiguous()
    return renamed


@pytest.mark.parametrize("names", ["torchvision", "timm"])
def test_a_hub_id_is_downloaded_in_either_ones_names(tmp_path, monkeypatch, names):
    state = TinyClassifier("vgg_bn").state_dict()
    save_file(state if names == "torchvision" else in_timms_names(state), tmp_path / "model.safetensors")
    asked = []

    def download(repo_id, filename, **settings):
        asked.append((repo_id, filename))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(module, "hf_hub_download", download)
    conversion = convert("timm/vgg16_bn.tv_in1k")
    assert asked == [("timm/vgg16_bn.tv_in1k", "model.safetensors")] and conversion.source == "timm/vgg16_bn.tv_in1k"
    model, _ = from_classifier("timm/vgg16_bn.tv_in1k")
    for key, tensor in from_classifier(TinyClassifier("vgg_bn"))[0].state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_timms_names_are_those_that_timm_uses():
    import timm

    with torch.device("meta"):
        theirs = timm.create_model("vgg11_bn").state_dict()
        torchvisions = torchvision.models.vgg11_bn(init_weights=False).state_dict()
    ours = in_timms_names(torchvisions)
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "alexnet", "googlenet"])
def test_a_name_of_torchvision_downloads_its_best_weights(monkeypatch, googlenet, name):
    state = googlenet.state_dict() if name == "googlenet" else TinyClassifier(name.replace("16", "")).state_dict()
    asked = []

    def download(url, **settings):
        asked.append((url, settings.get("check_hash")))
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    conversion = convert(name, num_labels=4, prediction_stride=8)
    assert asked == [(torchvision.models.get_model_weights(name).DEFAULT.url, True)]
    assert f"torchvision's {name}" in conversion.source and "IMAGENET1K" in conversion.source
    conversion.check()
    mean = [0.5] * 3 if name == "googlenet" else IMAGENET[0]
    assert list(conversion.processor.image_mean) == mean and conversion.config.prediction_stride == 8


def test_a_thousand_classes_are_imagenets():
    model, _ = from_classifier(TinyClassifier("alexnet", classes=1000))
    assert (model.config.id2label[0], model.config.id2label[999]) == ("tench", "toilet tissue")
    assert from_classifier(TinyClassifier("alexnet", classes=3))[0].config.id2label[2] == "class 2"


def test_without_a_network_one_line_says_so(tmp_path, monkeypatch):
    def fail(error):
        def download(*arguments, **settings):
            raise error

        return download

    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", fail(urllib.error.URLError("Network is unreachable"))
    )
    assert_refused(tmp_path, ["vgg16"], "'vgg16' can't be downloaded: .*Network is unreachable")
    wrong = fail(RuntimeError('invalid hash value (expected "397923af", got "e3b0c442")'))
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", wrong)
    assert_refused(tmp_path, ["vgg16"], "'vgg16' can't be downloaded: invalid hash value")
    # The whole suite runs with HF_HUB_OFFLINE.
    assert_refused(tmp_path, ["timm/vgg16.tv_in1k"], "'timm/vgg16.tv_in1k' can't be downloaded: ")


@pytest.mark.parametrize("name", ["resnet50", "vgg", "vgg17", "no/such/thing", "weights.bin", "a b/c"])
def test_names_of_nothing_usable_are_refused_before_any_download(tmp_path, monkeypatch, name):
    def download(*arguments, **settings):
        raise AssertionError("this should not be asked for")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    assert_refused(tmp_path, [name], f"{re.escape(repr(name))} (is no file|can't be downloaded)")


def test_a_folder_is_no_source(tmp_path):
    (tmp_path / "weights").mkdir()
    assert_refused(tmp_path, [tmp_path / "weights"], "is a folder; expected a file")


def removed(*keys):
    return lambda state: [state.pop(key) for key in keys]


def replaced(key, *shape):
    return lambda state: state.update({key: torch.zeros(shape)})


WRONG = {
    "first layer": ("vgg", removed("features.0.bias"), "features.0.bias is missing; expected it for conv1_1"),
    "fc6": ("vgg", removed("classifier.0.weight"), "classifier.0.weight is missing; expected it for fc6"),
    "scorer": ("alexnet", removed("classifier.6.weight"), "classifier.6.weight is missing; expected it for score_fr"),
    "statistics": ("vgg_bn", removed("features.1.running_var"), "features.1.running_var is missing; .* bn1_1"),
    "surplus": ("vgg", replaced("extra.weight", 2, 2), "extra.weight isn't part of a VGG classifier"),
    "stages": ("vgg", removed("features.16.weight", "features.16.bias"), "has 4 stages of convolutions; expected five"),
    "channels": ("vgg", replaced("features.5.weight", 6, 5, 3, 3), r"conv2_2.weight .*\(6, 5, 3, 3\); expected \(6, 6"),
    "fc6's width": ("vgg", replaced("classifier.0.weight", 12, 489), "classifier.0 reads 489 values; expected .* 49"),
    "fc7's width": ("vgg", replaced("classifier.3.weight", 12, 11), r"fc7.weight has shape \(12, 11, 1, 1\); expected"),
    "bias": ("alexnet", replaced("features.3.bias", 5), r"conv2.bias has shape \(5,\); expected \(6,\)"),
    "a number": ("vgg", replaced("features.0.weight"), r"features.0.weight has shape \(\); expected four axes"),
    "a vector": ("vgg", replaced("classifier.3.weight", 144), r"classifier.3.weight has shape \(144,\)"),
    "a name": ("vgg", replaced("features.last.weight", 2, 2, 1, 1), "features.last.weight isn't part of a VGG"),
    "no number": (
        "alexnet",
        lambda state: state["features.3.bias"].fill_(torch.nan),
        "conv2.bias has numbers .* finite",
    ),
    "another net": ("vgg", lambda state: state.update(net(state)), "not VGG, AlexNet or GoogLeNet"),
}


def net(state):
    """A ResNet's names in place of a VGG's."""
    state.clear()
    return {"conv1.weight": torch.zeros(4, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(4, 4, 1, 1)}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_classifier_is_refused_in_one_line_that_names_the_layer(tmp_path, case):
    name, spoil, message = WRONG[case]
    state = TinyClassifier(name).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "classifier.pth")
    assert_refused(tmp_path, [tmp_path / "classifier.pth"], message)


@pytest.mark.parametrize("key", ["fc.weight", "fc.bias", "conv2.bn.weight", "inception4c.branch2.1.conv.weight"])
def test_what_a_googlenet_lacks_is_named(googlenet, key):
    state = googlenet.state_dict()
    del state[key]
    with pytest.raises(ConversionError, match=f"{re.escape(key)} is missing"):
        module.convert_classifier(state, "googlenet.pth").check()


def test_a_googlenet_s_scorer_of_one_axis_is_named(googlenet):
    state = {**googlenet.state_dict(), "fc.weight": torch.zeros(3)}
    with pytest.raises(ConversionError, match=r"fc.weight has shape \(3,\); expected two axes"):
        module.convert_classifier(state, "googlenet.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_stride": 5}, r"prediction_stride=5 is not known; expected one of \(32, 16, 8\)"),
        ({"num_labels": 4, "id2label": {0: "a"}}, "id2label names 1 classes, but num_labels=4"),
        ({"id2label": {0: "a"}}, "id2label names 1 classes, but TinyClassifier scores 10; give num_labels"),
        ({"geometry": "none"}, "geometry='none' is not known"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ConversionError, match=message) as raised:
        from_classifier(TinyClassifier("vgg"), **settings)
    assert "\n" not in str(raised.value)


def test_a_stride_that_there_is_not_is_refused_by_the_command_too(tmp_path):
    torch.save(TinyClassifier("vgg").state_dict(), tmp_path / "vgg.pth")
    assert_refused(tmp_path, [tmp_path / "vgg.pth", "--prediction-stride", "5"], "prediction_stride=5 is not known")


@pytest.mark.parametrize("option", [["--inputs", "color"], ["--at-once"], ["--stepwise"]])
def test_options_of_other_nets_are_refused(tmp_path, option):
    torch.save(TinyClassifier("vgg").state_dict(), tmp_path / "vgg.pth")
    assert_refused(tmp_path, [tmp_path / "vgg.pth", *option], "doesn't apply to .*, which is a classifier")
