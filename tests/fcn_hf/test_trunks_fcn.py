"""What every trunk promises: its own net to the last digit, scores where they belong, and any picture size."""

import json

import pytest
import torch
import torchvision
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSemanticSegmentation,
    ConvNextConfig,
    Dinov2Config,
    ResNetBackbone,
    ResNetConfig,
    SwinConfig,
    TimmBackboneConfig,
    ViTConfig,
)

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, trunks_fcn
from fcn_hf.convert.names import published_names
from fcn_hf.upsampling_fcn import bilinear_kernel
from tests.helpers import layers, published_state, run_without_the_package

STRIDES = (32, 16, 8)
GEOMETRIES = ("same", "caffe")
SIZES = [(1, 1), (1, 70), (33, 47), (64, 96), (101, 30)]

NARROW = {"hidden_sizes": (4, 4, 8, 8, 8), "hidden_size": 8}
NARROW_GOOGLENET = {"backbone": "googlenet", "hidden_sizes": (8, 24, 60, 104, 128)}
CLASSIFIERS = {
    "vgg": {"backbone": "vgg", "depths": (1, 2, 1, 1, 1), **NARROW},
    "alexnet": {"backbone": "alexnet", **NARROW},
    "googlenet": NARROW_GOOGLENET,
    "googlenet-bn": {**NARROW_GOOGLENET, "use_batch_norm": True, "hidden_size": 8},
}
BACKBONE_CONFIGS = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic"),
    "convnext": ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "swin": SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4),
    "timm": TimmBackboneConfig(backbone="test_resnet"),
    "timm-dilated": TimmBackboneConfig(backbone="test_resnet", output_stride=8),
}
AUTO = tuple(BACKBONE_CONFIGS)
NEW = ("alexnet", "googlenet", "googlenet-bn", *AUTO)


def build(name: str, **settings) -> FCNForSemanticSegmentation:
    """A narrow net in eval mode; what starts as zeros or bilinear is random, as zeros would hide mistakes."""
    torch.manual_seed(0)
    model = build_fresh(name, **settings).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith("heads.") or parameter_name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def build_fresh(name: str, **settings) -> FCNForSemanticSegmentation:
    return FCNForSemanticSegmentation(FCNConfig(**{"num_labels": 5, **describe(name), **settings}))


def describe(name: str) -> dict:
    """The settings of a narrow net, by the name it has in these tests."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    return CLASSIFIERS.get(name) or {"backbone": "auto", "backbone_config": BACKBONE_CONFIGS[name]}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# Sizes


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "googlenet-bn"])
@torch.no_grad()
def test_classifiers_take_any_size(name, geometry, stride):
    model = build(name, prediction_stride=stride, geometry=geometry)
    for size in SIZES:
        assert model(torch.randn(1, 3, *size)).logits.shape == (1, 5, *size)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("name", AUTO)
@torch.no_grad()
def test_auto_backbones_take_any_size(name, stride):
    if name == "timm-dilated" and stride > 8:
        pytest.skip("its maps have stride 8 only")
    model = build(name, prediction_stride=stride)
    for size in SIZES:
        assert model(torch.randn(2, 3, *size)).logits.shape == (2, 5, *size)


@pytest.mark.parametrize("name", ["vgg", "alexnet", "googlenet", "resnet"])
@torch.no_grad()
def test_interpolation_in_place_of_the_last_upsampling_takes_any_size(name):
    model = build(name, upsampling="interpolate")
    assert not any("upscore8" in key for key in model.state_dict())
    for size in SIZES:
        assert model(torch.randn(1, 3, *size)).logits.shape == (1, 5, *size)


# AlexNet


def alexnet_release_forward(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """The release's voc-fcn-alexnet/net.py in plain functions."""
    weights = published_state(model)

    def convolve(x, name, **kwargs):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **kwargs)

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def normalise(x):
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = normalise(pool(F.relu(convolve(pixel_values, "conv1", stride=4, padding=100))))
    x = normalise(pool(F.relu(convolve(x, "conv2", padding=2, groups=2))))
    x = F.relu(convolve(x, "conv3", padding=1))
    x = F.relu(convolve(x, "conv4", padding=1, groups=2))
    x = pool(F.relu(convolve(x, "conv5", padding=1, groups=2)))
    x = convolve(F.relu(convolve(F.relu(convolve(x, "fc6")), "fc7")), "score_fr")
    x = F.conv_transpose2d(x, weights["upscore32.weight"], stride=32, groups=x.shape[1])
    height, width = pixel_values.shape[-2:]
    return x[..., 18 : 18 + height, 18 : 18 + width]


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (75, 118), (128, 97), (227, 64)])
@torch.no_grad()
def test_alexnet_in_caffe_geometry_is_the_release_layer_for_layer(size):
    model = build("alexnet", geometry="caffe", prediction_stride=32)
    head = model.heads["semantic"]
    assert head.crop_offset == 18
    assert head.upscore32.weight.shape == (5, 1, 63, 63)
    # As large as the release's inputs, 0..255 without their mean, so that the normalisation matters.
    pixel_values = torch.randn(2, 3, *size) * 100
    expected = alexnet_release_forward(model, pixel_values)
    assert relative_error(model(pixel_values).logits, expected) <= 1e-5
    plain = build("alexnet", geometry="caffe", prediction_stride=32, use_local_response_norm=False)
    assert relative_error(plain(pixel_values).logits, expected) > 1e-3


