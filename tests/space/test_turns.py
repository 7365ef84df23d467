"""Many pictures and a camera beside other visitors: turns are taken, nothing old is worked on, no stranger gets in."""

import base64
import io
import json
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from space import many, serving, ui, uploads
from space.inference import Segmentation
from tests.helpers import free_port
from tests.space.visitors import HTTP, call, send, trigger

PATIENCE = 60


class Worker:
    """In place of the network: the widths of the pictures it was given, and how many it may work on."""

    def __init__(self):
        self.widths, self.allowed = [], threading.Semaphore(0)

    def segment_together(self, segmenters, picture):
        self.widths.append(picture.width)
        assert self.allowed.acquire(timeout=PATIENCE)
        mask, classes = np.zeros((picture.height, picture.width), np.uint8), segmenters[0].classes
        return tuple(Segmentation(mask, 0.1, dict.fromkeys(classes, 1 / len(classes))) for _ in segmenters)


@pytest.fixture(scope="module")
def worker():
    return Worker()


@pytest.fixture(scope="module")
def served(worker, model_folders, tmp_path_factory):
    """A page in this process, with one network, and its address."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("space.inference", "space.comparison"):
            patch.setattr(f"{place}.segment_together", worker.segment_together)
        patch.setenv("FCN_MODELS", model_folders[0])
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        worker.allowed.release()  # for the first example, which the page shows at once
        worker.allowed.release()
        page = ui.build()
        port = free_port()
        serving.launch(page, server_port=port, prevent_thread_lock=True, quiet=True)
        yield SimpleNamespace(blocks=page, address=f"http://127.0.0.1:{port}")
        worker.allowed.release(1000)
        page.close()


@pytest.fixture
def page(served):
    return served.address


@pytest.fixture
def events(page, worker):
    """The numbers of the events by the `elem_id` of what they need, and nothing left of an earlier test."""
    config = HTTP.get(f"{page}/config").json()
    ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}

    def needing(element):
        return next(event for event in config["dependencies"] if ids[element] in event["inputs"])

    done = needing("fcn-many-files")["outputs"][-1]
    packing = next(
        event for event in config["dependencies"] if event["inputs"] == [done] and len(event["outputs"]) == 1
    )
    worker.widths.clear()
    while worker.allowed.acquire(blocking=False):
        pass
    return {"many": needing("fcn-many-files")["id"], "live": needing("fcn-camera")["id"], "zip": packing["id"]}


class Visitor:
    """A browser's session: what it asks for, and what it hears."""

    def __init__(self, page):
        self.page, self.session, self.heard = page, uuid.uuid4().hex, []

    def post(self, route, body):
        return HTTP.post(f"{self.page}/gradio_api/{route}", json={**body, "session_hash": self.session}).json()

    def ask(self, event, data):
        return self.post("queue/join", {"fn_index": event, "data": data, "trigger_id": None})["event_id"]

    def listen(self):
        """Collect messages until an event is completed."""
        with HTTP.stream("GET", f"{self.page}/gradio_api/queue/data?session_hash={self.session}") as messages:
            for line in messages.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                self.heard.append(message)
                if message.get("msg") == "process_completed":
                    return message


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def camera_picture(width):
    Image.new("RGB", (width, 8)).save(buffer := io.BytesIO(), "JPEG")
    return {"url": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()}


@pytest.fixture
def uploaded(page, noise_picture, tmp_path):
    def upload(width):
        noise_picture(width, 8).save(path := tmp_path / f"{width}.png")
        return {"path": send(page, path), "meta": uploads.META}

    return upload


def test_of_a_cameras_pictures_the_newest_is_next_and_others_are_served_in_between(page, worker, events, uploaded):
    """While one is computed, 20 come and one visitor asks: that one is served next, and then the last of the 20."""
    visitor = Visitor(page)
    event_id = visitor.ask(events["live"], ["models", camera_picture(100), False, 60, None])
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(visitor.listen)
        until(lambda: worker.widths == [100])
        other = pool.submit(call, page, "compare", [uploaded(50)])
        time.sleep(0.5)  # until it waits for its turn
        assert len(worker.widths) == 1
        for width in range(101, 121):
            data = ["models", camera_picture(width), False, 60, None]
            visitor.post(f"stream/{event_id}", {"fn_index": events["live"], "data": data})
        worker.allowed.release(3)
        until(lambda: len(worker.widths) == 3)
        assert worker.widths == [100, 50, 120] and other.result()[0] == "complete"
        until(lambda: sum(message.get("msg") == "process_streaming" for message in visitor.heard) == 2)
        visitor.post(f"stream/{event_id}/close", {})
        assert ended.result()["success"]
    assert 'width="120"' in visitor.heard[-1]["output"]["data"][0]


