"""More splits for a dataset folder: what they hold, what stays, what is refused."""

import io
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from fcn_hf.datasets import DatasetError, load_splits
from training.add_split import add_split, main, void_outlines

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")})


def rows(masks, names, mode="RGB"):
    """Rows with these masks and a JPEG of noise beside each."""
    images = []
    for seed, mask in enumerate(masks):
        noise = np.random.default_rng(seed).integers(0, 256, (*np.shape(mask), 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG")
        images.append({"bytes": file.getvalue(), "path": None})
    labels = [Image.fromarray(np.array(mask, np.uint8)) for mask in masks]
    return datasets.Dataset.from_dict({"image": images, "label": labels, "name": names}, features=FEATURES)


@pytest.fixture
def folder(tmp_path):
    """A dataset folder whose README names its only split, "train"."""
    path = tmp_path / "photos"
    (path / "data").mkdir(parents=True)
    rows([np.zeros((4, 4))], ["first"]).to_parquet(path / "data" / "train-00000-of-00001.parquet")
    (path / "README.md").write_text(
        "---\npretty_name: Photos\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train-*.parquet\n---\nTheir text.\n"
    )
    return path


def ids(row):
    return np.array(row["label"])


def test_a_split_has_the_pictures_as_they_are_and_their_labels_mapped(folder):
    chair, floor = np.full((4, 6), 3), np.full((4, 6), 8)
    floor[0, 0] = 3
    given = rows([chair, floor], ["a chair", "a floor"])
    assert add_split(folder, "rooms", given, {3: 9, 5: 255, "other": 0}, at_least=0.1) == 1

    splits = load_splits(str(folder))
    assert list(splits) == ["train", "rooms"] and len(splits["train"]) == 1
    assert splits["rooms"]["name"] == ["a chair"]
    assert (ids(splits["rooms"][0]) == 9).all()
    undecoded = [split.cast_column("image", datasets.Image(decode=False))[0] for split in (given, splits["rooms"])]
    assert undecoded[0]["image"]["bytes"] == undecoded[1]["image"]["bytes"]
    readme = (folder / "README.md").read_text()
    assert "pretty_name: Photos" in readme and readme.endswith("Their text.\n")


def test_a_folder_without_a_list_of_splits_shows_the_new_one(folder):
    (folder / "README.md").unlink()
    add_split(folder, "rooms", rows([np.ones((4, 4))], ["one"]))
    assert set(load_splits(str(folder))) == {"train", "rooms"}


def test_outlines_become_void_and_nothing_else():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, 5:] = 7
    expected = mask.copy()
    expected[:, 3:7] = 255
    np.testing.assert_array_equal(void_outlines(mask, 2), expected)
    np.testing.assert_array_equal(void_outlines(np.full((3, 3), 7, np.uint8), 2), np.full((3, 3), 7))


def test_the_same_pictures_once_more_with_void_outlines(folder):
    mask = np.zeros((8, 8))
    mask[:, 4:] = 7
    add_split(folder, "drawn", rows([mask], ["bird"]))
    main(folder, "inside", str(folder), "drawn", None, 1, 0)
    assert (ids(load_splits(str(folder))["inside"][0])[:, 3:5] == 255).all()
    assert (ids(load_splits(str(folder))["drawn"][0])[:, 3:5] != 255).all()


@pytest.mark.parametrize(
    ("name", "masks", "settings", "message"),
    [
        ("train", [[[1]]], {}, "has a split 'train' already"),
        ("rooms", [[[4]]], {"label_map": {1: 2}}, "Row 0: the id 4"),
        ("rooms", [[[1]]], {"label_map": {1: 300}}, "Row 0: its class ids reach 300"),
        ("rooms", [[[0]], [[255]]], {"at_least": 0.5}, "No picture has 50.0% of other classes than 0"),
        *((name, [[[1]]], {}, "A split can't be called") for name in ("my-rooms", "../rooms", "a+b", "", "all")),
    ],
)
def test_what_cannot_be_added_is_refused_and_the_folder_stays(folder, name, masks, settings, message):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match=message):
        add_split(folder, name, rows(masks, [""] * len(masks)), **settings)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "configs:\n- config_name: default\n  data_files: data/train-*.parquet",
            "lists no splits that one could be added to",
        ),
        ("configs:\n- config_name: default\n  data_files: [data/train-*.parquet]", "lists no splits|can't be loaded"),
        (
            "configs:\n- config_name: default\n  data_files: [{split: train, path: data/*.parquet}]",
            r"'data/\*.parquet' of 'train' would be",
        ),
        ("configs: [", "lists no splits|can't be loaded"),
    ],
)
def test_a_readme_that_lists_splits_in_another_way_is_refused_and_the_folder_stays(folder, listed, message):
    (folder / "README.md").write_text(f"---\n{listed}\n---\n")
    with pytest.raises(DatasetError, match=message):
        add_split(folder, "rooms", rows([[[1]]], ["one"]))
    assert [path.name for path in (folder / "data").iterdir()] == ["train-00000-of-00001.parquet"]


def test_a_readme_that_counts_rows_counts_the_new_ones(folder):
    readme = folder / "README.md"
    counted = "dataset_info:\n  splits: [{name: train, num_bytes: 1, num_examples: 1}]\nconfigs:"
    readme.write_text(readme.read_text().replace("configs:", counted))
    add_split(folder, "rooms", rows([[[1]], [[2]]], ["one", "two"]))
    assert len(load_splits(str(folder))["rooms"]) == 2


def test_pictures_in_files_go_into_the_folder(folder, tmp_path):
    """And no folder of files becomes one of Parquet, in which they would be overlooked."""
    for name in ("images", "masks"):
        (tmp_path / "files" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 7).save(tmp_path / "files" / name / "a.png")
    files = load_splits(str(tmp_path / "files"))["train"]
    with pytest.raises(DatasetError, match="files has no Parquet files in `data`"):
        add_split(tmp_path / "files", "more", files)
    add_split(folder, "more", files.add_column("name", ["a"]))
    shutil.rmtree(tmp_path / "files")
    (row,) = load_splits(str(folder))["more"]
    assert np.asarray(row["image"]).max() == 7 and row["name"] == "a"


def test_other_columns_are_refused(folder):
    with pytest.raises(
        DatasetError, match="The rows have the columns image, label, but the splits in .* have image, label, name"
    ):
        add_split(folder, "rooms", rows([[[1]]], ["one"]).remove_columns("name"))


def test_a_map_that_is_none_is_refused(folder):
    with pytest.raises(DatasetError, match="--label-map is '{4: '"):
        main(folder, "rooms", str(folder), "train", "{4: ", 0, 0)
