"""`python app.py` in a process of its own, asked through `gradio_client`."""

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from benchmarks.load_page import local_answers, mixed_pictures, wrong_answers
from fcn_hf.palettes import distinct_palette, voc_palette
from space import ui, uploads
from space.downloads import NO_LABEL_MAP
from space.handlers import Handlers
from space.inference import Segmentation, Segmenter
from space.kinds import Kind, load_segmenters, own_colours
from space.pictures import EXAMPLES, Examples, read_picture
from tests.helpers import free_port
from tests.space.visitors import call, listen, send, trigger

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def ask(client, path):
    return client.predict(handle_file(path), api_name="/compare")


def test_the_endpoints_are_typed(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    inputs = {
        name: {field["parameter_name"]: field["python_type"]["type"] for field in endpoint["parameters"]}
        for name, endpoint in endpoints.items()
    }
    kind = {"kind": "Literal['models']"}
    assert set(inputs) == {"/compare", "/explain", "/classify"}
    assert inputs["/compare"] == {"image": "filepath", **kind, "truth": "filepath"}
    assert inputs["/explain"] == {"image": "filepath", **kind, "x": "int", "y": "int"}
    assert inputs["/classify"] == {"image": "filepath", "class_name": "str"}


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


def test_requests_of_many_clients_do_not_meet(server, model_folders, tmp_path):
    segmenters = load_segmenters(model_folders)
    expected = {path: local_answers(segmenters, path) for path in mixed_pictures(tmp_path, 24, longest_side=64)}
    assert len({finest for _, _, finest in expected.values()}) == 24
    answers = []
    assert wrong_answers(server, expected, clients=4, answered=lambda: answers.append(1)) == [] and len(answers) == 24


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"text", "no picture in a known format"), (b"", "it is empty"), (None, "damaged")],
    ids=str,
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


META = {"_type": "gradio.FileData"}
STREET = EXAMPLES / "street" / "street-1.png"
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize("extra", [{}, {"meta": META}, {"is_stream": True, "meta": META}, {"url": DATA_URL}], ids=str)
def test_only_what_was_uploaded_is_opened(server, tmp_path, extra):
    folder = Path(send(server, STREET)).parent
    os.mkfifo(fifo := tmp_path / "fifo")
    (link := folder / f"{tmp_path.name}-link.png").symlink_to(STREET)
    os.mkfifo(sent_fifo := folder / f"{tmp_path.name}-fifo.png")
    foreign = [STREET, ROOT / "app.py", tmp_path / "nowhere.png", fifo, folder, link, "/proc/self/fd/1", "\0", ""]
    foreign += [
        folder / ".." / ".." / "nowhere.png",
        f"{folder}/../../../{STREET}",
        "https://example.com/a.png",
        DATA_URL,
        sent_fifo,
    ]
    answers = {json.dumps(call(server, "compare", [{"path": str(path), **extra}])) for path in foreign}
    assert len(answers) == 1
    kind, content = json.loads(answers.pop())
    assert kind == "error" and content["error"].startswith("Please send a picture")


def test_what_was_uploaded_is_opened_whatever_else_is_said_of_it(server):
    path = send(server, STREET)
    for extra in ({}, {"meta": META}, {"url": "https://example.com/a.png", "meta": META}, {"orig_name": "/etc/passwd"}):
        kind, data = call(server, "compare", [{"path": path, **extra}])
        assert kind == "complete" and data[2][0]["mean_iou"] is not None


@pytest.mark.parametrize(
    "data", [["text"], [[1, 2]], [], [None], [1], [{}], [{"path": None}], [{"path": [1]}]], ids=str
)
def test_a_malformed_call_is_answered_with_a_sentence(server, data):
    kind, content = call(server, "compare", data)
    assert kind == "error" and content["error"].startswith("Please send a picture")


@pytest.mark.parametrize("name", ["nowhere", 3, ["street"], {"a": 1}], ids=str)
def test_an_unknown_kind_is_answered_with_a_sentence(server, name):
    kind, content = call(server, "compare", [{"path": send(server, STREET)}, name])
    assert kind == "error" and content["error"].startswith("There is no kind of picture")


@pytest.mark.parametrize(
    "value", [500, -3, float("nan"), 10**400, "60", None, True, [60], {"path": str(STREET)}], ids=str
)
def test_a_number_out_of_range_is_answered_with_a_sentence(server, value):
    config = httpx.get(f"{server}/config").json()
    ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
    for event in config["dependencies"]:
        if [ids["fcn-opacity"], "input"] in event["targets"]:
            success, output = trigger(server, {"fn_index": event["id"], "data": [value]})
            assert not success and re.search("is a number from 0 to 100|Please send a picture", output["error"])
        if [ids["fcn-examples"], "click"] in event["targets"] and value is not True:
            success, output = trigger(server, {"fn_index": event["id"], "data": ["models", value]})
            assert not success and re.search("There is no example|Please send a picture", output["error"])


