"""Which net a recipe gives: a new one, one that goes on from another, or a sentence on why there is none."""

import copy

import pytest
import timm
import torch
from torch import nn
from transformers import TimmBackboneConfig

from fcn_hf import FCNConfig, FCNForSemanticSegmentation
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import layers
from training.model import ModelArguments, build_model, synchronised


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
