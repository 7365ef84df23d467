"""What convolutionalize promises: the classifier's own answers, a map of them on larger pictures, or a refusal."""

import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from fcn_hf.convert.convolutionalize import convolutionalize

CLASSES = 7


def seeded(classifier: nn.Module) -> nn.Module:
    """The classifier in eval mode with weights, and statistics of batch normalisation, that make every layer matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in classifier.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
                nn.init.uniform_(module.running_mean, -0.2, 0.2, generator=generator)
                nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    return classifier.eval()


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def relative_error(classifier: nn.Module, net: nn.Module, pixel_values: torch.Tensor) -> float:
    """Largest difference at the classifier's own size, relative to the largest logit."""
    expected, found = classifier(pixel_values), net(pixel_values)
    assert found.shape == (*expected.shape, 1, 1)
    return float((found[:, :, 0, 0] - expected).abs().max() / expected.abs().max())


class Classifier(nn.Module):
    """Two convolutions without padding, 3x20x20 -> 6x4x4, and a head; strides make windows 4 pixels apart."""

    def __init__(self, *head: nn.Module):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(*head)

    def forward(self, x):
        return self.head(self.features(x))


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def flat_head(*head: nn.Module) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(96, 96), *head, nn.Linear(96, CLASSES)]


def tiny_classifier() -> nn.Module:
    """All that a head may have: batch normalisation of vectors, dropout, activations, softmax over the classes."""
    return seeded(
        Classifier(
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(6 * 4 * 4, 16),
            nn.BatchNorm1d(16),
            nn.PReLU(16),
            nn.Linear(16, CLASSES),
            nn.LogSoftmax(dim=1),
        )
    )


def assert_every_position_is_the_answer_to_its_window(classifier: nn.Module, size: int, stride: int) -> None:
    pixel_values = pictures(2, 3, size + 2 * stride + 1, size + 3 * stride)
    net = convolutionalize(classifier, size)
    with torch.no_grad():
        logits = net(pixel_values)
        assert logits.shape == (2, CLASSES, 3, 4)
        for y in range(3):
            for x in range(4):
                window = pixel_values[:, :, stride * y : stride * y + size, stride * x : stride * x + size]
                torch.testing.assert_close(logits[:, :, y, x], classifier(window), rtol=1e-5, atol=1e-5)


def test_every_position_is_the_answer_to_its_window():
    assert_every_position_is_the_answer_to_its_window(tiny_classifier(), 20, stride=4)


@pytest.mark.parametrize(
    "pooling",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        nn.AdaptiveAvgPool2d((1, 4)),
        nn.AdaptiveAvgPool2d(3),
        nn.AvgPool2d(4),
    ],
    ids=str,
)
def test_pooled_heads_answer_for_every_window(pooling):
    length = pooling(torch.zeros(1, 6, 4, 4)).numel()
    stride = 16 if isinstance(pooling, nn.AvgPool2d) else 4
    classifier = seeded(Classifier(pooling, nn.Flatten(), nn.Linear(length, CLASSES)))
    assert_every_position_is_the_answer_to_its_window(classifier, 20, stride)


class Spelled(Classifier):
    """The head in the words of some forward or other."""

    def __init__(self, spelling, length):
        super().__init__()
        self.spelling = spelling
        self.fc = nn.Linear(length, CLASSES)

    def forward(self, x):
        return self.fc(self.spelling(self.features(x)))


@pytest.mark.parametrize(
    ("spelling", "length"),
    [
        (lambda x: torch.flatten(x, 1), 96),
        (lambda x: x.flatten(1), 96),
        (lambda x: x.view(x.size(0), -1), 96),
        (lambda x: x.view(-1, 6 * 4 * 4), 96),
        (lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]), 96),
        (lambda x: torch.cat([x.flatten(1), x.relu().flatten(1)], dim=1), 192),
        (lambda x: x.mean([2, 3]), 6),
        (lambda x: F.max_pool2d(torch.mean(x, dim=(-2, -1), keepdim=True), 1).flatten(1), 6),
        (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1), 6),
        (lambda x: F.adaptive_max_pool2d(x, (1, 1))[:, :6].reshape(-1, 6), 6),
        (lambda x: torch.cat([x.chunk(2, 1)[1], torch.split(x, [2, 4], dim=1)[0]], dim=1).flatten(1), 80),
        (lambda x: torch.cat([x[:, 2:], x[:, :2, :, :]], dim=1).flatten(1), 96),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2).flatten(1), 96),
    ],
)
def test_flattening_may_be_spelled_in_many_ways(spelling, length):
    assert_every_position_is_the_answer_to_its_window(seeded(Spelled(spelling, length)), 20, stride=4)