def test_alexnet_has_the_57m_parameters_of_the_paper():
    with torch.device("meta"):
        model = FCNForSemanticSegmentation(FCNConfig(backbone="alexnet", num_labels=21, prediction_stride=32))
    shapes = {name: tuple(weight.shape) for name, weight in published_state(model).items() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (96, 3, 11, 11),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (4096, 256, 6, 6),
        "fc7.weight": (4096, 4096, 1, 1),
        "score_fr.weight": (21, 4096, 1, 1),
        "upscore32.weight": (21, 1, 63, 63),
    }
    assert 57e6 < model.num_parameters() < 58e6


# GoogLeNet


@pytest.fixture(scope="module")
def torchvision_googlenet():
    """Random weights, and running statistics that keep the features alive through 22 layers."""
    torch.manual_seed(0)
    model = torchvision.models.googlenet(init_weights=False, aux_logits=False, transform_input=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 96, 96))
    return model.eval()


def is_trunk(name: str) -> bool:
    return not name.startswith(("score", "upscore", "fc."))


def test_googlenet_has_the_names_and_shapes_of_torchvision(torchvision_googlenet):
    with torch.device("meta"):
        model = FCNForSemanticSegmentation(FCNConfig(backbone="googlenet", use_batch_norm=True))
    shapes, expected = (
        {name: tuple(value.shape) for name, value in state.items() if is_trunk(name)}
        for state in (published_state(model), torchvision_googlenet.state_dict())
    )
    assert shapes == expected


@torch.no_grad()
def test_googlenet_answers_as_torchvision_does_with_its_weights(torchvision_googlenet):
    # The poolings of "caffe" are torchvision's, and 100 px of padding are torchvision's 3 around a border of 97.
    config = FCNConfig(backbone="googlenet", use_batch_norm=True, geometry="caffe", prediction_stride=32)
    model = FCNForSemanticSegmentation(config).eval()
    places = published_names(model.state_dict())
    weights = {places[name]: value for name, value in torchvision_googlenet.state_dict().items() if is_trunk(name)}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and not any(name.startswith("fcn.") for name in missing)
    answers = {}
    for name in ("inception3b", "inception4e", "inception5b"):
        getattr(torchvision_googlenet, name).register_forward_hook(
            lambda module, inputs, output, name=name: answers.update({name: output})
        )
    pixel_values = torch.randn(1, 3, 31, 50)
    torchvision_googlenet(F.pad(pixel_values, (97, 97, 97, 97)))
    hidden_states = model(pixel_values, output_hidden_states=True).hidden_states
    for name, hidden_state in zip(answers, hidden_states[2:5], strict=True):
        assert relative_error(hidden_state, answers[name]) <= 1e-5, name


