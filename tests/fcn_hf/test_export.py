"""Graphs for other programs: the same answers, from one pixel on."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TimmBackboneConfig

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor, export, predict
from fcn_hf.datasets import load_splits
from fcn_hf.errors import FCNError
from fcn_hf.evaluation import evaluate_split
from fcn_hf.export import OnnxModel, exported_program
from fcn_hf.onnx_card import onnx_card
from fcn_hf.prediction import load_model
from tests.helpers import build_tiny, run, save_dataset, save_tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHAPES = [(1, 3, 1, 1), (2, 3, 32, 33), (3, 3, 61, 1)]


def relative_difference(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"), use_batch_norm=True)


@pytest.fixture
def no_exporter(monkeypatch):
    """What is refused before anything is exported."""
    monkeypatch.setattr(export, "exported_program", None)


@pytest.mark.parametrize("geometry", ["same", "caffe"])
@torch.no_grad()
def test_torch_s_graph_holds_from_one_pixel_on(tiny, geometry):
    model = tiny(geometry=geometry)
    graph = exported_program(model).module()
    for shape in SHAPES:
        pixel_values = torch.randn(shape)
        torch.testing.assert_close(graph(pixel_values).logits, model(pixel_values).logits)


@torch.no_grad()
def test_a_file_gives_the_model_s_logits_and_label_map_and_its_card_s_code_runs(model_folder, tmp_path, monkeypatch):
    result = run("export", model_folder, tmp_path / "model.onnx", "--label-map")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.md"]
    graph = onnx.load(tmp_path / "model.onnx").graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {
        "pixel_values": ["batch_size", 3, "height", "width"],
        "logits": ["batch_size", 5, "height", "width"],
        "label_map": ["batch_size", "height", "width"],
    }
    model, processor = load_model(str(model_folder))
    exported = OnnxModel(tmp_path / "model.onnx", model.config)
    for shape in SHAPES:
        pixel_values = torch.randn(shape)
        outputs = exported(pixel_values)
        assert relative_difference(outputs.logits, model(pixel_values).logits) < 1e-5
        assert outputs.label_map.dtype == torch.uint8 and torch.equal(outputs.label_map, outputs.logits.argmax(dim=1))

    Image.effect_noise((41, 29), 90).convert("RGB").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec((tmp_path / "model.onnx.md").read_text().split("```")[1].removeprefix("python\n"), names)
    assert (names["mask"] == predict(model, processor, "picture.jpg")).mean() > 0.99


@torch.no_grad()
def test_half_precision_takes_and_gives_float32_and_every_task_has_its_logits(tmp_path):
    model = save_tiny(tmp_path / "model", tasks={"semantic": 5, "geometric": 3})
    result = run("export", model, tmp_path / "model.onnx", "--dtype", "float16")
    assert result.exit_code == 0, result.output
    weights = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert {weight.data_type for weight in weights if len(weight.dims) == 4} == {onnx.TensorProto.FLOAT16}
    model = FCNForSemanticSegmentation.from_pretrained(model)
    exported = OnnxModel(tmp_path / "model.onnx", model.config)
    pixel_values = torch.randn(2, 3, 41, 52)
    outputs, expected = exported(pixel_values), model(pixel_values).logits_by_task
    for logits, task in [(outputs.logits, "semantic"), (outputs.logits_geometric, "geometric")]:
        assert logits.dtype == torch.float32 and relative_difference(logits, expected[task]) < 0.02


def test_a_model_whose_weights_are_float16_is_exported_as_the_same_one_in_float32(tmp_path, monkeypatch):
    """In float16 the model itself rounds, and the file would differ by more than it may."""
    build_tiny().half().save_pretrained(tmp_path / "model")
    FCNImageProcessor(num_labels=5).save_pretrained(tmp_path / "model")
    exported = []
    report = export.ExportReport(0.0)
    monkeypatch.setattr(export, "export_onnx", lambda model, *arguments: exported.append(model) or report)
    assert run("export", tmp_path / "model", tmp_path / "model.onnx").exit_code == 0
    assert exported[0].dtype == torch.float32


def test_an_export_takes_the_place_of_nothing_but_an_export_unless_told_to(model_folder, tmp_path, monkeypatch):
    path, card = tmp_path / "model.onnx", tmp_path / "model.onnx.md"

    def export_onnx(*arguments):
        path.write_text("exported")
        return export.ExportReport(0.0)

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    for name in (path, card):
        name.write_text("my own")
        result = run("export", model_folder, path)
        assert result.exit_code == 1 and f"{name.name} is there, and not this command's own" in result.stderr
        assert name.read_text() == "my own" and run("export", model_folder, path, "--overwrite").exit_code == 0
        path.unlink()
    path.write_text("an earlier export")
    card.write_text("# fcn as ONNX, float32\n\n`model.onnx` gives one of 21 classes to every pixel.\n")
    assert run("export", model_folder, path).exit_code == 0 and path.read_text() == "exported"


def test_a_processor_that_takes_no_pictures_is_told_of(tiny):
    with pytest.raises(FCNError, match="image processor takes no pictures: `image_mean` and `image_std` must both be"):
        export.noise_picture(3, FCNImageProcessor(image_mean=None, image_std=None))
    processor = FCNImageProcessor(size=None)
    processor.size = None
    report = export.ExportReport(0.0)
    assert "multiplied by" in onnx_card("a.onnx", "a", tiny().config, processor, "float32", ["logits"], report, None)


def test_eight_bits_are_calibrated_and_scored_beside_float32(model_folder, tmp_path):
    dataset = save_dataset(tmp_path / "data")
    arguments = ("--dtype", "int8", "--dataset", dataset, "--calibration-pictures", 2)
    result = run("export", model_folder, tmp_path / "model.onnx", *arguments)
    assert result.exit_code == 0, result.output
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = {weight.name: weight for weight in graph.initializer}
    scales = [weights[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert any(len(scale.dims) == 1 and scale.dims[0] > 1 for scale in scales), "a scale for each channel"
    model, processor = load_model(str(model_folder))
    rows, card = load_splits(str(dataset))["validation"], (tmp_path / "model.onnx.md").read_text()
    int8, float32 = (
        f"{100 * evaluate_split(net, processor, rows, ('image', 'label'))['mean_iou']:.2f}"
        for net in (OnnxModel(tmp_path / "model.onnx", model.config), model)
    )
    assert f"mean iou on {dataset}, validation: {float32} in float32, {int8} in int8" in result.stdout
    assert f"| mean iou | {float32} | {int8} |" in card


@torch.no_grad()
def test_a_backbone_that_pads_by_the_picture_s_size_is_exported_for_all_sizes(tmp_path):
    pytest.importorskip("timm")
    backbone = TimmBackboneConfig(backbone="tf_mobilenetv3_small_minimal_100", use_pretrained_backbone=False)
    config = FCNConfig(backbone="auto", backbone_config=backbone, prediction_stride=32, num_labels=3)
    torch.manual_seed(0)
    model = FCNForSemanticSegmentation(config).eval()
    export.export_onnx(model, FCNImageProcessor(), tmp_path / "model.onnx")
    exported = OnnxModel(tmp_path / "model.onnx", model.config)
    for shape in SHAPES:
        pixel_values = torch.randn(shape)
        assert relative_difference(exported(pixel_values).logits, model(pixel_values).logits) < 1e-4


def test_a_file_that_does_not_answer_as_the_model_does_leaves_everything_as_it_was(tmp_path, monkeypatch):
    def write_pictures_as_logits(net, num_channels, path):
        shape = ["batch_size", 3, "height", "width"]
        picture, logits = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name in ("pixel_values", "logits")
        )
        node = onnx.helper.make_node("Identity", ["pixel_values"], ["logits"])
        graph = onnx.helper.make_graph([node], "identity", [picture], [logits])
        opset = [onnx.helper.make_opsetid("", 18)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)

    monkeypatch.setattr(export, "write_onnx", write_pictures_as_logits)
    for classes, message in [(3, "differ from the model's by"), (5, "have shape (1, 3, 1, 1) instead of (1, 5, 1, 1)")]:
        folder = tmp_path / str(classes)
        model = save_tiny(folder / "model", num_labels=classes)
        (folder / "model.onnx").write_text("what was there")
        result = run("export", model, folder / "model.onnx", "--overwrite")
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        assert message in result.stderr.splitlines()[-1]
        assert sorted(path.name for path in folder.iterdir()) == ["model", "model.onnx"]
        assert (folder / "model.onnx").read_text() == "what was there"


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("model.pt", [], "expected a name that ends in .onnx"),
        ("model.onnx", ["--dtype", "int8"], "pass --dataset with --dtype int8"),
        ("model.onnx", ["--dataset", "DATA"], "pass --dataset with --dtype int8"),
        ("model.onnx", ["--dtype", "int8", "--dataset", "DATA", "--split", "test"], "no split 'test'"),
        ("folder.onnx", [], "is a folder"),
    ],
)
@pytest.mark.usefixtures("no_exporter")
def test_what_cannot_be_exported_is_said_in_one_line(model_folder, tmp_path, file, arguments, message):
    (tmp_path / "folder.onnx").mkdir()
    if "DATA" in arguments:
        save_dataset(tmp_path / "DATA")
    arguments = [tmp_path / argument if argument == "DATA" else argument for argument in arguments]
    result = run("export", model_folder, tmp_path / file, *arguments)
    assert result.exit_code == 1 and message in result.stderr.splitlines()[-1] and "Traceback" not in result.output


@pytest.mark.usefixtures("no_exporter")
def test_calibration_names_the_row_that_cannot_be_read_and_missing_libraries_their_extra(
    model_folder, tmp_path, monkeypatch
):
    model, processor = load_model(str(model_folder))
    rows = load_splits(str(save_dataset(tmp_path / "data")))["validation"]
    pictures = list(export.calibration_pictures(export.Calibration("it", rows, ("image", "label"), 2), processor))
    assert [picture.shape for picture in pictures] == [(1, 3, 30, 40), (1, 3, 32, 40)]
    assert all(isinstance(picture, np.ndarray) and picture.dtype == np.float32 for picture in pictures)
    processor.image_mean = [0.5] * 4
    with pytest.raises(ValueError, match="Row 0: .*channel"):
        next(export.calibration_pictures(export.Calibration("it", rows, ("image", "label")), processor))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = run("export", model_folder, tmp_path / "model.onnx")
    assert result.exit_code == 1 and "pip install 'fcn-hf[onnx]'" in result.stderr.splitlines()[-1]
