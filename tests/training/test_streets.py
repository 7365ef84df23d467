"""Drawn streets: the same everywhere, labelled as drawn, laid out as CamVid, and readable from the Hub folder."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import typer
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from training.streets import ID2LABEL, render_street, streets_dataset, streets_stream
from training.streets.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"height": 48, "width": 64}
IDS = {name: index for index, name in ID2LABEL.items()}


def digest(seed: int) -> str:
    picture, labels = render_street(seed, 90, 120)
    return hashlib.sha256(picture.tobytes() + labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render_street(seed, 96, 128) for seed in range(30)]


def test_classes_are_camvids():
    assert list(ID2LABEL) == list(range(11))
    assert ID2LABEL[0] == "sky" and ID2LABEL[3] == "road" and ID2LABEL[10] == "bicyclist"


def test_same_seed_draws_the_same_pixels_in_every_process():
    code = (
        "import hashlib; from training.streets import render_street; p, l = render_street(5, 90, 120);"
        "print(hashlib.sha256(p.tobytes() + l.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert digest(5) == digest(5) == other.stdout.strip()


def test_drawing_leaves_numpys_global_random_state_alone():
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    render_street(0, **SMALL)
    assert np.random.random() == expected


def test_different_seeds_draw_different_scenes():
    assert len({digest(seed) for seed in range(4)}) == 4


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 200), (200, 61), (360, 480)])
def test_any_size_from_32(size):
    picture, labels = render_street(3, *size)
    assert picture.shape == (*size, 3) and picture.dtype == np.uint8
    assert labels.shape == size and labels.dtype == np.uint8


@pytest.mark.parametrize("size", [(31, 480), (360, 31), (0, 0)])
def test_a_smaller_size_is_refused(size):
    with pytest.raises(ValueError, match=f"height {size[0]} x width {size[1]} is too small.*32"):
        render_street(0, *size)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="seed -1 is negative"):
        render_street(-1)
    with pytest.raises(ValueError, match="num_scenes is 0"):
        streets_dataset(0)
    with pytest.raises(ValueError, match="num_scenes is 0"):
        streets_stream(num_scenes=0)
    with pytest.raises(ValueError, match="too small"):
        streets_stream(height=8)


def test_labels_are_class_ids_or_255(scenes):
    found = set(np.unique(np.stack([labels for _, labels in scenes])).tolist())
    assert found == {*ID2LABEL, 255}


def test_shares_resemble_camvids(scenes):
    counts = np.bincount(np.stack([labels for _, labels in scenes]).ravel(), minlength=256)[:11]
    shares = counts / counts.sum()
    for name, low, high in [("sky", 0.1, 0.26), ("building", 0.14, 0.34), ("road", 0.25, 0.4), ("car", 0.03, 0.11)]:
        assert low < shares[IDS[name]] < high, name
    for name in ("pole", "sign", "fence", "pedestrian", "bicyclist"):
        assert shares[IDS[name]] > 0.002, name


def test_sky_is_above_and_brighter_than_road(scenes):
    rows = np.arange(96)[:, None] * np.ones((1, 128))
    for picture, labels in scenes:
        sky, road = labels == IDS["sky"], labels == IDS["road"]
        assert rows[sky].mean() < rows[road].mean()
        if sky.sum() > 100:
            assert picture[sky].mean() > picture[road].mean()


def test_label_edges_are_where_the_picture_changes(scenes):
    """Across a label edge the picture changes much more than elsewhere, and less so if labels shift by three pixels."""

    def contrast(shift: int) -> float:
        total = []
        for picture, labels in scenes:
            moved = np.roll(labels, shift, axis=1)
            edge = (moved[:, 1:] != moved[:, :-1])[:, 8:-8]
            change = np.abs(np.diff(picture.astype(int), axis=1)).sum(-1)[:, 8:-8]
            total.append(change[edge].mean() / change[~edge].mean())
        return float(np.mean(total))

    assert contrast(0) > 2.5
    assert contrast(0) > 1.5 * max(contrast(3), contrast(-3))


def test_dataset_has_camvids_columns(tmp_path):
    dataset = streets_dataset(3, seed=2, **SMALL, cache_dir=tmp_path)
    assert dataset.features == datasets.Features(
        {"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")}
    )
    row = dataset[1]
    assert row["image"].mode == "RGB" and row["label"].mode == "L"
    assert row["image"].size == row["label"].size == (64, 48)
    assert dataset["name"][:] == ["street-2-000000", "street-2-000001", "street-2-000002"]


def test_a_longer_dataset_begins_with_the_shorter_one(tmp_path):
    short, long = (streets_dataset(n, **SMALL, cache_dir=tmp_path) for n in (2, 3))
    for a, b in zip(short, long, strict=False):
        assert np.array_equal(a["label"], b["label"]) and np.array_equal(a["image"], b["image"])


def test_stream_and_dataset_hold_the_same_scenes(tmp_path):
    rows = {row["name"]: row for row in streets_stream(seed=4, **SMALL, num_scenes=3)}
    for row in streets_dataset(3, seed=4, **SMALL, cache_dir=tmp_path):
        assert np.array_equal(rows[row["name"]]["label"], row["label"])


def test_stream_goes_on_and_mixes_with_a_map_style_dataset(tmp_path):
    stream = streets_stream(**SMALL)
    assert len({row["name"] for row in stream.take(8)}) == 8
    other = streets_dataset(2, seed=9, **SMALL, cache_dir=tmp_path).to_iterable_dataset()
    mixed = datasets.interleave_datasets([other, stream], stopping_strategy="first_exhausted")
    assert {row["name"].split("-")[1] for row in mixed.take(4)} == {"9", "0"}


def test_workers_get_different_scenes():
    stream = streets_stream(**SMALL, num_scenes=6).select_columns(["name"])
    names = [name for batch in DataLoader(stream, batch_size=2, num_workers=2) for name in batch["name"]]
    assert sorted(names) == [f"street-0-{i:06d}" for i in range(6)]


def test_endless_stream_splits_over_processes():
    nodes = [split_dataset_by_node(streets_stream(**SMALL), rank, 2).select_columns(["name"]) for rank in range(2)]
    first, second = ({row["name"] for row in node.take(5)} for node in nodes)
    assert len(first) == len(second) == 5 and not first & second


def test_command_writes_a_folder_that_loads_and_keeps_an_existing_one(tmp_path, capsys):
    out = tmp_path / "drawn"
    command = [sys.executable, "-m", "training.streets", "--out", str(out), "--num-scenes", "2", "--seed", "7"]
    command += ["--height", "48", "--width", "64"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dataset = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
    assert dataset.features == streets_dataset(1, **SMALL, cache_dir=tmp_path).features
    assert dataset["name"][:] == ["street-7-000000", "street-7-000001"]
    assert json.loads((out / "id2label.json").read_text()) == {str(k): v for k, v in ID2LABEL.items()}
    assert "license: apache-2.0" in (out / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []

    before = (out / "README.md").read_bytes()
    with pytest.raises(typer.Exit):
        main(out=out, num_scenes=2, **SMALL)
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert (out / "README.md").read_bytes() == before


def test_command_refuses_wrong_sizes(tmp_path, capsys):
    with pytest.raises(typer.Exit):
        main(out=tmp_path / "x", num_scenes=1, height=8)
    assert "too small" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    with pytest.raises(typer.Exit):
        main(out=tmp_path / "file" / "x", num_scenes=1, **SMALL)
    assert "file is a file, but files are to be written into a folder" in capsys.readouterr().err