def test_googlenet_without_batch_norm_is_that_of_the_paper():
    with torch.device("meta"):
        model = FCNForSemanticSegmentation(FCNConfig(backbone="googlenet", num_labels=21, prediction_stride=32))
    assert layers(model)["inception3a"].branch3[1].conv.kernel_size == (5, 5)
    # Table 1 of arXiv:1409.4842, all three branches and the projection of its deepest block.
    block = layers(model)["inception5b"]
    assert [block.branch1.conv.out_channels, block.branch2[1].conv.out_channels] == [384, 384]
    assert [block.branch3[1].conv.out_channels, block.branch4[1].conv.out_channels] == [128, 128]
    # The 6M parameters of FCN-GoogLeNet (CVPR, table 1).
    assert 5.9e6 < model.num_parameters() < 6.2e6


@pytest.mark.parametrize("use_batch_norm", [False, True])
def test_googlenet_narrows_by_one_common_factor(use_batch_norm):
    model = FCNForSemanticSegmentation(FCNConfig(**NARROW_GOOGLENET, use_batch_norm=use_batch_norm))
    states = model(torch.randn(2, 3, 64, 64), output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states[:5]] == list(NARROW_GOOGLENET["hidden_sizes"])


# Alignment


def centre(picture: torch.Tensor) -> list[float]:
    """Centre of mass of a `(H, W)` tensor, (y, x)."""
    masses = [picture.sum(dim=1), picture.sum(dim=0)]
    return [((mass * torch.arange(len(mass))).sum() / mass.sum()).item() for mass in masses]


def capture_scores(model: nn.Module) -> dict[int, torch.Tensor]:
    """Scores by stride, filled by the next forward."""
    scores: dict[int, torch.Tensor] = {}
    coarsest, head = round(model.fcn.trunk.answer.position.scale), model.heads["semantic"]
    for name, stride in (("score_fr", coarsest), ("score_pool4", 16), ("score_pool3", 8)):
        if hasattr(head, name):
            getattr(head, name).register_forward_hook(
                lambda module, inputs, output, stride=stride: scores.update({stride: output})
            )
    return scores


