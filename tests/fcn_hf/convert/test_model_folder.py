"""The folder that a conversion leaves: complete, loadable without the package, and there as a whole or not at all."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

import fcn_hf
from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.convert import ConversionError, convert, model_folder, write_model_folder
from fcn_hf.convert.names import published_names
from tests.fcn_hf.convert.caffe_nets import PUBLISHED, net_layers, write_caffemodel
from tests.helpers import run, run_without_the_package


def caffemodel(folder: Path, name: str) -> Path:
    path = folder / f"{name}.caffemodel"
    write_caffemodel(path, net_layers(name), data=PUBLISHED[name])
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Model folders of a net with one head, with two heads and with two streams."""
    folder = tmp_path_factory.mktemp("converted")
    names = ("voc-fcn8s-atonce", "siftflow-fcn16s", "nyud-fcn32s-color-hha")
    for name in names:
        write_model_folder(convert(caffemodel(folder, name)), folder / name)
    return {name: folder / name for name in names}


NAMES = ("voc-fcn8s-atonce", "siftflow-fcn16s", "nyud-fcn32s-color-hha")


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_complete(folders, name):
    files = {path.name for path in folders[name].iterdir()}
    code = {path.name for path in Path(fcn_hf.__file__).parent.glob("*_fcn.py")}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", *code}
    config = json.loads((folders[name] / "config.json").read_text())
    assert config["architectures"] == ["FCNForSemanticSegmentation"] and config["dtype"] == "float32"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_fcn.FCNConfig",
        "AutoModel": "modeling_fcn.FCNModel",
        "AutoModelForSemanticSegmentation": "modeling_fcn.FCNForSemanticSegmentation",
    }
    # Whoever may read other new folders may read this one.
    (folders[name].parent / "ordinary").mkdir(exist_ok=True)
    assert folders[name].stat().st_mode == (folders[name].parent / "ordinary").stat().st_mode


@pytest.mark.parametrize("name", NAMES)
def test_the_preprocessor_config_says_all_that_the_weights_want(folders, name):
    settings = json.loads((folders[name] / "preprocessor_config.json").read_text())
    channels = 6 if "hha" in name else 3
    assert settings["image_processor_type"] == "FCNImageProcessor"
    assert settings["auto_map"]["AutoImageProcessor"]["torchvision"] == "image_processing_fcn.FCNImageProcessor"
    assert len(settings["image_mean"]) == len(settings["image_std"]) == channels
    assert (settings["do_rescale"], settings["do_normalize"], settings["do_resize"]) == (True, True, False)
    assert settings["rescale_factor"] == pytest.approx(1 / 255)
    assert (settings["num_labels"], settings["ignore_index"]) == ({"v": 21, "s": 33, "n": 40}[name[0]], 255)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_missing_or_left_over_in_the_weights(folders, name):
    _, report = FCNForSemanticSegmentation.from_pretrained(folders[name], output_loading_info=True)
    assert not any(report.values()), report


@pytest.mark.parametrize("name", NAMES)
def test_saving_what_was_loaded_changes_nothing(folders, name, tmp_path):
    model = AutoModelForSemanticSegmentation.from_pretrained(folders[name])
    model.save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(folders[name]).save_pretrained(tmp_path)
    for file in ("config.json", "preprocessor_config.json"):
        assert json.loads((tmp_path / file).read_text()) == json.loads((folders[name] / file).read_text())
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert list(again.state_dict()) == list(model.state_dict())
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


def test_labels_of_every_task_come_back(folders):
    config = AutoConfig.from_pretrained(folders["siftflow-fcn16s"])
    assert list(config.tasks.items()) == [("semantic", 33), ("geometric", 3)]
    assert config.id2label == config.id2label_by_task["semantic"] and config.label2id["window"] == 32
    assert config.id2label_by_task["geometric"] == {0: "sky", 1: "horizontal", 2: "vertical"}
    assert len(config.palette) == 33


def card_code(folder: Path) -> str:
    (block,) = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    return block


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_what_it_is_and_where_from(folders, name):
    card = ModelCard.load(folders[name] / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-segmentation")
    assert "fcn" in card.data.tags and card.data.license is None
    said = card.text
    assert said.lstrip().startswith(f"# FCN-{ {'v': 8, 's': 16, 'n': 32}[name[0]] }s, ")
    assert f"`{name}.caffemodel`" in said and "Long, Shelhamer, Darrell" in said
    assert "Licence of the weights: those of the authors' release are for unrestricted use" in said
    for note in convert(folders[name].parent / f"{name}.caffemodel").notes:
        assert f"- {note}" in said
    labels = AutoConfig.from_pretrained(folders[name]).id2label
    assert f"one of {len(labels)} classes" in said and ", ".join(labels.values()) in said
    assert ("sky, horizontal, vertical" in said) == (name == "siftflow-fcn16s")
    assert not re.search(r"\{\{|\{%", said)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_code_runs(folders, name, monkeypatch, tmp_path):
    monkeypatch.chdir(folders[name].parent)
    Image.effect_noise((53, 41), 90).convert("RGB").save("picture.jpg")
    variables = {"array": np.random.default_rng(0).uniform(0, 255, (6, 41, 53)).astype(np.float32)}
    exec(card_code(folders[name]), variables)
    if "hha" in name:
        assert variables["mask"].shape == (41, 53)
    else:
        assert variables["segments"] and all(segment["mask"].size == (53, 41) for segment in variables["segments"])


def test_the_pipeline_gives_the_masks_of_the_logits(folders):
    folder = folders["voc-fcn8s-atonce"]
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (41, 53, 3), dtype=np.uint8))
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    with torch.no_grad():
        classes = model(**inputs).logits[0].argmax(0).numpy()
    segments = {
        segment["label"]: np.asarray(segment["mask"]) > 0
        for segment in pipeline("image-segmentation", model=str(folder))(picture)
    }
    assert set(segments) == {model.config.id2label[label] for label in np.unique(classes)}
    for label, mask in segments.items():
        np.testing.assert_array_equal(mask, classes == model.config.label2id[label])