def test_a_camera_that_sends_nothing_makes_room(served, worker, events, monkeypatch):
    monkeypatch.setattr(served.blocks.fns[events["live"]], "time_limit", 2)
    visitor = Visitor(served.address)
    worker.allowed.release()
    event_id = visitor.ask(events["live"], ["models", camera_picture(100), False, 60, None])
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(visitor.listen)
        while not ended.done():  # it answers little, and would go on for long if only computing counted
            worker.allowed.release()
            data = ["models", camera_picture(101), False, 60, None]
            visitor.post(f"stream/{event_id}", {"fn_index": events["live"], "data": data})
            assert time.monotonic() - began < 20
            time.sleep(0.3)
    assert ended.result()["success"] and time.monotonic() - began >= 2


def test_of_many_pictures_each_takes_its_turn_and_what_is_done_is_kept(page, worker, events, uploaded, tmp_path):
    (tmp_path / "b.png").write_text("no picture")
    bad = {"path": send(page, tmp_path / "b.png"), "meta": uploads.META}
    visitor = Visitor(page)
    chosen = [uploaded(30), bad, uploaded(31), uploaded(32)]
    event_id = visitor.ask(events["many"], ["models", chosen, many.FINEST, False, 60])
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(visitor.listen)
        until(lambda: worker.widths == [30])
        other = pool.submit(call, page, "compare", [uploaded(50)])
        time.sleep(0.5)  # until it waits for its turn
        assert len(worker.widths) == 1
        worker.allowed.release(2)
        until(lambda: len(worker.widths) == 3)
        assert worker.widths == [30, 50, 31] and other.result()[0] == "complete"
        visitor.post("cancel", {"fn_index": events["many"], "event_id": event_id})
        assert ended.result()["success"]
    worker.allowed.release()  # for the one that was given up
    visitor.ask(events["zip"], [None])
    (made,) = visitor.listen()["output"]["data"]
    with zipfile.ZipFile(io.BytesIO(HTTP.get(made["url"]).content)) as archive:
        figures = json.loads(archive.read("figures.json"))
        assert set(archive.namelist()) == {"figures.json", "01-30.png", "01-30-overlay.jpg"}
        assert Image.open(archive.open("01-30.png")).size == (30, 8)
    done, failed = figures["pictures"]
    assert (done["picture"], done["size"], done["name"]) == ("30.png", [30, 8], "FCN-32s") and failed[
        "picture"
    ] == "b.png"
    assert "no picture in a known format" in failed["error"] and len(figures["palette"]) == len(figures["labels"])
    assert worker.widths == [30, 50, 31]


BROKEN = {"url": uploads.FRAME_START + "AAAA"}
HUGE = {"url": uploads.FRAME_START + "A" * uploads.MAX_FRAME_CHARACTERS}


def test_strangers_get_sentences(page, events, uploaded):
    sent, foreign = uploaded(40), {"path": "/etc/passwd", "meta": uploads.META}
    climbing = {**sent, "path": sent["path"] + "/../../../../etc/passwd"}
    several = [[foreign], [sent, foreign], [climbing], sent, "text", [None], [{"url": "http://127.0.0.1:9/a.png"}], 3]
    answers = [
        trigger(page, {"fn_index": events["many"], "data": ["models", each, many.FINEST, False, 60]})
        for each in several
    ]
    assert {(went_well, output["error"]) for went_well, output in answers} == {(False, uploads.NOT_UPLOADED)}
    too_many = trigger(page, {"fn_index": events["many"], "data": ["models", [sent] * 51, many.FINEST, False, 60]})
    assert too_many[1]["error"] == uploads.TOO_MANY_FILES
    unknown = trigger(page, {"fn_index": events["many"], "data": ["models", [sent], ["../x"], False, 60]})
    assert unknown[1]["error"].startswith("There is no network")
    nothing = trigger(page, {"fn_index": events["zip"], "data": [{"folder": "/etc"}]})
    assert nothing[1]["error"] == many.NOTHING_DONE

    frames = [
        None,
        foreign,
        sent,
        {"url": "http://127.0.0.1:9/a.png"},
        {"url": "data:text/html,hello"},
        HUGE,
        "text",
        3,
        [],
    ]
    answers = [
        trigger(page, {"fn_index": events["live"], "data": ["models", each, False, 60, None]}) for each in frames
    ]
    assert {(went_well, output["error"]) for went_well, output in answers} == {(False, uploads.NOT_A_FRAME)}
    broken = trigger(page, {"fn_index": events["live"], "data": ["models", BROKEN, False, 60, None]})
    assert "is damaged, or no picture" in broken[1]["error"]