def mean_pool2d(x, kernel_size, stride, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_each_score_looks_at_pixels_around_its_own(name, geometry, monkeypatch):
    model = build(name, geometry=geometry, prediction_stride=8)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            positive = not parameter_name.endswith("bias")
            parameter.fill_(1 / parameter[0].numel() if positive and parameter.ndim == 4 else float(positive))
    # With averages for maxima and equal weights a score is a symmetric mean of the pixels around its centre.
    monkeypatch.setattr(F, "max_pool2d", mean_pool2d)
    scores, trunk = capture_scores(model), model.fcn.trunk
    positions = {**{stride: map.position for stride, map in trunk.maps.items()}, 32: trunk.answer.position}
    for axis, size in enumerate([(1120, 8), (8, 1120)]):
        pixel_values = torch.ones(1, 3, *size, requires_grad=True)
        model(pixel_values)
        for stride, score in scores.items():
            index = round((560 - positions[stride].offset) / stride)
            line = score[0].sum(dim=(0, 2 - axis))
            (gradient,) = torch.autograd.grad(line[index], pixel_values, retain_graph=True)
            seen = gradient[0].sum(dim=0)
            assert seen.min() >= 0 and seen.sum(dim=1 - axis)[[0, -1]].eq(0).all(), "the border is in sight"
            assert centre(seen)[axis] == pytest.approx(stride * index + positions[stride].offset, abs=0.01)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(
    ("name", "geometry"), [(name, g) for name in CLASSIFIERS for g in GEOMETRIES] + [(name, "same") for name in AUTO]
)
@torch.no_grad()
def test_each_score_comes_back_to_the_pixels_it_came_from(name, geometry, stride):
    if name == "timm-dilated" and stride > 8:
        pytest.skip("its maps have stride 8 only")
    model = build_fresh(name, geometry=geometry, prediction_stride=stride, num_labels=1).eval()
    trunk, head = model.fcn.trunk, model.heads["semantic"]
    coarsest = round(trunk.answer.position.scale)
    maps = {"score_fr": trunk.answer, "score_pool4": trunk.maps.get(16), "score_pool3": trunk.maps.get(8)}
    positions = {scorer: map.position for scorer, map in maps.items() if map is not None}
    if geometry == "same" and name in AUTO:
        assert all(position.offset * 2 + 1 == position.scale for position in positions.values())
    answered: dict[str, tuple[int, int]] = {}
    lit: list[str] = []

    def light(scorer: str, position) -> None:
        """Let the scorer answer with zeros, or with a single 1 near the pixel (80, 112) if it is the one in `lit`."""

        def hook(module, inputs, output):
            indices = [round((pixel - position.offset) / position.scale) for pixel in (80, 112)]
            output = torch.zeros_like(output)
            output[0, 0, indices[0], indices[1]] = scorer in lit
            answered[scorer] = tuple(position.scale * index + position.offset for index in indices)
            return output

        getattr(head, scorer).register_forward_hook(hook)

    scorers = [scorer for scorer in positions if hasattr(head, scorer)]
    assert len(scorers) == {32: 1, 16: 2, 8: 3}[stride] - (2 if coarsest == 8 else 0)
    for scorer in scorers:
        light(scorer, positions[scorer])
    for scorer in scorers:
        lit[:] = [scorer]
        answer = model(torch.zeros(1, 3, 161, 193)).logits[0, 0]
        assert centre(answer) == pytest.approx(answered[scorer], abs=0.01), scorer
        # Nothing is lost or counted twice: 1 is spread over the pixels that the score stands for.
        scale = positions[scorer].scale
        assert answer.sum().item() == pytest.approx(scale**2, rel=1e-3), scorer
        y, x = (int(pixel) for pixel in answered[scorer])
        assert answer[y, x].item() == pytest.approx(answer.max().item()), scorer


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("name", ["vgg", "resnet", "convnext"])
@torch.no_grad()
def test_interpolation_and_bilinear_upsampling_agree_inside(name, stride):
    model = build(name, prediction_stride=stride, upsampling="bilinear")
    resized = build(name, prediction_stride=stride, upsampling="interpolate")
    resized.load_state_dict(model.state_dict(), strict=False)
    pixel_values = torch.randn(1, 3, 192, 224)
    inner = (..., slice(16, -16), slice(16, -16))
    torch.testing.assert_close(resized(pixel_values).logits[inner], model(pixel_values).logits[inner])


# Fresh and warm starts


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet", "swin"])
@torch.no_grad()
def test_skips_of_a_fresh_net_add_nothing(name):
    model = build_fresh(name, prediction_stride=8).eval()
    scores = capture_scores(model)
    model(torch.randn(1, 3, 64, 64))
    assert scores[32].any() and not scores[16].any() and not scores[8].any()


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "googlenet-bn", "resnet", "convnext", "swin", "timm"])
@torch.no_grad()
def test_a_finer_net_takes_the_weights_of_a_coarser_one_by_name(name, tmp_path):
    coarse = build(name, prediction_stride=32)
    coarse.save_pretrained(tmp_path)
    fine, info = FCNForSemanticSegmentation.from_pretrained(tmp_path, prediction_stride=8, output_loading_info=True)
    new = {"score_pool4.weight", "score_pool4.bias", "score_pool3.weight", "score_pool3.bias"}
    places = published_names(fine.state_dict())
    missing = new | {"upscore2.weight", "upscore_pool4.weight", "upscore8.weight"}
    assert info["missing_keys"] == {places[name] for name in missing}
    assert set(info["unexpected_keys"]) == {"heads.semantic.upscore32.weight"}
    weights, expected = published_state(fine), published_state(coarse)
    assert all(torch.equal(weights[key], expected[key]) for key in expected if key != "upscore32.weight")
    assert not any(weights[key].any() for key in new)
    for key, factor in (("upscore2", 2), ("upscore_pool4", 2), ("upscore8", 8)):
        weight = weights[f"{key}.weight"]
        assert torch.equal(weight, bilinear_kernel(factor, weight.shape[-1]).expand_as(weight))


