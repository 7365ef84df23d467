"""What the model promises: any size, exact geometry, and everything transformers' users expect of a model."""

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNModel
from fcn_hf.upsampling_fcn import FCNUpsampling, bilinear_kernel
from tests.helpers import layers, published_state, run_without_the_package, save_tiny

STRIDES = (32, 16, 8)
GEOMETRIES = ("same", "caffe")


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 47), (64, 96), (101, 30)])
def test_logits_have_the_size_of_the_input(tiny, stride, geometry, size):
    model = tiny(prediction_stride=stride, geometry=geometry)
    assert model(torch.randn(2, 3, *size)).logits.shape == (2, 5, *size)


@pytest.mark.parametrize(
    ("stride", "offsets", "final"), [(32, [], 19), (16, [5], 27), (8, [5, 9], 31)], ids=["32s", "16s", "8s"]
)
def test_crop_offsets_are_those_of_the_release(tiny, stride, offsets, final):
    head = tiny(prediction_stride=stride, geometry="caffe").heads["semantic"]
    assert [getattr(head, name) for name in ("offset4", "offset3") if hasattr(head, name)] == offsets
    assert head.crop_offset == final


def release_forward(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """The release's net.py (voc-fcn8s and its coarser sisters) in plain PyTorch, with its tabulated crops."""
    weights = published_state(model)

    def convolve(x, name, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def upsample(x, name, stride):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], stride=stride, groups=x.shape[1])

    def crop(x, offset, like):
        return x[..., offset : offset + like.shape[2], offset : offset + like.shape[3]]

    x, pools = pixel_values, {}
    for stage in range(1, 6):
        x = F.relu(convolve(x, f"conv{stage}_1", 100 if stage == 1 else 1))
        x = pools[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = convolve(F.relu(convolve(F.relu(convolve(x, "fc6")), "fc7")), "score_fr")
    stride = model.config.prediction_stride
    if stride <= 16:
        x = upsample(x, "upscore2", 2)
        x = x + crop(convolve(pools[4] * model.config.skip_scales[0], "score_pool4"), 5, x)
    if stride == 8:
        x = upsample(x, "upscore_pool4", 2)
        x = x + crop(convolve(pools[3] * model.config.skip_scales[1], "score_pool3"), 9, x)
    return crop(upsample(x, f"upscore{stride}", stride), {32: 19, 16: 27, 8: 31}[stride], pixel_values)


@pytest.mark.parametrize("stride", STRIDES)
def test_caffe_geometry_is_the_release_layer_for_layer(tiny, stride):
    model = tiny(prediction_stride=stride, geometry="caffe", skip_scales=(0.5, 0.25))
    pixel_values = torch.randn(1, 3, 75, 118)
    torch.testing.assert_close(model(pixel_values).logits, release_forward(model, pixel_values))


def test_fc6_is_a_7x7_convolution_of_512_to_4096():
    with torch.device("meta"):
        model = FCNForSemanticSegmentation(FCNConfig(num_labels=21))
    assert layers(model)["fc6"].weight.shape == (4096, 512, 7, 7)
    assert layers(model)["fc7"].weight.shape == (4096, 4096, 1, 1)
    # 134M parameters: the paper's number for FCN-VGG16 (CVPR, table 1).
    assert 134e6 < model.num_parameters() < 135e6


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_a_grouped_transposed_convolution(factor):
    upsampling = FCNUpsampling(num_labels=3, factor=factor, learned=True)
    nn.init.normal_(upsampling.weight)
    scores = torch.randn(2, 3, 4, 5)
    expected = F.conv_transpose2d(scores, upsampling.weight, stride=factor, groups=3)
    torch.testing.assert_close(upsampling(scores), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factor", [2, 8])
def test_bilinear_kernel_interpolates_linearly(factor):
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    fine = F.conv_transpose2d(ramp, bilinear_kernel(factor)[None, None], stride=factor)
    inside = fine[0, 0, 4 * factor, 3 * factor : 9 * factor]
    torch.testing.assert_close(inside.diff(), torch.full_like(inside[1:], 1 / factor))


@pytest.mark.parametrize(
    ("upsampling", "trained"),
    [
        ("learned", {"upscore2", "upscore_pool4", "upscore8"}),
        ("inner", {"upscore2", "upscore_pool4"}),
        ("bilinear", set()),
    ],
)
def test_which_upsampling_learns_survives_a_round_trip(tiny, tmp_path, upsampling, trained):
    tiny(upsampling=upsampling).save_pretrained(tmp_path)
    model = FCNForSemanticSegmentation.from_pretrained(tmp_path)
    assert {name.split(".")[2] for name, _ in model.named_parameters() if ".upscore" in name} == trained
    assert {name.split(".")[2] for name in model.state_dict() if ".upscore" in name} == {
        "upscore2", "upscore_pool4", "upscore8"
    }  # fmt: skip


def test_a_finer_net_starts_with_the_answers_of_the_coarser_one(tiny, tmp_path):
    coarse = tiny(prediction_stride=32)
    coarse.save_pretrained(tmp_path)
    fine = FCNForSemanticSegmentation.from_pretrained(tmp_path, prediction_stride=8).eval()
    head = fine.heads["semantic"]
    assert not head.score_pool4.weight.any() and not head.score_pool3.bias.any()
    assert torch.equal(layers(fine)["conv3_1"].weight, layers(coarse)["conv3_1"].weight)
    # Far from the border of a plain picture every score map is flat, so all bilinear upsampling says the same.
    coarse.heads["semantic"].upscore32.weight.data.copy_(bilinear_kernel(32).expand(5, 1, 64, 64))
    centre = (..., slice(300, 340), slice(300, 340))
    pixel_values = torch.full((1, 3, 640, 640), 0.7)
    expected = coarse(pixel_values).logits[centre]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(fine(pixel_values).logits[centre], expected)


def test_a_shift_by_the_stride_shifts_the_answer(tiny):
    model = tiny(prediction_stride=8)
    picture = F.pad(torch.randn(1, 3, 64, 64), (320, 320, 320, 320))
    shifted = torch.roll(picture, 32, dims=-1)
    inner = slice(288, 416)
    torch.testing.assert_close(
        model(shifted).logits[..., inner, inner], torch.roll(model(picture).logits, 32, dims=-1)[..., inner, inner]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float_dtypes_take_float32_pictures(tiny, dtype):
    model = tiny(use_batch_norm=True)
    pixel_values = torch.randn(1, 3, 40, 56)
    expected = model(pixel_values).logits
    logits = copy.deepcopy(model).to(dtype)(pixel_values).logits
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_may_be_integers_of_any_width(tiny, dtype):
    model, pixel_values = tiny(), torch.randn(1, 3, 9, 9)
    labels = torch.randint(0, 5, (1, 9, 9))
    labels[0, 0, 0] = 255
    assert model(pixel_values, labels=labels.to(dtype)).loss == model(pixel_values, labels=labels).loss
    with pytest.raises(ValueError, match="dtype torch.float32; expected integers"):
        model(pixel_values, labels=labels.float())


def test_one_class_is_nothing_to_learn(tiny):
    model, pixel_values = tiny(num_labels=1), torch.randn(1, 3, 9, 9)
    assert model(pixel_values).logits.shape[1] == 1
    with pytest.raises(ValueError, match="num_labels is 1, whose only class is always right"):
        model(pixel_values, labels=torch.zeros(1, 9, 9, dtype=torch.int64))


def test_loss_is_the_mean_over_labelled_pixels(tiny):
    model = tiny()
    pixel_values, labels = torch.randn(2, 3, 20, 30), torch.randint(0, 5, (2, 20, 30))
    labels[0, :, 10:] = 255
    outputs = model(pixel_values, labels=labels)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels, ignore_index=255))
    assert model(pixel_values, labels=torch.full_like(labels, 255)).loss == 0


def test_wrong_inputs_are_named(tiny):
    model = tiny()
    with pytest.raises(ValueError, match=r"\(1, 4, 8, 8\).*expected \(batch, 3"):
        model(torch.randn(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"labels have shape \(1, 4, 4\)"):
        model(torch.randn(1, 3, 8, 8), labels=torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"labels hold \[37\], outside 0..4"):
        model(torch.randn(1, 3, 8, 8), labels=torch.full((1, 8, 8), 37))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_stride": 4}, "prediction_stride=4.*32, 16, 8"),
        ({"geometry": "valid"}, "geometry='valid'"),
        ({"hidden_sizes": (8, 8, 8)}, "hidden_sizes=.*five"),
        ({"depths": (1, 1, 1, 1, 0)}, "depths=.*five"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0"),
        ({"skip_scales": (1.0,)}, "skip_scales=.*two"),
        ({"num_channels": 0}, "num_channels=0"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_configuration_names_the_wrong_value(settings, message):
    from huggingface_hub.errors import StrictDataclassError

    with pytest.raises(StrictDataclassError, match=f"(?s){message}"):
        FCNConfig(**settings)


def test_hidden_states_are_the_pools_and_fc7(tiny):
    hidden_states = tiny()(torch.randn(1, 3, 64, 96), output_hidden_states=True).hidden_states
    assert [tuple(state.shape[-2:]) for state in hidden_states] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3), (2, 3)]
    assert tiny()(torch.randn(1, 3, 64, 96)).hidden_states is None


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(tiny, use_reentrant):
    model = tiny(hidden_dropout_prob=0.0).train()
    pixel_values, labels = torch.randn(1, 3, 40, 40), torch.randint(0, 5, (1, 40, 40))
    model(pixel_values, labels=labels).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    model(pixel_values, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_compiles_as_one_graph(tiny):
    model, pixel_values = tiny(), torch.randn(1, 3, 33, 47)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_exports_with_dynamic_batch_height_and_width(tiny, geometry):
    model = tiny(geometry=geometry)
    dynamic = {name: torch.export.Dim.DYNAMIC for name in (0, 2, 3)}
    # From 33 px on: the exporter takes a coarse map of one position, as 32 px have, for a special case of its own.
    program = torch.export.export(
        model, (torch.randn(2, 3, 65, 90),), dynamic_shapes={"pixel_values": dynamic}, strict=False
    )
    for shape in [(1, 3, 33, 200), (3, 3, 128, 64)]:
        pixel_values = torch.randn(shape)
        torch.testing.assert_close(program.module()(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize("upsampling", ["learned", "bilinear"])
def test_save_and_load_are_bit_equal_and_safetensors_only(tiny, tmp_path, upsampling):
    model, pixel_values = tiny(use_batch_norm=True, upsampling=upsampling), torch.randn(1, 3, 50, 41)
    model.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.name.startswith(("model.", "pytorch"))] == [
        ".safetensors"
    ]
    loaded = FCNForSemanticSegmentation.from_pretrained(tmp_path)
    assert torch.equal(loaded(pixel_values).logits, model(pixel_values).logits)


@torch.no_grad()
def test_auto_model_gives_the_features_of_a_folder(tiny, tmp_path):
    model, pixel_values = tiny(), torch.randn(1, 3, 64, 96)
    model.save_pretrained(tmp_path)
    features = AutoModel.from_pretrained(tmp_path)
    assert isinstance(features, FCNModel) and model.base_model is model.fcn
    outputs, expected = features(pixel_values), model(pixel_values, output_hidden_states=True).hidden_states
    assert torch.equal(outputs.last_hidden_state, expected[-1]) and outputs.hidden_states is None
    every = features(pixel_values, output_hidden_states=True).hidden_states
    assert all(torch.equal(*pair) for pair in zip(every, expected, strict=True))


def test_freezing_the_trunk_is_one_line(tiny):
    model = tiny().train()
    model.base_model.requires_grad_(False)
    model(torch.randn(1, 3, 40, 40), labels=torch.randint(0, 5, (1, 40, 40))).loss.backward()
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"heads"}


@torch.no_grad()
@pytest.mark.parametrize("stride", STRIDES)
def test_coarse_scores_are_what_the_logits_begin_with(tiny, stride):
    model, pixel_values = tiny(prediction_stride=stride), torch.randn(1, 3, 64, 96)
    outputs = model(pixel_values, output_hidden_states=True)
    expected = model.heads["semantic"].score_fr(outputs.hidden_states[-1])
    assert expected.shape == (1, 5, 2, 3) and torch.equal(outputs.coarse_scores, expected)


def test_the_printed_net_reads_as_the_papers():
    with torch.device("meta"):
        printed = repr(FCNForSemanticSegmentation(FCNConfig()))
    names = re.findall(r"\((\w+)\): (?:Conv2d|ReLU|FCNPooling|Dropout|FCNScorer|FCNUpsampling)\(", printed)
    stages = [
        name
        for stage, depth in enumerate((2, 2, 3, 3, 3), 1)
        for layer in range(1, depth + 1)
        for name in (f"conv{stage}_{layer}", f"relu{stage}_{layer}", *([f"pool{stage}"] if layer == depth else []))
    ]
    classifier = ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7"]
    head = ["score_fr", "score_pool4", "upscore2", "score_pool3", "upscore_pool4", "upscore8"]
    assert names == stages + classifier + head
    assert "(fc6): Conv2d(512, 4096, kernel_size=(7, 7)" in printed
    assert "(upscore8): FCNUpsampling(2, factor=8, kernel_size=16, learned=True)" in printed


@pytest.fixture
def model_folder(tmp_path):
    return save_tiny(tmp_path / "fcn-8s", id2label={0: "sky", 1: "road", 2: "car", 3: "tree", 4: "sign"})


def test_pipeline_segments_a_picture(model_folder):
    from PIL import Image
    from transformers import pipeline

    segments = pipeline("image-segmentation", model=str(model_folder))(Image.effect_noise((61, 45), 80).convert("RGB"))
    assert {segment["label"] for segment in segments} <= {"sky", "road", "car", "tree", "sign"}
    assert all(segment["mask"].size == (61, 45) for segment in segments)


def test_a_copied_folder_loads_as_remote_code_without_the_package(model_folder, tmp_path):
    copied = shutil.copytree(model_folder, tmp_path / "elsewhere" / "fcn-8s")
    pixel_values = torch.randn(1, 3, 40, 50)
    expected = FCNForSemanticSegmentation.from_pretrained(model_folder)(pixel_values).logits
    torch.save({"pixel_values": pixel_values, "logits": expected}, tmp_path / "expected.pt")
    script = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline
folder, expected = sys.argv[1], torch.load(sys.argv[2])
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
assert torch.equal(model(expected["pixel_values"]).logits, expected["logits"])
features = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(features).__name__ == "FCNModel" and features(expected["pixel_values"]).last_hidden_state.shape[1] == 8
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
picture = Image.effect_noise((50, 40), 80)
inputs = processor(picture, return_tensors="pt")
mask, = processor.post_process_semantic_segmentation(model(**inputs), [(40, 50)])
assert mask.shape == (40, 50) and mask.dtype == torch.int64
segments = pipeline("image-segmentation", model=folder, trust_remote_code=True)(picture.convert("RGB"))
assert segments and all(segment["mask"].size == (50, 40) for segment in segments)
"""
    run_without_the_package(script, copied, tmp_path / "expected.pt", folder=tmp_path)
    assert not list(Path(copied).glob("**/*.bin"))
