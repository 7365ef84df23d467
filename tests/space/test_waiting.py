"""Requests whose client has gone, or never listens, keep nobody waiting and are not worked on."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from space import serving, ui, waiting
from space.inference import Segmentation
from tests.helpers import free_port
from tests.space.visitors import ask, call, listen, send

PATIENCE = 60


@pytest.fixture
def worker(monkeypatch):
    """In place of the network: the widths of the pictures it was given, and the event until which it works on one."""
    widths, may_go_on = [], threading.Event()
    may_go_on.set()

    def segment_together(segmenters, picture):
        widths.append(picture.width)
        assert may_go_on.wait(PATIENCE)
        mask, shares = np.zeros((picture.height, picture.width), np.uint8), dict.fromkeys(segmenters[0].classes, 0)
        return tuple(Segmentation(mask, 0.1, shares) for _ in segmenters)

    monkeypatch.setattr("space.comparison.segment_together", segment_together)
    return widths, may_go_on


@pytest.fixture
def built(worker, model_folders, monkeypatch, tmp_path):
    """A page with one network."""
    monkeypatch.setenv("FCN_MODELS", model_folders[0])
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return ui.build()


@pytest.fixture
def page(built, worker):
    """Address of that page in this process."""
    port = free_port()
    serving.launch(built, server_port=port, prevent_thread_lock=True, quiet=True)
    yield f"http://127.0.0.1:{port}"
    worker[1].set()
    built.close()


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_page_goes_on_listening_for_a_while_and_is_forgotten_when_it_has_gone(page, built, monkeypatch):
    """Other clients are told of the end at once."""

    def seconds_to_the_end(session, headers, questions=1, stays=True):
        """From a client's last answer to the end of its listening; None if it goes when it is answered."""

        def put_question():
            body = {"fn_index": event, "data": ["indoor", None, False, None, "en", None], "session_hash": session}
            assert httpx.post(f"{page}/gradio_api/queue/join", json=body, headers=headers).status_code == 200

        put_question()
        answered, left = 0.0, questions - 1
        with httpx.stream("GET", f"{page}/gradio_api/queue/data?session_hash={session}", timeout=PATIENCE) as messages:
            for line in messages.iter_lines():
                if "process_completed" in line and waiting.KEPT_OPEN not in line:
                    answered = time.monotonic()
                    if not stays:
                        break
                    if left:
                        left -= 1
                        time.sleep(0.6)
                        put_question()
                if "close_stream" in line:
                    return time.monotonic() - answered
        return None

    queue = built._queue
    (event,) = [number for number, fn in built.fns.items() if fn.name == "show_chosen"]
    monkeypatch.setattr(waiting, "TIME_TO_ASK_AGAIN", 1)
    of_page = {"x-gradio-user": "app"}
    assert seconds_to_the_end("program", {}) < 0.5 < seconds_to_the_end("page", of_page)
    assert queue.pending_event_ids_session["page"] == set()
    # The end that was due for the first answer, 0.4 seconds after the second one, doesn't come.
    assert seconds_to_the_end("asking again", of_page, questions=2) > 0.5
    assert seconds_to_the_end("gone", of_page, stays=False) is None
    until(lambda: "gone" not in queue.pending_event_ids_session)


def test_only_what_somebody_listens_for_is_worked_on(page, worker, noise_picture, tmp_path, monkeypatch):
    def uploaded(width):
        noise_picture(width, 8).save(path := tmp_path / f"{width}.png")
        return [{"path": send(page, path)}]

    def size():
        return httpx.get(f"{page}/gradio_api/queue/status").json()["queue_size"]

    widths, may_go_on = worker
    widths.clear()
    may_go_on.clear()
    monkeypatch.setattr(waiting, "TIME_TO_LISTEN", PATIENCE)
    ghost = uploaded(30)
    with ThreadPoolExecutor() as pool:
        served = pool.submit(call, page, "compare", uploaded(10))
        until(lambda: widths == [10])
        gone = [ask(page, "compare", ghost).json()["event_id"] for _ in range(ui.MAX_WAITING)]
        assert ask(page, "compare", ghost).status_code == 503
        for event_id in gone[:2]:
            with contextlib.suppress(httpx.ReadTimeout):
                httpx.get(f"{page}/gradio_api/call/compare/{event_id}", timeout=0.2)
        until(lambda: size() == ui.MAX_WAITING - 2)
        unheard = gone[2:] + [ask(page, "compare", ghost).json()["event_id"] for _ in range(2)]
        monkeypatch.setattr(waiting, "TIME_TO_LISTEN", 0)
        next_one = pool.submit(call, page, "compare", uploaded(20))
        until(lambda: len(widths) == 1 and size() == ui.MAX_WAITING)
        may_go_on.set()
        assert served.result()[0] == next_one.result()[0] == "complete"
    assert widths == [10, 20]
    given_up = ("error", {"error": waiting.NOBODY_LISTENED})
    assert listen(page, "compare", unheard[0]) == given_up  # it made room
    assert listen(page, "compare", unheard[1])[0] == "complete" and widths == [10, 20, 30]  # late, but it listens

    monkeypatch.setattr(waiting, "LONGEST_UNHEARD", 0)
    until(lambda: size() == 0)
    assert listen(page, "compare", unheard[2]) == given_up and widths == [10, 20, 30]
