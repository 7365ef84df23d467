"""torchvision's FCNs through the converter: the same logits, the same preprocessing, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import segmentation
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
from typer.testing import CliRunner

from fcn_hf.cli import app
from fcn_hf.convert import ConversionError
from fcn_hf.convert.torchvision_fcn import convert_torchvision_fcn


def zeros(name: str, **settings) -> dict[str, torch.Tensor]:
    """A state dict with the right names and shapes, which takes no time to draw."""
    with torch.device("meta"):
        net = getattr(segmentation, name)(weights=None, weights_backbone=None, **settings)
    return {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in net.state_dict().items()}


@pytest.fixture(scope="module")
def net():
    """fcn_resnet50 with an auxiliary classifier; its batch normalisation has seen something."""
    torch.manual_seed(0)
    net = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1)
                layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.8, 1.2)
        # The default bias is as good as none.
        net.classifier[4].bias.normal_()
    return net


def test_logits_are_torchvisions(net, tmp_path):
    path, folder = tmp_path / "fcn_resnet50_coco.pth", tmp_path / "model"
    torch.save(net.state_dict(), path)
    result = CliRunner().invoke(app, ["convert", str(path), str(folder)])
    path.unlink()
    assert result.exit_code == 0, result.output
    assert "torchvision's fcn_resnet50" in result.stdout and "auxiliary classifier" in result.stdout
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert model.config.id2label[15] == "person"
    for shape in [(1, 3, 65, 97), (2, 3, 34, 51)]:
        pixel_values = torch.randn(shape)
        with torch.no_grad():
            expected, answer = net(pixel_values)["out"], model(pixel_values).logits
        assert answer.shape == expected.shape == (shape[0], 21, *shape[2:])
        assert expected.std() > 0.1
        assert (answer - expected).abs().max() <= 1e-4
    # One logit tells nothing about the order of a picture's rows and columns; the spread over the picture does.
    assert expected.std(dim=(2, 3)).max() > 1e-3
    (folder / "model.safetensors").unlink()


def test_pictures_are_prepared_as_torchvision_wants_them(tmp_path):
    conversion = convert_torchvision_fcn(zeros("fcn_resnet50"), "fcn_resnet50_coco.pth")
    conversion.processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "fcn"}')
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 390, 3), dtype=np.uint8))
    expected = segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.transforms()(picture)
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt").pixel_values[0]
    assert pixel_values.shape == expected.shape == (3, 520, 780)
    # Both resize whole numbers, which may round differently by one, 0.018 after normalisation.
    assert (pixel_values - expected).abs().max() < 0.02


def test_the_auxiliary_classifier_changes_nothing(net):
    state = net.state_dict()
    without = {key: tensor for key, tensor in state.items() if not key.startswith("aux_classifier.")}
    assert len(without) < len(state)
    both = [convert_torchvision_fcn(weights, "fcn.pth") for weights in (state, without)]
    assert list(both[0].tensors) == list(both[1].tensors)
    for conversion in both:
        conversion.check()
    assert all(np.array_equal(tensor, both[1].tensors[key]) for key, tensor in both[0].tensors.items())
    assert ["auxiliary" in " ".join(conversion.notes) for conversion in both] == [True, False]


@pytest.mark.parametrize(("name", "classes"), [("fcn_resnet50", 7), ("fcn_resnet101", 21)])
def test_the_backbone_and_the_classes_are_recognised(name, classes):
    conversion = convert_torchvision_fcn(zeros(name, num_classes=classes), "fcn.pth")
    conversion.check()
    config = conversion.config
    assert (config.backbone, config.backbone_config.backbone) == ("auto", name.removeprefix("fcn_"))
    assert (config.num_labels, config.prediction_stride, config.upsampling) == (classes, 8, "interpolate")
    assert config.id2label[0] == ("background" if classes == 21 else "class 0")
    assert f"torchvision's {name}" in conversion.notes[0]


def test_half_precision_is_held_in_float32(net):
    state = {
        key: tensor.bfloat16() if tensor.is_floating_point() else tensor for key, tensor in net.state_dict().items()
    }
    conversion = convert_torchvision_fcn(state, "fcn.pth")
    dtypes = {tensor.dtype for key, tensor in conversion.tensors.items() if "num_batches" not in key}
    assert dtypes == {np.dtype(np.float32)}


def removed(*keys):
    return lambda state: [state.pop(key) for key in keys]


def replaced(key, *shape):
    return lambda state: state.update({key: torch.zeros(shape)})


def with_fewer_blocks(state):
    for key in [key for key in state if key.startswith("backbone.layer3.5.")]:
        del state[key]


WRONG = {
    "backbone layer": (
        removed("backbone.layer3.2.conv1.weight"),
        r"layer3.2.conv1.weight is missing.*\(256, 1024, 1, 1",
    ),
    "first layer": (removed("backbone.bn1.running_var"), "bn1.running_var is missing"),
    "head": (removed("classifier.0.weight"), "classifier.0.weight is missing; expected torchvision's fcn_resnet50"),
    "normalisation": (removed("classifier.1.running_var"), "classifier.1.running_var is missing"),
    "scorer": (removed("classifier.4.bias"), "classifier.4.bias is missing"),
    "surplus": (replaced("backbone.fc.weight", 3, 3), "fc.weight is not part of FCN on ResNet-50"),
    "blocks": (with_fewer_blocks, r"layer3 has 5 blocks; expected 6 \(ResNet-50\) or 23"),
    "kernel": (
        replaced("backbone.conv1.weight", 64, 3, 3, 3),
        r"conv1.weight .*\(64, 3, 3, 3\); expected \(64, 3, 7, 7",
    ),
    "normalisation's size": (replaced("classifier.1.weight", 511), r"classifier.1.weight has shape \(511,\)"),
    "scorer's size": (replaced("classifier.4.weight", 21, 511, 1, 1), r"score_fr.weight .*511, 1, 1\); expected"),
    "a number": (replaced("classifier.4.weight"), r"classifier.4.weight has shape \(\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_net_is_refused_in_one_line_that_names_the_layer(case):
    spoil, message = WRONG[case]
    state = zeros("fcn_resnet50")
    spoil(state)
    with pytest.raises(ConversionError, match=message) as raised:
        convert_torchvision_fcn(state, "fcn.pth").check()
    assert "\n" not in str(raised.value)


def test_deeplab_is_refused():
    with pytest.raises(ConversionError, match="expected torchvision's fcn_resnet50"):
        convert_torchvision_fcn(zeros("deeplabv3_resnet50"), "deeplab.pth").check()
