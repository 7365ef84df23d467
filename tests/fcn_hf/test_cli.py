"""`fcn-hf` as people type it."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fcn_hf import FCNImageProcessor
from fcn_hf.cli import app


@pytest.fixture
def model_folder(tiny, tmp_path):
    folder = tmp_path / "model"
    tiny().save_pretrained(folder)
    FCNImageProcessor(num_labels=5).save_pretrained(folder)
    return folder


@pytest.fixture
def dataset_folder(tmp_path):
    """Three pictures of three sizes with random labels of five classes."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8) for i in range(3)]
    labels = [generator.integers(0, 5, (30 + i, 40), dtype=np.uint8) for i in range(3)]
    rows = {"image": [Image.fromarray(p) for p in pictures], "label": [Image.fromarray(label) for label in labels]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    folder = tmp_path / "data"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "validation.parquet")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_segment_writes_class_ids_with_a_palette(model_folder, tmp_path):
    Image.effect_noise((41, 29), 90).convert("RGB").save(tmp_path / "street.jpg")
    result = run("segment", tmp_path / "street.jpg", "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    mask = Image.open(tmp_path / "out" / "street.png")
    assert mask.size == (41, 29) and mask.mode == "P" and np.asarray(mask).max() < 5
    # The VOC development kit's first colours.
    assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_segment_goes_on_after_a_bad_picture_and_says_so(model_folder, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = (tmp_path / "bad.png", tmp_path / "missing.png", tmp_path / "good.png")
    result = run("segment", *paths, "--model", model_folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png is not a picture" in result.stderr and "missing.png" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_segment_never_overwrites_its_input_or_its_own_output(model_folder, tmp_path):
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "sub" / "a.jpg"):
        Image.new("RGB", (20, 20)).save(path)
    before = (tmp_path / "a.png").read_bytes()
    result = run("segment", tmp_path / "a.png", "--model", model_folder, "--out", tmp_path)
    assert result.exit_code == 1 and "overwrite" in result.stderr
    assert (tmp_path / "a.png").read_bytes() == before
    result = run(
        "segment", tmp_path / "a.png", tmp_path / "sub" / "a.jpg", "--model", model_folder, "--out", tmp_path / "o"
    )
    assert result.exit_code == 1 and "would both become" in result.stderr


def test_evaluate_writes_scores_in_0_to_1(model_folder, dataset_folder, tmp_path):
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    names = ["mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou", "per_class_iou"]
    assert list(scores) == names and len(scores["per_class_iou"]) == 5
    assert all(0 <= scores[name] <= 1 for name in names[:4])
    assert f"{100 * scores['mean_iou']:.2f}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "no split 'test'; it has validation"),
        (["--label-column-name", "mask"], "no column 'mask'"),
        (["--dataset", "nowhere"], "dataset 'nowhere' can't be loaded"),
        (["--model", "nowhere"], "No model could be loaded from 'nowhere'"),
        (["--device", "abacus"], "device 'abacus'"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_line(model_folder, dataset_folder, arguments, message):
    result = run("evaluate", "--model", model_folder, "--dataset", dataset_folder, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr.strip().splitlines()[-1] and "Traceback" not in result.output


def test_a_class_that_never_occurs_is_null_in_the_json(tiny, dataset_folder, tmp_path):
    model = tiny(num_labels=6, upsampling="bilinear")
    with torch.no_grad():
        model.score_fr.bias[5] = -1e4
    model.save_pretrained(tmp_path / "six")
    FCNImageProcessor(num_labels=6).save_pretrained(tmp_path / "six")
    result = run(
        "evaluate", "--model", tmp_path / "six", "--dataset", dataset_folder, "--json", tmp_path / "scores.json"
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "scores.json").read_text()
    assert json.loads(text)["per_class_iou"]["LABEL_5"] is None and "NaN" not in text


def test_evaluate_names_the_row_with_an_unknown_label(tiny, dataset_folder, tmp_path):
    tiny(num_labels=4).save_pretrained(tmp_path / "four")
    FCNImageProcessor(num_labels=4).save_pretrained(tmp_path / "four")
    result = run("evaluate", "--model", tmp_path / "four", "--dataset", dataset_folder)
    assert result.exit_code == 1 and "Row 0: label 4 is outside 0..3" in result.stderr
