"""A folder of pictures and a folder of masks are a dataset, by whatever way its splits are kept apart."""

import json

import datasets
import numpy as np
import PIL.EpsImagePlugin
import pytest
from PIL import Image

from fcn_hf.datasets import DatasetError, find_columns, load_splits, numbered_rows
from tests.helpers import run, save_tiny
from training.data import DataArguments
from training.scan import read_dataset


def save(path, value=0, size=(32, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def write_pairs(folder, layout):
    """Pictures whose every pixel is 10, 11, ... and masks of 0, 1, ...; Two a split, one of them in a folder below."""
    for number, split in enumerate(("train", "val")):
        for index, stem in enumerate(("a.b", "city/c")):
            value = 2 * number + index
            save(folder / layout.format("images", split) / f"{stem}.jpg", 10 + value)
            save(folder / layout.format("Masks", split) / f"{stem}.png", value)
            (folder / layout.format("images", split) / ".hidden.jpg").write_text("no picture")
            (folder / layout.format("Masks", split) / "notes.txt").write_text("no mask")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("layout", ["{1}/{0}", "{0}/{1}"])
def test_folders_side_by_side_are_pairs_by_their_names(tmp_path, layout, streaming):
    write_pairs(tmp_path, layout)
    splits = load_splits(str(tmp_path), streaming=streaming)
    assert find_columns(splits["train"].features) == ("image", "label")
    found = {
        name: [(np.asarray(row["image"])[0, 0], np.asarray(row["label"])[0, 0]) for row in rows]
        for name, rows in splits.items()
    }
    assert found == {"train": [(10, 0), (11, 1)], "validation": [(12, 2), (13, 3)]}


def test_training_and_evaluate_read_the_same_folders(tmp_path):
    write_pairs(tmp_path / "data", "{0}/{1}")
    scanned = read_dataset(DataArguments(str(tmp_path / "data"), id2label=["a", "b", "c", "d"]), 255, quiet=True)
    assert scanned.counts.tolist() == [960, 960, 0, 0] and len(list(scanned.scored)) == 2
    options = ("--model", save_tiny(tmp_path / "model"), "--json", tmp_path / "s.json")
    result = run("evaluate", "--dataset", tmp_path / "data", *options)
    assert result.exit_code == 0 and json.loads((tmp_path / "s.json").read_text())["pixel_accuracy"] <= 1


def test_without_splits_all_is_for_training(tmp_path):
    for name in ("image/a.png", "annotations/a.tif", "image/deep/a.png", "annotations/deep/a.png"):
        save(tmp_path / name)
    (tmp_path / "classes.csv").write_text("id,name\n0,road\n")
    assert {name: len(rows) for name, rows in load_splits(str(tmp_path)).items()} == {"train": 2}


@pytest.mark.parametrize(
    ("missing", "added", "message"),
    [
        ("Masks/val/a.b.png", None, r"images/val/a\.b\.jpg has no mask; expected one .* in .*/Masks/val\."),
        ("images/train/city/c.jpg", None, r"Masks/train/city/c\.png has no picture; expected .* in .*/images/train\."),
        (None, "images/train/a.b.png", r"images/train/a\.b\.jpg and .*a\.b\.png differ by their ending alone"),
        (None, "images/test/d.png", r"images/test/d\.png has no mask; expected one .* in .*/Masks/test\."),
        (None, "images/Validation/d.png", r"images/Validation and .*images/val are both of the split 'validation'"),
    ],
)
def test_what_has_no_partner_is_named(tmp_path, missing, added, message):
    write_pairs(tmp_path, "{0}/{1}")
    if missing:
        (tmp_path / missing).unlink()
    if added:
        save(tmp_path / added)
    with pytest.raises(DatasetError, match=message):
        load_splits(str(tmp_path))


def test_a_split_without_masks_is_not_left_out(tmp_path):
    for name in ("train/images/a.png", "train/masks/a.png", "validation/images/b.png"):
        save(tmp_path / name)
    with pytest.raises(DatasetError, match=r"validation/images/b\.png has no mask"):
        load_splits(str(tmp_path))


def test_metadata_says_what_belongs_together_where_it_is(tmp_path):
    write_pairs(tmp_path, "{1}/{0}")
    (tmp_path / "val").rename(tmp_path / "unused")
    row = {"file_name": "images/a.b.jpg", "label_file_name": "Masks/a.b.png"}
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    (rows,) = load_splits(str(tmp_path / "train")).values()
    assert len(rows) == 1 and np.asarray(rows[0]["label"])[0, 0] == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.csv", "a,b\n1\n1,2,3\n", "can't be loaded: Error tokenizing data"),
        ("train.jsonl", "{\n", "can't be loaded: JSON parse error"),
        ("train.parquet", "version https://git-lfs.github.com/spec/v1\n", "train.parquet is a Git LFS pointer"),
        ("data.py", "", "can't be loaded: Dataset scripts are no longer supported"),
        (
            "README.md",
            "---\nconfigs:\n- config_name: a\n  data_files:\n  - split: a-b\n    path: x.csv\n---\n",
            r"loaded: \w",
        ),
    ],
)
def test_a_folder_that_can_t_be_loaded_gets_one_sentence(tmp_path, file, content, message):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / file).write_text(content)
    (folder / "x.csv").write_text("a\n1\n")
    with pytest.raises(DatasetError, match=message) as caught:
        load_splits(str(folder))
    assert "\n" not in str(caught.value)


def test_one_column_is_no_picture_and_label_map_at_once():
    features = {name: datasets.Image() for name in ("image", "label")}
    with pytest.raises(DatasetError, match="The column 'image' is to be pictures and label maps at once"):
        find_columns(features, None, "image")


def test_no_row_has_a_program_run(tmp_path, monkeypatch):
    """Ghostscript is never looked for, though `datasets` decodes pictures of every format."""
    monkeypatch.setattr("subprocess.check_call", None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/gs")
    for name in ("images", "masks"):
        save(tmp_path / name / "a.png")
    (tmp_path / "images" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DatasetError, match=r"Row 0 can't be read \(OSError: Unable to locate Ghostscript"):
        list(numbered_rows(load_splits(str(tmp_path))["train"]))
    assert PIL.EpsImagePlugin.gs_binary is False