def test_a_classifier_may_have_another_shape_than_square():
    classifier = seeded(Classifier(nn.Flatten(), nn.Linear(6 * 2 * 5, CLASSES)))
    net = convolutionalize(classifier, (12, 24))
    assert net.head[1].kernel_size == (2, 5)
    assert relative_error(classifier, net, pictures(2, 3, 12, 24)) < 1e-5
    assert net(pictures(1, 3, 16, 33)).shape == (1, CLASSES, 2, 3)


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)], ids=str)
def test_constants_may_differ_between_channels(shape):
    scale = pictures(*shape)
    classifier = seeded(Classifier(Functional(lambda x: scale * x - 0.1), *flat_head()))
    assert_every_position_is_the_answer_to_its_window(classifier, 20, stride=4)


def test_a_bare_sequential_is_a_classifier_too():
    classifier = seeded(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, CLASSES)))
    net = convolutionalize(classifier, 8)
    assert list(net.state_dict()) == list(classifier.state_dict())
    assert relative_error(classifier, net, pictures(2, 1, 8, 8)) < 1e-5


def test_vgg16_fc6_is_a_7x7_convolution_of_512_to_4096():
    with torch.device("meta"):
        net = convolutionalize(torchvision.models.vgg16(init_weights=False), 224)
    assert repr(net.classifier[0]) == "Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1))"
    assert repr(net.classifier[6]) == "Conv2d(4096, 1000, kernel_size=(1, 1), stride=(1, 1))"
    assert "Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1))" in repr(net)
    assert "Pool2d" not in repr(net).replace("MaxPool2d", "")
    assert net(torch.empty(1, 3, 500, 500, device="meta")).shape == (1, 1000, 9, 9)


def test_alexnet_fc6_is_a_6x6_convolution_of_256_to_4096():
    with torch.device("meta"):
        net = convolutionalize(torchvision.models.alexnet(), 224)
    assert repr(net.classifier[1]) == "Conv2d(256, 4096, kernel_size=(6, 6), stride=(1, 1))"


@pytest.mark.parametrize(
    ("architecture", "settings", "size", "larger"),
    [
        ("alexnet", {}, 224, (1, 3)),
        ("vgg11", {"init_weights": False}, 224, (1, 3)),
        ("resnet18", {}, 224, (1, 4)),
        ("googlenet", {"init_weights": False, "aux_logits": True, "transform_input": True}, 128, (1, 3)),
        ("googlenet", {"init_weights": False, "aux_logits": False}, 97, (1, 3)),
        ("squeezenet1_1", {}, 96, (1, 6)),
        ("mobilenet_v2", {}, 96, (1, 4)),
        ("densenet121", {}, 64, (1, 3)),
        ("convnext_tiny", {}, 64, (1, 3)),
    ],
)
def test_torchvisions_classifiers_keep_their_logits(architecture, settings, size, larger):
    classifier = seeded(getattr(torchvision.models, architecture)(num_classes=CLASSES, **settings))
    net = convolutionalize(classifier, size)
    assert relative_error(classifier, net, pictures(2, 3, size, size)) < 1e-5
    with torch.no_grad():
        height, width = net(pictures(1, 3, size, size + 70)).shape[-2:]
    assert (height, width) == larger


class HalvingConv2d(nn.Conv2d):
    """Pads so that a stride of 2 halves the size of its input, below and on the right where one pixel is too many."""

    def forward(self, x):
        down, right = [max(length - 1 - (length - 1) % 2 + 3 - length, 0) for length in x.shape[-2:]]
        return super().forward(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))