def test_another_number_of_classes_starts_with_a_fresh_head(tmp_path):
    model = build("resnet")
    model.save_pretrained(tmp_path)
    loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    head = loaded.heads["semantic"]
    assert 0.005 < head.score_fr.weight.std() < 0.02 and not head.score_pool3.weight.any()
    assert torch.equal(head.upscore2.weight, bilinear_kernel(2).expand(7, 1, 4, 4))
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.base_model.parameters(), model.base_model.parameters(), strict=True)
    )


def test_backbones_are_initialised_as_their_own_authors_do():
    convolution = build_fresh("convnext").fcn.trunk.backbone.embeddings.patch_embeddings
    # ConvNeXt's initializer_range; a kaiming initialisation of FCN's own would give 0.12.
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.3)


@torch.no_grad()
def test_pretrained_backbones_fit_by_name_and_stay_as_they_are(tmp_path):
    from transformers import AutoBackbone

    torch.manual_seed(1)
    backbone = AutoBackbone.from_config(BACKBONE_CONFIGS["convnext"]).eval()
    model = build("convnext")
    model.fcn.trunk.backbone.load_state_dict(backbone.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path)
    pixel_values = torch.randn(1, 3, 64, 64)
    last = loaded(pixel_values, output_hidden_states=True).hidden_states[2]
    loaded = loaded.fcn.trunk.backbone
    assert torch.equal(last, loaded(pixel_values).feature_maps[-1])
    pretrained = backbone.state_dict()
    shared = [key for key in loaded.state_dict() if key in pretrained]
    assert len(shared) > 20
    assert all(torch.equal(loaded.state_dict()[key], pretrained[key]) for key in shared)


# What users of transformers expect


@pytest.mark.parametrize("name", NEW)
@torch.no_grad()
def test_save_and_load_are_bit_equal(name, tmp_path):
    model, pixel_values = build(name), torch.randn(1, 3, 50, 41)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert isinstance(loaded, FCNForSemanticSegmentation) and not loaded.training
    assert torch.equal(loaded(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize("upsampling", ["learned", "bilinear"])
@pytest.mark.parametrize("name", ["vgg", "resnet"])
@torch.no_grad()
def test_a_file_in_half_precision_loads_in_the_dtype_asked_for(name, upsampling, tmp_path):
    settings = describe(name)
    if name == "resnet":
        # Configurations of published backbones often name a dtype of their own.
        settings = {"backbone_config": ResNetConfig(**{**BACKBONE_CONFIGS[name].to_dict(), "dtype": "float32"})}
    build(name, upsampling=upsampling, **settings).to(torch.bfloat16).save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path, dtype=dtype)
        weights = loaded.state_dict()
        assert {value.dtype for value in weights.values() if value.is_floating_point()} == {dtype}
        assert loaded(torch.randn(1, 3, 33, 40)).logits.dtype == dtype


def used_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All but the layer normalisation at the end of Swin, which transformers doesn't apply to feature maps."""
    return {name: p for name, p in model.named_parameters() if ".backbone.swin.layernorm." not in name}


@pytest.mark.parametrize("name", NEW)
def test_a_training_step_reaches_every_weight(name):
    model = build(name, hidden_dropout_prob=0.0).train()
    model(torch.randn(2, 3, 96, 96), labels=torch.randint(0, 5, (2, 96, 96))).loss.backward()
    for parameter_name, parameter in used_parameters(model).items():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    first = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    assert first.grad.any()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "swin"])