def test_a_label_map_is_made_of_a_panel_that_is_there(server):
    config = httpx.get(f"{server}/config").json()
    (button,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == "fcn-label-map"]
    (event,) = [event["id"] for event in config["dependencies"] if [button, "click"] in event["targets"]]

    def asked(panel, path=None):
        data = ["models", {"path": path or send(server, STREET), "meta": META}, False, None, panel]
        return trigger(server, {"fn_index": event, "data": data})

    success, output = asked("Verdade")
    truth = Image.open(io.BytesIO(httpx.get(output["data"][0]["url"]).content))
    assert success and output["data"][0]["orig_name"] == "verdade.png"
    assert np.array_equal(truth, Image.open(STREET.with_name("street-1_label.png")))
    for panel in ("FCN-4s", "../x", "", 3, None, ["FCN-8s"], {"a": "FCN-8s"}):
        success, output = asked(panel)
        assert not success and output["error"] == NO_LABEL_MAP
    for panel, path in (({"path": str(STREET)}, None), ("FCN-8s", str(STREET))):
        success, output = asked(panel, path)
        assert not success and output["error"] == uploads.NOT_UPLOADED


def test_typed_models_are_a_kind_to_those_who_have_no_session(client, model_folders, pets, labels):
    kind = f"{model_folders[2]}, {pets}"
    _, label_maps, summary = client.predict(handle_file(STREET), kind, api_name="/compare")
    networks = load_segmenters((model_folders[2], pets))
    for network, label_map, entry in zip(networks, label_maps, summary, strict=True):
        assert list(entry["shares"]) == [*labels, "cat", "dog"] and entry["mean_iou"] is None
        assert np.array_equal(Image.open(label_map["image"]), network.segment(read_picture(STREET)).mask)
    _, answers = client.predict(handle_file(STREET), kind, 240, 180, api_name="/explain")
    assert list(answers[1]["probabilities"]) == ["cat", labels[3], "dog"]
    for api_name, more in (("/compare", ()), ("/explain", (0, 0))):
        with pytest.raises(AppError, match="no model './nowhere': expected is owner/name"):
            client.predict(handle_file(STREET), "./nowhere", *more, api_name=api_name)


def test_a_truth_is_scored_and_a_wrong_one_is_a_sentence(server, client, noise_picture, tmp_path):
    noise_picture(50, 40).save(tmp_path / "a.png")
    _, label_maps, _ = ask(client, tmp_path / "a.png")
    for each, label_map in zip((32, 16, 8), label_maps, strict=True):
        shutil.copy(label_map["image"], tmp_path / f"{each}.png")
    truth = handle_file(tmp_path / "8.png")
    scores = [
        entry["mean_iou"]
        for entry in client.predict(handle_file(tmp_path / "a.png"), truth=truth, api_name="/compare")[2]
    ]
    assert scores[2] == 1 and max(scores[:2]) < 1
    kind, content = call(server, "compare", [{"path": send(server, STREET)}, "models", {"path": str(STREET)}])
    assert kind == "error" and content["error"].startswith("Please send a picture")
    with pytest.raises(AppError, match="50 x 40 pixels and the picture 480 x 360.*Expected is a PNG"):
        client.predict(handle_file(STREET), truth=truth, api_name="/compare")


def test_no_address_is_fetched(server):
    for address in ("http://example.com/a.png", "HTTPS://example.com/a.png", "http%3A//example.com"):
        answer = httpx.get(f"{server}/gradio_api/file={address}")
        assert (answer.status_code, answer.text) == (403, uploads.NOT_FETCHED)


def test_a_full_queue_leaves_no_examples_of_another_kind(server):
    config = httpx.get(f"{server}/config").json()
    (gallery,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == "fcn-examples"]
    queued = [event["queue"] for event in config["dependencies"] if gallery in event["outputs"]]
    assert queued and not any(queued)


def test_the_page_is_refused_in_its_language_and_the_api_in_english(server):
    config = httpx.get(f"{server}/config").json()
    ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
    event = next(event["id"] for event in config["dependencies"] if ids["fcn-comparison"] in event["outputs"])
    body = {"fn_index": event, "data": ["models", {"path": "/etc/passwd"}, False, None, None, None]}
    (_, english), (_, portuguese) = (trigger(server, body, language) for language in ("en-GB", "pt-BR"))
    assert english["error"] == uploads.NOT_UPLOADED
    assert portuguese["error"].startswith("Envie uma imagem: ")
    asked = httpx.post(f"{server}/gradio_api/call/compare", json={"data": [None]}, headers={"Accept-Language": "pt-BR"})
    assert listen(server, "compare", asked.json()["event_id"])[1]["error"] == uploads.NOT_UPLOADED


def test_private_events_have_no_name_to_call_them_by(server):
    events = httpx.get(f"{server}/config").json()["dependencies"]
    assert [event["api_name"] for event in events if event["api_name"]] == ["compare", "explain", "classify"]
    for name in (
        "why",
        "inside",
        "classified",
        "class_map",
        "show_upload",
        "choose",
        "lambda",
        "example",
        "js_fn",
        "None",
        "null",
    ):
        assert call(server, name, [None, None])[0] == "refused"


