from copy import deepcopy

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, TimmBackboneConfig

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, optimize, packed_convolution
from fcn_hf.constant_border import BorderedStages
from fcn_hf.errors import FCNError
from fcn_hf.optimization import fold_batch_norm
from fcn_hf.packed_convolution import PackedConvolution
from fcn_hf.prediction import load_model

NARROW = {"hidden_sizes": [4, 6, 8, 8, 8], "hidden_size": 8}
RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1], layer_type="bottleneck")
TIMM = TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=[2, 3, 4], use_pretrained_backbone=False)
CONFIGS = {
    "vgg": {**NARROW, "use_batch_norm": True},
    "plain vgg": NARROW,
    "streams": {**NARROW, "use_batch_norm": True, "streams": (3, 1)},
    "googlenet": {"backbone": "googlenet", "hidden_sizes": [8, 24, 60, 104, 128], "use_batch_norm": True},
    "resnet": {"backbone": "auto", "backbone_config": RESNET},
    "timm": {"backbone": "auto", "backbone_config": TIMM},
}


def trained_net(settings: dict) -> FCNForSemanticSegmentation:
    """A net whose normalisations and skips matter, as after training."""
    torch.manual_seed(0)
    net = FCNForSemanticSegmentation(FCNConfig(num_labels=5, **settings)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    for name, parameter in net.heads.named_parameters():
        if "score" in name and "up" not in name:
            nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_answers_stay_the_same_without_batch_normalisation(name):
    net = trained_net(CONFIGS[name])
    channels = net.config.num_channels
    pictures = [torch.randn(2, channels, 75, 98), torch.randn(1, channels, 1, 1)]
    before = [net(picture).logits for picture in pictures]
    optimized = optimize(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimized.modules())
    for picture, logits in zip(pictures, before, strict=True):
        torch.testing.assert_close(optimized(picture).logits, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))


class ReadTwice(nn.Module):
    """A convolution whose answer goes to the normalisation and past it, whole or in parts."""

    config = FCNConfig()
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, in_parts):
        super().__init__()
        self.in_parts = in_parts
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.alone, self.alone_bn = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, picture):
        answer = self.conv(picture)
        past = torch.cat(answer.split(1, dim=1), dim=1) if self.in_parts else answer
        return self.alone_bn(self.alone(past + self.bn(answer)))


@pytest.mark.parametrize("in_parts", [False, True])
@torch.no_grad()
def test_a_convolution_that_others_read_too_is_left_as_it_is(in_parts):
    net, picture = ReadTwice(in_parts).eval(), torch.randn(1, 3, 5, 5)
    net.bn.running_mean.fill_(0.5)
    net.alone_bn.running_mean.fill_(0.5)
    before = net(picture)
    fold_batch_norm(net)
    assert isinstance(net.bn, nn.BatchNorm2d) and not isinstance(net.alone_bn, nn.BatchNorm2d)
    torch.testing.assert_close(net(picture), before)


class Skip(nn.Module):
    """What a ReLU reads goes past it too, as in the residual units of DPT and Xception."""

    config = FCNConfig()
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, picture):
        residual = self.conv(picture)
        return residual + self.relu(residual)


@torch.no_grad()
def test_what_goes_past_an_activation_stays_as_it_is():
    net, picture = Skip().eval(), torch.randn(1, 3, 5, 5)
    before = net(picture)
    torch.testing.assert_close(optimize(net)(picture), before)


class OneSize(ReadTwice):
    """It takes pictures of 5x5 alone, and normalises by each batch."""

    def __init__(self):
        super().__init__(in_parts=False)
        self.alone_bn = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, picture):
        if picture.shape[-2:] != (5, 5):
            raise AssertionError("Input size (64) doesn't match model (5).")
        return super().forward(picture)


@pytest.mark.parametrize("size", [64, 5])
@torch.no_grad()
def test_nets_of_one_size_and_normalisation_by_batches_stay_as_they_are(size, monkeypatch):
    monkeypatch.setattr("fcn_hf.optimization.PROBE", size)
    net, picture = OneSize().eval(), torch.randn(1, 3, 5, 5)
    before = net(picture)
    fold_batch_norm(net)
    assert isinstance(net.alone_bn, nn.BatchNorm2d)
    torch.testing.assert_close(net(picture), before)