def test_gradient_checkpointing_gives_the_same_gradients(name, use_reentrant):
    model = build(name, hidden_dropout_prob=0.0).train()
    pixel_values, labels = torch.randn(1, 3, 64, 64), torch.randint(0, 5, (1, 64, 64))
    expected = {}
    # Stochastic depth of Swin draws from the same seed in both.
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
        torch.manual_seed(0)
        model(pixel_values, labels=labels).loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in used_parameters(model).items()}
        expected = expected or gradients
    for parameter_name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[parameter_name], msg=parameter_name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "googlenet-bn", "resnet", "convnext"])
@torch.no_grad()
def test_half_precisions_answer_much_as_float32(name, dtype):
    model, pixel_values = build(name), torch.randn(1, 3, 64, 70)
    expected = model(pixel_values).logits
    logits = model.to(dtype)(pixel_values).logits
    assert logits.dtype == dtype
    assert relative_error(logits.float(), expected) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_response_normalisation_survives_activations_as_large_as_the_release_has(dtype):
    norm = layers(build("alexnet"))["norm1"]
    activations = (torch.rand(1, 8, 5, 5) * 2000).to(dtype)
    expected = F.local_response_norm(activations.float(), 5, alpha=1e-4, beta=0.75)
    assert norm(activations).dtype == dtype
    assert relative_error(norm(activations).float(), expected) < 0.01


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet"])
@torch.no_grad()
def test_compiles_as_one_graph(name):
    model, pixel_values = build(name, prediction_stride=16), torch.randn(1, 3, 33, 47)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(pixel_values).logits, model(pixel_values).logits) < 1e-5


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet"])
@torch.no_grad()
def test_exports_with_dynamic_height_and_width(name):
    model = build(name, prediction_stride=16)
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    program = torch.export.export(
        model, (torch.randn(2, 3, 130, 180),), dynamic_shapes={"pixel_values": dynamic}, strict=False
    )
    for shape in [(1, 3, 97, 200), (3, 3, 128, 75)]:
        pixel_values = torch.randn(shape)
        assert relative_error(program.module()(pixel_values).logits, model(pixel_values).logits) < 1e-5


def test_copied_folders_load_as_remote_code_without_the_package(tmp_path):
    pixel_values, expected = torch.randn(1, 4, 40, 50), {}
    nets = {
        "alexnet": build("alexnet", num_channels=4),
        "auto": build("resnet", streams=(3, 1), tasks={"semantic": 5, "geometric": 3}),
    }
    for folder, model in nets.items():
        model.save_pretrained(tmp_path / folder)
        loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path / folder)
        expected[str(tmp_path / folder)] = loaded(pixel_values).logits.detach()
    torch.save({"pixel_values": pixel_values, "logits": expected}, tmp_path / "expected.pt")
    script = """
import sys, torch
from transformers import AutoModelForSemanticSegmentation
expected = torch.load(sys.argv[1])
for folder, logits in expected["logits"].items():
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    assert torch.equal(model(expected["pixel_values"]).logits, logits), folder
"""
    run_without_the_package(script, tmp_path / "expected.pt", folder=tmp_path)


# Configuration