REMOTE = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
for folder, (pixel_values, expected) in zip(sys.argv[2:], torch.load(sys.argv[1])):
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
    outputs = model(pixel_values)
    assert torch.equal(outputs.logits, expected)
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    assert len(processor.image_mean) == pixel_values.shape[1]
    mask, = processor.post_process_semantic_segmentation(outputs, [(30, 40)])
    assert mask.shape == (30, 40)
segments = pipeline("image-segmentation", model=sys.argv[2], trust_remote_code=True)(Image.new("RGB", (40, 30)))
assert segments and all(segment["mask"].size == (40, 30) for segment in segments)
"""


def test_folders_work_as_remote_code_where_the_package_is_not_installed(folders, tmp_path):
    answers, copies = [], []
    for name in NAMES:
        model = AutoModelForSemanticSegmentation.from_pretrained(folders[name])
        pixel_values = torch.randn(1, model.config.num_channels, 30, 40) * 100
        with torch.no_grad():
            answers.append((pixel_values, model(pixel_values).logits))
        copies.append(str(shutil.copytree(folders[name], tmp_path / "elsewhere" / name)))
    torch.save(answers, tmp_path / "answers.pt")
    run_without_the_package(REMOTE, tmp_path / "answers.pt", *copies, folder=tmp_path)


@pytest.fixture
def conversion(tmp_path_factory):
    return convert(caffemodel(tmp_path_factory.mktemp("source"), "voc-fcn32s"))


def fill_file(dest):
    dest.write_text("mine")


def fill_folder(dest):
    dest.mkdir()
    (dest / "notes.txt").write_text("mine")


def fill_link(dest):
    dest.symlink_to("nowhere")


def snapshot(folder):
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("fill", [fill_file, fill_folder, fill_link])
def test_what_is_at_the_destination_is_left_alone(conversion, tmp_path, fill):
    dest = tmp_path / "model"
    fill(dest)
    before = snapshot(tmp_path)
    with pytest.raises(ConversionError, match="model already exists and is left as it is; name a new folder"):
        write_model_folder(conversion, dest)
    assert snapshot(tmp_path) == before
    # The command says so before it looks at the source, which it may have to download.
    result = run("convert", "vgg16", dest)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "already exists" in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("dest", ["empty", "new", "deep/er/new", "new/"])
def test_a_new_or_empty_folder_is_a_destination(conversion, tmp_path, dest):
    (tmp_path / "empty").mkdir()
    write_model_folder(conversion, f"{tmp_path}/{dest}")
    assert (tmp_path / dest / "model.safetensors").is_file()
    assert not list(tmp_path.rglob(".writing-*"))


@pytest.mark.parametrize("dest", ["model", "./model", "."])
def test_a_destination_may_be_relative(conversion, tmp_path, monkeypatch, dest):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_model_folder(conversion, dest)
    assert (tmp_path / "here" / dest / "config.json").is_file()
    name = "here" if dest == "." else "model"
    assert f'model="{name}"' in (tmp_path / "here" / dest / "README.md").read_text()


def test_arrays_keep_their_numbers_whatever_their_order_in_memory(conversion, tmp_path):
    arrays = {
        name: tensor if isinstance(tensor, np.ndarray) else tensor.read() for name, tensor in conversion.tensors.items()
    }
    conversion.tensors = {name: np.asfortranarray(array) for name, array in arrays.items()}
    write_model_folder(conversion, tmp_path / "model")
    written = load_file(tmp_path / "model" / "model.safetensors")
    places = published_names(written)
    assert set(places) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[places[name]], array)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("step", ["save_file", "copy_blobs", "custom_object_save", "card_text", "os.replace"])
def test_a_failure_at_any_step_leaves_nothing_behind(conversion, tmp_path, monkeypatch, step, there):
    if there:
        (tmp_path / "model").mkdir()
    before = snapshot(tmp_path)

    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    if step == "os.replace":
        monkeypatch.setattr("os.replace", fail)
    else:
        monkeypatch.setattr(model_folder, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_model_folder(conversion, tmp_path / "model")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("spoil", ["missing", "surplus", "misshapen"])
def test_tensors_that_are_not_the_nets_are_refused_before_anything_is_written(conversion, tmp_path, spoil):
    tensors = dict(conversion.tensors)
    if spoil == "missing":
        del tensors["fc7.bias"]
    elif spoil == "surplus":
        tensors["fc8.bias"] = np.zeros(3, np.float32)
    else:
        tensors["fc7.bias"] = np.zeros(3, np.float32)
    conversion.tensors = tensors
    message = {
        "missing": r"fc7.bias is missing; expected numbers of shape \(24,\)",
        "surplus": "fc8.bias is not part of FCN-32s",
        "misshapen": r"fc7.bias has shape \(3,\); expected \(24,\)",
    }
    for use in (lambda: write_model_folder(conversion, tmp_path / "deep" / "model"), conversion.build):
        with pytest.raises(ConversionError, match=message[spoil]):
            use()
    assert not list(tmp_path.iterdir())


def test_names_with_brackets_are_said_as_they_are(tmp_path):
    """Rich takes [bold] for markup."""
    path = caffemodel(tmp_path, "voc-fcn32s")
    result = run("convert", path, tmp_path / "[bold]model")
    assert result.exit_code == 0 and f"{tmp_path}/[bold]model is ready" in result.stdout
    assert result.stderr == ""
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path / "[bold]model"), FCNImageProcessor)