def test_a_padding_computed_from_sizes_is_that_of_the_classifiers_size():
    classifier = seeded(Classifier(HalvingConv2d(6, 6, 3, stride=2), *[nn.Flatten(), nn.Linear(24, CLASSES)]))
    net = convolutionalize(classifier, 20)
    assert list(net.state_dict()) == list(classifier.state_dict())
    padded = copy.deepcopy(classifier)
    padded.head[0] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 6, 3, stride=2))
    padded.head[0][1].load_state_dict(classifier.head[0].state_dict())
    expected = convolutionalize(padded, 20)
    for size in [(20, 20), (29, 36)]:
        pixel_values = pictures(2, 3, *size)
        assert torch.equal(net(pixel_values), expected(pixel_values))
    net(pixel_values).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_layer_that_reads_sizes_and_hides_tensors_is_refused():
    scale = torch.ones(1)

    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * scale / x.shape[-1]

    with pytest.raises(ValueError, match=r"'head.0' \(Scaled\).*reads the size of its input"):
        convolutionalize(Classifier(Scaled(6, 6, 1), *flat_head()).eval(), 20)


@pytest.mark.parametrize("pool", ["AvgPool2dSame", "MaxPool2dSame"])
def test_timms_pools_keep_the_padding_of_the_classifiers_size(pool):
    layers = pytest.importorskip("timm.layers.pool2d_same")
    classifier = seeded(Classifier(getattr(layers, pool)(3, 2), nn.Flatten(), nn.Linear(24, CLASSES)))
    net = convolutionalize(classifier, 20)
    assert relative_error(classifier, net, pictures(2, 3, 20, 20)) < 1e-5
    assert net(pictures(1, 3, 28, 36)).shape == (1, CLASSES, 2, 3)


def test_timms_layers_follow_the_mode():
    layers = pytest.importorskip("timm.layers")
    classifier = seeded(Classifier(layers.BatchNormAct2d(6), *flat_head()))
    net = convolutionalize(classifier, 20).train()
    before = net.head[0].running_mean.clone()
    net(pictures(2, 3, 20, 20))
    assert not torch.equal(net.head[0].running_mean, before)


@pytest.mark.parametrize(
    "architecture",
    [
        *("tf_efficientnet_lite0", "tf_mobilenetv3_small_minimal_100", "cs3darknet_focus_s", "fasternet_t0"),
        *("hgnetv2_b0", "regnetx_002", "starnet_s050", "test_convnext"),
    ],
)
def test_timms_classifiers_keep_their_logits(architecture):
    timm = pytest.importorskip("timm")
    classifier = seeded(timm.create_model(architecture, num_classes=CLASSES))
    net = convolutionalize(classifier, 224)
    assert list(net.state_dict()) == list(classifier.state_dict())
    assert relative_error(classifier, net, pictures(1, 3, 224, 224)) < 1e-4
    with torch.no_grad():
        assert net(pictures(1, 3, 224, 288)).shape == (1, CLASSES, 1, 3)


def test_the_classifier_is_left_as_it_was():
    classifier = tiny_classifier()
    description, state = repr(classifier), copy.deepcopy(classifier.state_dict())
    net = convolutionalize(classifier, 20)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert repr(classifier) == description
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_names_and_values_survive():
    classifier = tiny_classifier()
    net = convolutionalize(classifier, 20)
    state = net.state_dict()
    assert list(state) == list(classifier.state_dict())
    for name, value in classifier.state_dict().items():
        assert torch.equal(state[name].flatten(), value.flatten()), name
    assert [type(module) for module in net.head] == [
        *(nn.Identity, nn.Dropout, nn.Conv2d, nn.BatchNorm2d, nn.PReLU, nn.Conv2d, nn.LogSoftmax)
    ]


def test_mode_and_frozen_parameters_survive():
    classifier = tiny_classifier().train()
    classifier.features.eval().requires_grad_(False)
    classifier.head[2].weight.requires_grad_(False)
    net = convolutionalize(classifier, 20)
    assert {name for name, module in net.named_modules() if not module.training} == {
        name for name, module in classifier.named_modules() if not module.training
    }
    assert [parameter.requires_grad for parameter in net.parameters()] == [
        parameter.requires_grad for parameter in classifier.parameters()
    ]