CAFFE = {
    "vgg16": {**NARROW, "geometry": "caffe"},
    "batch normalised": {**NARROW, "geometry": "caffe", "use_batch_norm": True},
    "streams": {**NARROW, "geometry": "caffe", "streams": (3, 1)},
    # Its first stages reach so far that the border is wide enough for four of the five alone.
    "deep": {**NARROW, "geometry": "caffe", "depths": [8, 8, 1, 1, 1]},
}


def maps_of(outputs):
    return [*outputs.hidden_states, outputs.logits]


@pytest.mark.parametrize("name", CAFFE)
@torch.no_grad()
def test_all_maps_stay_the_same_where_the_constant_border_is_skipped(name):
    net = trained_net(CAFFE[name])
    for parameter_name, parameter in net.named_parameters():
        if parameter_name.endswith("bias"):  # the border's values are made of them
            nn.init.normal_(parameter, std=0.3)
    channels = net.config.num_channels
    pictures = [torch.randn(2, channels, 37, 50), torch.randn(1, channels, 1, 1), torch.randn(1, channels, 96, 33)]
    before = [net(picture, output_hidden_states=True) for picture in pictures]
    optimized = optimize(net)
    assert [m.count for m in optimized.modules() if isinstance(m, BorderedStages)] == [4] * (1 + (name == "streams"))
    for picture, outputs in zip(pictures, before, strict=True):
        after = optimized(picture, output_hidden_states=True)
        for found, expected in zip(maps_of(after), maps_of(outputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_is_kept_for_the_next_picture_is_bounded_and_in_the_way_of_nothing(monkeypatch):
    monkeypatch.setattr(BorderedStages, "KEPT", 2)
    net, picture = trained_net(CAFFE["vgg16"]), torch.randn(1, 3, 20, 30, requires_grad=True)
    (expected,) = torch.autograd.grad(net(picture).logits.square().sum(), picture)
    optimized = optimize(net)
    with torch.no_grad():
        for height in range(1, 5):
            optimized(torch.randn(1, 3, height, 1))
        unknown = picture.detach().clone()
        unknown[..., 0, 0] = torch.nan
        # Tiles find their margins by what becomes of no number.
        assert optimized(unknown).logits.isnan().any()
        torch.testing.assert_close(deepcopy(optimized).double()(picture).logits.float(), optimized(picture).logits)
    (stages,) = (module for module in optimized.modules() if isinstance(module, BorderedStages))
    assert len(stages.kept) == 2
    (gradient,) = torch.autograd.grad(optimized(picture).logits.square().sum(), picture)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("settings", [CONFIGS["vgg"], CAFFE["vgg16"]])
@torch.no_grad()
def test_bfloat16_keeps_the_class_of_nearly_all_pixels(settings):
    net, picture = trained_net(settings), torch.randn(1, 3, 64, 96)
    classes = net(picture).logits.argmax(1)
    logits = optimize(net, torch.bfloat16)(picture).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.argmax(1) == classes).float().mean() > 0.95


def test_whole_numbers_are_no_dtype_of_a_net():
    with pytest.raises(FCNError, match="dtype is torch.int8; expected a floating-point one"):
        optimize(trained_net(NARROW), torch.int8)


def test_loaded_models_are_optimized_and_not_for_saving(tmp_path):
    model, _ = load_model("space/models/street/fcn-8s")
    with pytest.raises(FCNError, match="before optimize"):
        model.save_pretrained(tmp_path)
    with pytest.raises(FCNError, match="load weights before optimize"):
        model.load_state_dict(model.state_dict())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.ndim == 4)


def test_without_its_operators_a_packed_convolution_is_an_ordinary_one(monkeypatch):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    packed, picture = PackedConvolution(convolution), torch.randn(1, 3, 9, 7)
    monkeypatch.setattr(packed_convolution, "OPERATORS", ("_of_another_version",))
    with torch.no_grad():
        torch.testing.assert_close(packed(picture), convolution(picture).relu())
    assert not packed.copies