def test_a_request_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_SECONDS", 0.1)
    stopped = threading.Event()
    with pytest.raises(gr.Error, match="took longer"):
        asyncio.run(asyncio.wait_for(given_up(stopped), 10))


def test_uploads_of_a_process_that_was_killed_are_gone(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (other := tmp_path / "other.png").touch()
    left = uploads.own_folder("127.0.0.1", port := free_port()) / "left.png"
    left.touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert list(uploads.own_folder("127.0.0.1", port).iterdir()) == [] and other.exists()
    assert Path(os.environ["GRADIO_TEMP_DIR"]) == left.parent


def test_uploads_of_a_page_that_is_served_stay(server, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    port = int(server.rsplit(":", 1)[1])
    (left := tmp_path / f"fcn-hf-page-{port}" / "a.png").parent.mkdir()
    left.touch()
    with pytest.raises(uploads.AddressError, match="set PORT"):
        uploads.own_folder("127.0.0.1", port)
    assert left.exists()


def test_the_convolution_library_keeps_so_many_plans_and_no_more():
    """Those of the last 512 layers and sizes are there when they are asked for again; others have made room."""
    code = (
        "import torch, space\n"
        "layer = torch.nn.Conv2d(64, 8, 3).eval()\n"
        "with torch.inference_mode():\n"
        "    for width in [*range(120, 720), 719, 600, 120]: layer(torch.zeros(1, 64, 3, width))\n"
    )
    environment = {**os.environ, "ONEDNN_VERBOSE": "profile_create"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    made = [line for line in process.stdout.splitlines() if ",convolution," in line]
    missed = ["cache_miss" in line for line in made]
    assert missed == [True] * 600 + [False, False, True]


def test_the_first_times_are_not_those_of_a_cold_process(model_folders, monkeypatch):
    seen = set()

    def segment(segmenters, picture):
        times = [0.1 if segmenter.name in seen else 9.0 for segmenter in segmenters]
        seen.update(segmenter.name for segmenter in segmenters)
        mask, shares = np.zeros((picture.height, picture.width), np.uint8), dict.fromkeys(segmenters[0].classes, 0)
        return tuple(Segmentation(mask, seconds, shares) for seconds in times)

    monkeypatch.setattr("space.comparison.segment_together", segment)
    monkeypatch.setenv("FCN_MODELS", ",".join(model_folders))
    config = json.dumps(ui.build().config, default=str)  # a `gr.State` has a function there
    assert "9,000 ms" not in config and config.count("100 ms") == len(model_folders)


async def given_up(stopped):
    task = asyncio.ensure_future(uploads.limited(lambda: stopped.wait(30))())
    try:
        await asyncio.wait([task])
    finally:
        stopped.set()
    return await task


@pytest.mark.parametrize("port", ["abc", "99999", "-1", "1.5"])
def test_a_port_that_is_none_is_refused(monkeypatch, port):
    monkeypatch.setenv("PORT", port)
    with pytest.raises(uploads.AddressError, match=f"'{port}': set PORT"):
        ui.address()


@pytest.mark.parametrize(
    "palette",
    [[[300, 0, 0], [0, 0, 0]], [[0.2, 0, 0], [0, 0.9, 0]], [[1, 2, 3], [1, 2, 3]], [[1, 2], [3]], ["red", "blue"], 7],
    ids=str,
)
def test_colours_that_tell_no_classes_apart_are_replaced(palette):
    def colours(palette):
        model = SimpleNamespace(config=SimpleNamespace(num_labels=2, palette=palette))
        return own_colours(Segmenter("a", "a", ("cat", "dog"), 8, 1, model, None)).tolist()

    assert colours(palette) == distinct_palette(2)
    assert colours([[9, 8, 7], (200, 255, 0)]) == [[9, 8, 7], [200, 255, 0]] and colours(None) == voc_palette(2)


def test_missing_model_ends_with_one_clear_line(tmp_path):
    process = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={"PATH": "", "FCN_MODELS": "./nowhere/fcn", "PORT": "0", "GRADIO_TEMP_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1 and process.stderr.strip().splitlines()[-1].startswith(
        "error: No model could be loaded from './nowhere/fcn': there is no such folder"
    )
    assert "Traceback" not in process.stderr


def test_a_kind_without_examples_waits_for_a_picture(model_folders, tmp_path, noise_picture):
    segmenters = load_segmenters(model_folders)
    street = Kind("street", "Streets", segmenters, Examples.from_folder(EXAMPLES / "street"))
    handlers = Handlers([street, Kind("rooms", "Rooms", segmenters, Examples())])
    picture, shown, _ = handlers.choose("rooms", {"path": str(street.examples.paths[0])}, False)
    assert picture is None and "fcn-hint" in shown and "fcn-panel" not in shown
    noise_picture(40, 30).save(tmp_path / "own.png")
    assert "fcn-panel" in handlers.choose("rooms", {"path": str(tmp_path / "own.png")}, False)[1]