def test_dropout_and_stochastic_depth_follow_the_mode():
    net = convolutionalize(
        seeded(Classifier(torchvision.ops.StochasticDepth(0.5, "row"), *flat_head(nn.Dropout()))), 20
    )
    pixel_values = pictures(8, 3, 20, 20)
    torch.manual_seed(0)
    assert torch.equal(net(pixel_values), net(pixel_values))
    net.head[3].train()
    assert not torch.equal(net(pixel_values), net(pixel_values))
    net.eval()
    net.head[0].train()
    assert not torch.equal(net(pixel_values), net(pixel_values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_survives(dtype):
    classifier = tiny_classifier().to(dtype)
    net = convolutionalize(classifier, 20)
    assert {value.dtype for value in net.state_dict().values() if value.is_floating_point()} == {dtype}
    assert net(pictures(2, 3, 33, 47).to(dtype)).dtype == dtype
    assert relative_error(classifier, net, pictures(2, 3, 20, 20).to(dtype)) < (
        2e-2 if dtype == torch.bfloat16 else 1e-12
    )


def test_conversion_draws_no_random_numbers():
    classifier = tiny_classifier()
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    convolutionalize(classifier, 20)
    assert torch.equal(torch.randn(3), expected)


def test_a_copy_and_a_state_dict_give_the_same_map():
    net = convolutionalize(tiny_classifier(), 20)
    other = convolutionalize(Classifier(*copy.deepcopy(tiny_classifier()).head), 20).eval()
    pixel_values = pictures(2, 3, 27, 41)
    assert not torch.equal(other(pixel_values), net(pixel_values))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(pixel_values), net(pixel_values))
    twin = copy.deepcopy(net)
    assert torch.equal(twin(pixel_values), net(pixel_values))
    with torch.no_grad():
        twin.head[2].weight.zero_()
    assert not torch.equal(twin(pixel_values), net(pixel_values))


def test_it_learns():
    net = convolutionalize(tiny_classifier(), 20).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    pixel_values, labels = pictures(4, 3, 28, 28), torch.arange(4 * 9).reshape(4, 3, 3) % CLASSES
    losses = []
    torch.manual_seed(0)
    for _ in range(40):
        loss = F.nll_loss(net(pixel_values), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_heads_of_training_alone_are_dropped():
    classifier = torchvision.models.googlenet(num_classes=CLASSES, init_weights=False, aux_logits=True)
    net = convolutionalize(classifier, 64)
    assert classifier.training and net.training
    assert not hasattr(net, "aux1") and not hasattr(net, "aux2")
    assert set(classifier.state_dict()) - set(net.state_dict()) == {
        name for name in classifier.state_dict() if name.startswith("aux")
    }
    assert net(pictures(2, 3, 96, 64)).shape == (2, CLASSES, 2, 1)


@pytest.mark.parametrize("shape", [(1, 3, 19, 40), (1, 3, 40, 19), (3, 20, 20)])
def test_pictures_smaller_than_the_classifiers_are_refused(shape):
    net = convolutionalize(tiny_classifier(), 20)
    with pytest.raises(ValueError, match=r"pixel_values have shape .* at least 20x20"):
        net(torch.zeros(shape))


@pytest.mark.parametrize("input_size", [0, -3, True, 20.0, None, "20", (20,), (20, 0), (20, 20, 20)])
def test_an_input_size_that_is_none_is_refused(input_size):
    with pytest.raises(ValueError, match=r"input_size is .* expected"):
        convolutionalize(tiny_classifier(), input_size)


def test_a_classifier_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"Classifier doesn't take pictures of 3x24x24: .* input_size"):
        convolutionalize(tiny_classifier(), 24)


def test_adaptive_pooling_with_windows_that_differ_is_refused():
    with torch.device("meta"):
        classifier = torchvision.models.vgg11(init_weights=False)
    with pytest.raises(ValueError, match=r"'avgpool' \(AdaptiveAvgPool2d\).*\(320, 320\).*10x10 .* 7x7"):
        convolutionalize(classifier, 320)


def test_adaptive_pooling_that_repeats_positions_is_refused():
    classifier = Classifier(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES))
    with pytest.raises(ValueError, match=r"'head.0' \(AdaptiveAvgPool2d\).*1x1 .* 2x2"):
        convolutionalize(classifier, 8)