@pytest.mark.parametrize(
    "settings",
    [
        *CLASSIFIERS.values(),
        {"backbone": "alexnet", "conv_groups": 1, "use_local_response_norm": False},
        *({"backbone": "auto", "backbone_config": config} for config in BACKBONE_CONFIGS.values()),
        {"upsampling": "interpolate", "palette": [[0, 0, 0], [255, 0, 128]]},
        {"tasks": {"zebra": 4, "ant": 3}, "id2label_by_task": {"ant": {0: "a", 1: "b", 2: "c"}}},
        {"streams": (3, 1), "tasks": {"only": 2}},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values() if isinstance(value, str)) or None,
)
def test_configurations_survive_dicts_and_json(settings, tmp_path):
    config = FCNConfig(**settings)
    assert FCNConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert FCNConfig.from_dict(json.loads(config.to_json_string(use_diff=False))).to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    loaded = FCNConfig.from_pretrained(tmp_path)
    for field in ("tasks", "id2label_by_task", "id2label", "num_channels", "palette", "upsampling", "hidden_size"):
        assert getattr(loaded, field) == getattr(config, field), field
    if config.backbone_config is not None:
        loaded_backbone, backbone = loaded.backbone_config.to_dict(), config.backbone_config.to_dict()
        assert type(loaded.backbone_config) is type(config.backbone_config)
        assert {key for key in backbone if loaded_backbone.get(key) != backbone[key]} <= {"transformers_version"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "vit"}, "backbone='vit'.*vgg.*alexnet.*googlenet.*auto"),
        ({"backbone": "auto"}, "needs a backbone_config"),
        ({"backbone_config": ResNetConfig()}, "backbone_config is for backbone='auto'.*'vgg'"),
        ({"backbone": "googlenet", "hidden_sizes": (64, 128, 256, 512, 512)}, "(?s)hidden_sizes=.*GoogLeNet.*1/8"),
        ({"backbone": "googlenet", "hidden_sizes": (4, 12, 30, 52, 64)}, "(?s)hidden_sizes=.*GoogLeNet"),
        ({"backbone": "googlenet", "hidden_sizes": (8, 24, 60)}, "hidden_sizes=.*five"),
        ({"backbone": "alexnet", "hidden_sizes": (4, 8, 9, 8, 8)}, "multiples of conv_groups=2"),
        ({"backbone": "alexnet", "hidden_size": 0}, "hidden_size=0"),
        ({"upsampling": "nearest"}, "upsampling='nearest'.*interpolate"),
        ({"upsampling": "interpolate", "geometry": "caffe"}, "interpolate.*caffe"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(StrictDataclassError, match=f"(?s){message.removeprefix('(?s)')}"):
        FCNConfig(**settings)


@pytest.mark.parametrize("model_type", ["no-such-net", None])
def test_unknown_backbones_are_named(model_type):
    with pytest.raises((StrictDataclassError, ValueError), match=f"model_type={model_type!r}.*resnet"):
        FCNConfig(backbone="auto", backbone_config={"model_type": model_type, "depths": [1, 1, 1, 1]})


@torch.no_grad()
def test_a_backbone_may_be_given_as_a_dict():
    settings = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 1, 1]}
    settings["layer_type"] = "basic"
    config = FCNConfig(backbone="auto", backbone_config=settings, num_labels=4)
    assert settings["model_type"] == "resnet" and isinstance(config.backbone_config, ResNetConfig)
    model = FCNForSemanticSegmentation(config).eval()
    head = model.heads["semantic"]
    assert [head.score_pool3.in_channels, head.score_pool4.in_channels, head.score_fr.in_channels] == [8, 16, 24]
    assert model(torch.randn(1, 3, 45, 70)).logits.shape == (1, 4, 45, 70)


def test_what_a_backbone_is_like_is_looked_up_once_for_all_of_its_config(monkeypatch):
    passes, forward = [], ResNetBackbone.forward

    def counted(self, *arguments, **settings):
        passes.append(self)
        return forward(self, *arguments, **settings)

    monkeypatch.setattr(ResNetBackbone, "forward", counted)
    monkeypatch.setattr(trunks_fcn, "OBSERVED", {})
    first, again = (build_fresh("resnet", prediction_stride=stride).fcn.trunk for stride in (32, 8))
    assert passes == [first.backbone] * 2
    assert (again.maps, again.answer, again.pad_to) == (first.maps, first.answer, first.pad_to) and again.training
    other = ResNetConfig(**{**BACKBONE_CONFIGS["resnet"].to_dict(), "hidden_sizes": [8, 8, 16, 24]})
    other = build_fresh("resnet", backbone_config=other).fcn.trunk
    grey = build_fresh("resnet", num_channels=1).fcn.trunk
    assert passes[2:] == [other.backbone] * 2 + [grey.backbone] * 2 and other.answer.channels == 24


