"""`python app.py` in a process of its own, asked through `gradio_client`."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from space.inference import load_segmenters
from space.pictures import EXAMPLES, read_picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def ask(client, path):
    return client.predict(handle_file(path), api_name="/compare")


def test_compare_is_the_only_endpoint(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/compare"}


def test_compare_gives_overlays_label_maps_and_numbers(client, model_folders):
    path = EXAMPLES / "street" / "street-1.png"
    overlays, label_maps, summary = ask(client, path)
    picture = read_picture(path)
    assert [entry["name"] for entry in summary] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    assert [entry["caption"] for entry in overlays] == [entry["caption"] for entry in label_maps]
    for segmenter, overlay, label_map, entry in zip(
        load_segmenters(model_folders), overlays, label_maps, summary, strict=True
    ):
        ids = Image.open(label_map["image"])
        assert Image.open(overlay["image"]).size == ids.size == picture.size and ids.mode == "P"
        assert np.array_equal(ids, segmenter.segment(picture).mask)
        assert entry["parameters"] == segmenter.parameters and entry["seconds"] > 0
        assert sum(entry["shares"].values()) == pytest.approx(1) and 0 <= entry["mean_iou"] <= 1


def test_a_picture_that_is_no_example_has_no_mean_iou(client, noise_picture, tmp_path):
    noise_picture(50, 40).save(tmp_path / "a.jpg")
    assert [entry["mean_iou"] for entry in ask(client, tmp_path / "a.jpg")[2]] == [None] * 3


def test_concurrent_requests_do_not_meet(server, client, noise_picture, model_folders, tmp_path):
    segmenter = load_segmenters(model_folders)[2]
    paths = []
    for seed in range(6):
        paths.append(tmp_path / f"{seed}.png")
        noise_picture(40 + seed, 30, seed).save(paths[-1])
    clients = [client, Client(server, verbose=False, download_files=tmp_path / "other")]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda index: ask(clients[index % 2], paths[index]), range(6)))
    for path, (_, label_maps, _) in zip(paths, answers, strict=True):
        assert np.array_equal(Image.open(label_maps[2]["image"]), segmenter.segment(read_picture(path)).mask)


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"text", "not a picture"), (b"", "not a picture"), (None, "damaged")], ids=str
)
def test_bad_upload_is_explained_and_the_next_one_works(client, tmp_path, content, sentence):
    path = tmp_path / "bad.png"
    whole = (EXAMPLES / "street" / "street-1.png").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(AppError, match=sentence):
        ask(client, path)
    shutil.copy(EXAMPLES / "street" / "street-2.png", path)
    assert len(ask(client, path)[0]) == 3


def test_no_picture_is_explained(client):
    with pytest.raises(AppError, match="send a picture"):
        client.predict(None, api_name="/compare")


def test_a_file_of_the_server_is_not_given_out(client):
    with pytest.raises(AppError):
        client.predict({"path": str(ROOT / "app.py"), "meta": {"_type": "gradio.FileData"}}, api_name="/compare")


def test_missing_model_ends_with_one_clear_line():
    process = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={"PATH": "", "FCN_MODELS": "./nowhere/fcn"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1 and process.stderr.strip().splitlines()[-1].startswith("error: No model could be")
    assert "Traceback" not in process.stderr