class Attention(nn.Module):
    """Squeeze-and-excitation: one factor a channel, from the whole map."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return x * self.squeeze(x).sigmoid()


class Position(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, 6, 4, 4))

    def forward(self, x):
        return x + self.embedding


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ([nn.GroupNorm(2, 6), *flat_head()], r"'head.0' \(GroupNorm\).* whole picture"),
        ([nn.LayerNorm([6, 4, 4]), *flat_head()], r"'head.0' \(LayerNorm\)"),
        ([Attention(), *flat_head()], r"'mul' in the forward of 'head.0' \(Attention\).*'head.0.squeeze'"),
        (
            [Functional(lambda x: x * F.adaptive_avg_pool2d(x, 1)), *flat_head()],
            r"'mul' .*'adaptive_avg_pool2d' in the forward of 'head.0' \(Functional\) reads a whole map",
        ),
        ([Functional(lambda x: x[:, None]), nn.Flatten(), nn.Linear(96, 7)], r"'getitem' in the forward of 'head.0'"),
        ([Position(), *flat_head()], r"'add' in the forward of 'head.0' \(Position\).*\(1, 6, 4, 4\).*4x4"),
        ([nn.Linear(4, 4), *flat_head()], r"'head.0' \(Linear\).*BCHW"),
        ([nn.Upsample(size=4), *flat_head()], r"'head.0' \(Upsample\)"),
        ([Functional(lambda x: x.transpose(2, 3)), *flat_head()], r"'transpose' in the forward of 'head.0'"),
        ([Functional(lambda x: F.avg_pool2d(x, x.shape[-1])), nn.Flatten(), nn.Linear(6, 7)], r"'avg_pool2d'.*sizes"),
        ([Functional(lambda x: x.view(-1, 12, 8)), nn.Flatten(), nn.Linear(96, 7)], r"'view'.*\(2, 12, 8\)"),
        ([Functional(lambda x: x.mean(3)), nn.Flatten(), nn.Linear(24, 7)], r"'mean'.*height and width"),
        ([Functional(lambda x: x.mean([1, 2])), nn.Linear(4, 7)], r"'mean'.*height and width"),
        (
            [Functional(lambda x: x.mean([2, 3]).view(-1, 6, 1).softmax(-2).squeeze(-1)), nn.Linear(6, 7)],
            r"'softmax' .*dim=-2",
        ),
        ([Functional(lambda x: (torch._assert(x.shape[2] == 4, ""), x)[1]), *flat_head()], r"'_assert'.*size"),
        ([Functional(lambda x: torch.cat([x, torch.ones(2, 6, 4, 4)], 1)), nn.Flatten(), nn.Linear(192, 7)], r"'cat'"),
        ([Functional(lambda x: torch.cat([x, x], 2)), nn.Flatten(), nn.Linear(192, 7)], r"'cat'.*dim=2"),
        ([Functional(lambda x: x.chunk(2, 2)[0]), nn.Flatten(), nn.Linear(48, 7)], r"'chunk'.*dim=2"),
        ([nn.Flatten(), Functional(lambda x: x.chunk(2, 1)[0]), nn.Linear(48, 7)], r"'chunk'.*flattened map"),
        ([Functional(lambda x: x[:, :, 1:]), nn.Flatten(), nn.Linear(72, 7)], r"'getitem' in the forward of 'head.0'"),
        (flat_head(nn.LayerNorm(96)), r"'head.2' \(LayerNorm\)"),
        (flat_head(nn.Softmax(dim=-1)), r"'head.2' \(Softmax\).*dim=-1"),
        (flat_head(nn.Unflatten(1, (6, 4, 4)), nn.Flatten()), r"'head.2' \(Unflatten\)"),
        (flat_head(Functional(lambda x: x.sum(1, keepdim=True) * x)), r"'sum' in the forward of 'head.2'"),
        (flat_head(Functional(lambda x: x.view(-1, 6, 4, 4).flatten(1))), r"'view' in the forward of 'head.2'"),
        (flat_head(Functional(lambda x: (x + torch.ones(1, 1, 1)).flatten(0, 1))), r"'add' .*another dimension"),
        (flat_head(Functional(lambda x: x + torch.ones(96))), r"'add' in the forward of 'head.2'.*\(96,\)"),
        (flat_head(nn.utils.spectral_norm(nn.Linear(96, 96))), r"'head.2' \(Linear\).*hooks"),
        (flat_head(nn.utils.parametrizations.weight_norm(nn.Linear(96, 96))), r"'head.2' \(ParametrizedLinear\)"),
        ([nn.Flatten(), nn.BatchNorm1d(96), nn.Linear(96, 7)], r"'head.1' \(BatchNorm1d\).*flattened map"),
        ([nn.Flatten(), nn.Softmax(dim=1), nn.Linear(96, 7)], r"'head.1' \(Softmax\).*more than one position"),
        ([nn.Conv2d(6, 7, 1)], r"shape \(batch, classes\).*\(2, 7, 4, 4\)"),
        ([nn.Flatten(), nn.Linear(96, 1), nn.Flatten(0)], r"'head.2' \(Flatten\).*\(2,\)"),
    ],
)
def test_what_it_cannot_convert_it_refuses_by_name(head, message):
    with pytest.raises(ValueError, match=message):
        convolutionalize(Classifier(*head).eval(), 20)


def test_a_module_in_two_places_is_refused_where_it_would_need_two_forms():
    class Twice(Classifier):
        def forward(self, x):
            x = self.head[1](self.head[0](self.features(x)))
            return self.head[1](x)

    with pytest.raises(ValueError, match=r"'head.1' \(Linear\).*called twice"):
        convolutionalize(Twice(nn.Flatten(), nn.Linear(96, 96)), 20)


@pytest.mark.parametrize(
    "function", [lambda x: x if x.sum() > 0 else -x, lambda x: sum(x[i] for i in range(x.shape[0]))], ids=["if", "loop"]
)
def test_a_forward_that_cannot_be_traced_is_refused_by_name(function):
    classifier = Classifier(Functional(function), *flat_head())
    with pytest.raises(ValueError, match=r"can't trace the forward of 'head.0' \(Functional\)"):
        convolutionalize(classifier, 20)


def test_a_forward_that_takes_more_than_pictures_is_refused():
    class Two(Classifier):
        def forward(self, x, mask):
            return self.head(self.features(x) * mask)

    with pytest.raises(ValueError, match=r"Two.forward takes \['x', 'mask'\]"):
        convolutionalize(Two(*flat_head()), 20)


@pytest.mark.parametrize(
    ("architecture", "module"),
    [
        ("efficientnet_b0", r"'features.1.0.block.1' \(SqueezeExcitation\)"),
        ("mobilenet_v3_small", r"'features.1.block.1' \(SqueezeExcitation\)"),
        ("vit_b_16", r"VisionTransformer"),
        ("swin_t", r"'features.1.0.attn' \(ShiftedWindowAttention\)"),
    ],
)
def test_nets_that_look_at_the_whole_picture_are_refused(architecture, module):
    with torch.device("meta"):
        classifier = getattr(torchvision.models, architecture)()
    with pytest.raises(ValueError, match=rf"can't convert .* in the forward of {module}"):
        convolutionalize(classifier, 224)


@pytest.mark.parametrize("architecture", ["tf_mobilenetv3_small_075", "tf_efficientnet_b0"])
def test_timms_squeeze_and_excitation_is_refused(architecture):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        classifier = timm.create_model(architecture)
    with pytest.raises(ValueError, match=r"can't convert .* in the forward of 'blocks.0.0.se' \(SqueezeExcite\)"):
        convolutionalize(classifier, 224)


def test_the_package_offers_it_and_loads_nothing_heavy_for_it():
    heavy = {"datasets", "evaluate", "gradio", "timm", "typer"}
    program = (
        f"import sys, fcn_hf; assert not {heavy!r} & sys.modules.keys(); print(fcn_hf.convolutionalize.__module__)"
    )
    completed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert completed.stdout.strip() == "fcn_hf.convert.convolutionalize"