@torch.no_grad()
def test_users_choose_the_maps(tmp_path):
    backbone_config = ResNetConfig(
        **{**BACKBONE_CONFIGS["resnet"].to_dict(), "out_features": ["stage2", "stage3"], "out_indices": None}
    )
    model = build("resnet", backbone_config=backbone_config)
    states = model(torch.randn(1, 3, 64, 64), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [8, 4, 4]
    head = model.heads["semantic"]
    assert not hasattr(head, "score_pool4") and head.score_pool3.in_channels == 8
    model.save_pretrained(tmp_path)
    loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.backbone_config.out_features == ["stage2", "stage3"]
    assert torch.equal(loaded(torch.ones(1, 3, 64, 64)).logits, model(torch.ones(1, 3, 64, 64)).logits)
    # The configuration stays as its user made it.
    default = ResNetConfig()
    build("resnet", backbone_config=BACKBONE_CONFIGS["resnet"])
    assert BACKBONE_CONFIGS["resnet"].out_features == default.out_features == ["stage4"]


@torch.no_grad()
def test_a_dilated_backbone_needs_no_skips():
    model = build("timm-dilated", upsampling="bilinear")
    assert [name for name, _ in model.heads["semantic"].named_children()] == ["score_fr", "upscore8"]
    assert [state.shape[-1] for state in model(torch.randn(1, 3, 65, 65), output_hidden_states=True).hidden_states] == [
        9, 9, 9, 9
    ]  # fmt: skip


SMALL_VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28}


@pytest.mark.parametrize(
    ("backbone_config", "stride", "message"),
    [
        (Dinov2Config(**SMALL_VIT, patch_size=14), 8, r"dinov2\) have strides \[14, 14, 14\].*FCN-8s.*\[8, 16, 32\]"),
        (Dinov2Config(**SMALL_VIT, patch_size=14), 16, r"strides \[14, 14, 14\].*FCN-16s.*\[16, 32\]"),
        (Dinov2Config(**SMALL_VIT, patch_size=16), 8, r"strides \[16, 16, 16\].*FCN-8s"),
        (TimmBackboneConfig(backbone="test_resnet", output_stride=8), 32, r"strides \[8, 8, 8\].*FCN-32s.*\[32\]"),
        (ViTConfig(**SMALL_VIT), 8, "ViTConfig"),
    ],
    ids=["dinov2-8s", "dinov2-16s", "dinov2-16px", "dilated", "vit"],
)
def test_backbones_without_the_strides_are_refused(backbone_config, stride, message):
    if backbone_config.model_type == "timm_backbone":
        pytest.importorskip("timm")
    config = FCNConfig(backbone="auto", backbone_config=backbone_config, prediction_stride=stride)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        FCNForSemanticSegmentation(config)


@torch.no_grad()
def test_a_backbone_padded_by_the_pictures_size_sees_pictures_of_other_sizes_where_they_are():
    """TensorFlow's "same" padding begins elsewhere in odd sizes: a crop would be seen as a shifted picture."""
    backbone = TimmBackboneConfig(
        backbone="tf_mobilenetv3_small_minimal_100", out_indices=[2, 3, 4], use_pretrained_backbone=False
    )
    torch.manual_seed(0)
    config = FCNConfig(backbone="auto", backbone_config=backbone, upsampling="interpolate", num_labels=2)
    model = FCNForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(model.heads["semantic"].score_pool3.weight)
    assert model.fcn.trunk.pad_to == 32
    picture = torch.randn(1, 3, 256, 256)
    whole, cropped = (
        model.fcn(part, output_hidden_states=True).hidden_states for part in (picture, picture[..., :225, :250])
    )
    # Stride 8 sees about 60 pixels around: these places see the crop alone.
    torch.testing.assert_close(cropped[0][..., :16, :16], whole[0][..., :16, :16], rtol=1e-4, atol=1e-5)
    # Scores of the deeper maps differ with the whole picture; those of stride 8 are made the same for all of them.
    torch.nn.init.zeros_(model.heads["semantic"].score_fr.weight)
    whole_logits, cropped_logits = (model(part).logits for part in (picture, picture[..., :225, :250]))
    assert cropped_logits.shape[-2:] == (225, 250)
    torch.testing.assert_close(cropped_logits[..., :120, :120], whole_logits[..., :120, :120], rtol=1e-4, atol=1e-5)
