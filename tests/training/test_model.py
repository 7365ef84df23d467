"""Which net a recipe gives: a new one, one that goes on from another, or a sentence on why there is none."""

import copy

import pytest
import timm
import torch
from torch import nn
from transformers import TimmBackboneConfig

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.errors import FCNError
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import layers
from training.average import average, main
from training.model import ModelArguments, build_model, build_teacher, synchronised


def test_a_start_with_other_classes_gives_its_trunk_and_says_that_scores_begin_anew(tiny, tmp_path, capsys):
    start = tiny(num_labels=5)
    start.save_pretrained(tmp_path)
    arguments = ModelArguments(str(tmp_path), prediction_stride=8)
    for count, said in ((5, ""), (3, "knows 5 classes and the dataset 3")):
        model = build_model(arguments, {index: f"class {index}" for index in range(count)})
        assert said in capsys.readouterr().out
        assert torch.equal(layers(model)["fc6"].weight, layers(start)["fc6"].weight)
        head, start_head = model.heads["semantic"], start.heads["semantic"]
        assert head.score_fr.weight.shape[0] == count and model.config.num_labels == count
        assert model.config.label2id == {f"class {index}": index for index in range(count)}
        assert count != 5 or torch.equal(head.score_fr.weight, start_head.score_fr.weight)
    assert (head.score_pool3.weight == 0).all() and torch.equal(head.upscore8.weight[2, 0], bilinear_kernel(8))
    with pytest.raises(SystemExit, match="No weights to start from at 'nowhere'"):
        build_model(ModelArguments("nowhere"), {0: "a"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_stride": 12}, "prediction_stride=12 is not known; expected one of"),
        ({"backbone": "auto"}, "backbone='auto' needs a backbone_config"),
        ({"backbone": "auto", "backbone_config": "{model_type: rocket}"}, "model_type='rocket'; expected one"),
        ({"backbone": "auto", "backbone_config": "[1, 2]"}, "backbone_config"),
    ],
    ids=str,
)
def test_a_net_that_there_is_not_gets_one_sentence(settings, message):
    with pytest.raises(SystemExit, match=message) as refusal:
        build_model(ModelArguments(**settings), {0: "a", 1: "b"})
    assert "\n" not in str(refusal.value)


def test_a_teacher_knows_the_same_classes_and_wants_the_same_values(tiny, tmp_path):
    processor = FCNImageProcessor(num_labels=3)
    tiny(num_labels=3).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    arguments = ModelArguments(teacher_model_name_or_path=str(tmp_path))
    classes = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert build_teacher(arguments, classes, processor).num_parameters() == tiny(num_labels=3).num_parameters()
    assert build_teacher(ModelArguments(), classes, processor) is None
    with pytest.raises(SystemExit, match=r"knows the classes .*LABEL_2.*; what is learnt here is \['sky'"):
        build_teacher(arguments, {0: "sky"}, processor)
    with pytest.raises(FCNError, match=r"wants pictures with image_mean=.* and the net here has \(0.5"):
        build_teacher(arguments, classes, FCNImageProcessor(num_labels=3, image_mean=[0.5] * 3))
    with pytest.raises(SystemExit, match="No teacher at 'nowhere'"):
        build_teacher(ModelArguments(teacher_model_name_or_path="nowhere"), classes, processor)


def test_an_average_of_nets_is_that_of_their_weights_and_statistics(tiny, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "out")]
    for folder in folders[:2]:
        net = tiny(use_batch_norm=True)
        for value in net.state_dict().values():
            value += torch.rand(value.shape).to(value)
        net.save_pretrained(folder)
        FCNImageProcessor(num_labels=5).save_pretrained(folder)
    main([str(folder) for folder in folders[:2]], folders[2], [3, 1])
    first, second, mean = (FCNForSemanticSegmentation.from_pretrained(folder).state_dict() for folder in folders)
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name], msg=name)
    assert FCNImageProcessor.from_pretrained(folders[2]).num_labels == 5
    main([str(folders[0])], tmp_path / "half", weights_dtype="float16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", folders[0])]
    assert sizes[0] < 0.7 * sizes[1]
    with pytest.raises(FCNError, match="weights_dtype=half must be float32, float16"):
        main([str(folders[0])], folders[2], weights_dtype="half")
    FCNImageProcessor(num_labels=5, image_mean=[0.5] * 3).save_pretrained(folders[1])
    with pytest.raises(FCNError, match="b' wants pictures with image_mean"):
        main([str(folder) for folder in folders[:2]], folders[2])
    with pytest.raises(FCNError, match="config.json is a file"):
        main([str(folders[0])], folders[0] / "config.json")
    with pytest.raises(SystemExit, match="No average of nowhere"):
        main(["nowhere"], folders[2])


@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({}, [1.0], "The weights are .*one above 0 for each of the 2 models"),
        ({}, [1.0, -1.0], "one above 0"),
        ({}, [1.0, float("nan")], "one above 0"),
        ({"hidden_size": 7}, [1.0, 1.0], "is another net than '': see 'fcn"),
        ({"prediction_stride": 16}, [1.0, 1.0], "is another net"),
        ({"id2label": dict(enumerate("abcde"))}, [1.0, 1.0], "has id2label=.*'a'.* instead of"),
        ({"upsampling": "bilinear"}, [1.0, 1.0], "has upsampling=bilinear instead of learned"),
        ({"skip_scales": [0.5, 1.0]}, [1.0, 1.0], "has skip_scales="),
    ],
    ids=str,
)
def test_nets_that_have_no_average_are_refused(tiny, settings, weights, message):
    with pytest.raises(FCNError, match=message):
        average([tiny(), tiny(**settings)], weights)


@pytest.mark.parametrize("backbone", ["vgg", "timm"])
@torch.no_grad()
def test_synchronised_batch_normalisation_answers_as_before(tiny, backbone):
    model = tiny(use_batch_norm=True)
    if backbone == "timm":
        config = FCNConfig(
            backbone="auto", backbone_config=TimmBackboneConfig(backbone="test_efficientnet"), num_labels=3
        )
        model = FCNForSemanticSegmentation(config).eval()
        assert any(isinstance(module, timm.layers.BatchNormAct2d) for module in model.modules())
    pixel_values = torch.randn(2, 3, 40, 50)
    expected, names = model(pixel_values).logits, list(model.state_dict())
    together = synchronised(copy.deepcopy(model)).eval()
    norms = [module for module in together.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(together.state_dict()) == names
    assert torch.equal(together(pixel_values).logits, expected)
