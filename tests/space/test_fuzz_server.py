"""Whatever a stranger sends: a sentence or a status comes back, no file of the server, and the page goes on working.

`FCN_FUZZ_EXAMPLES=3000 pytest tests/space/test_fuzz_server.py` looks for new cases for some minutes.
"""

import json
import uuid
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.load_page import local_answers, wrong_answers
from space.inference import load_segmenters
from space.pictures import EXAMPLES
from tests.space.visitors import listen

ROOT = Path(__file__).resolve().parents[2]
STREET = EXAMPLES / "street" / "street-1.png"
FILES = {str(ROOT / "SECURITY.md"): "**Reporting.**", str(ROOT / "app.py"): "Entry point", "/etc/passwd": "root:"}
"""Files of the server, and what none of its answers may hold."""
ADDRESSES = ("http://127.0.0.1:9/a.png", "HTTPS://localhost/a", "file:///etc/passwd", "data:image/png;base64,iVBORw0=")

texts = st.text(max_size=12) | st.sampled_from([*FILES, *ADDRESSES, str(STREET), "\0", "..", "street"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
metas = st.sampled_from([{"_type": "gradio.FileData"}, {}, None, 3])
files = st.fixed_dictionaries(
    {"path": scalars}, optional={"meta": metas, "url": scalars, "is_stream": scalars, "orig_name": scalars}
)
values = st.recursive(
    scalars | files, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
indices = st.integers(-1, 12) | st.sampled_from([-(2**70), 2**70])


@pytest.fixture(scope="module")
def page(server, model_folders):
    """Address of the page, which still names every pixel of a picture as its networks do when all is over."""
    yield server
    expected = {STREET: local_answers(load_segmenters(model_folders), STREET)}
    assert wrong_answers(server, expected, clients=1) == []


def post(url, body):
    return harmless(httpx.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=60))


def harmless(response):
    assert "Traceback" not in response.text and '"error":null' not in response.text.replace(" ", "")
    assert not any(content in response.text for content in FILES.values())
    return response


def in_words(content):
    """Whether an event's error is a sentence; `content` is what came with it."""
    return isinstance(content, dict) and isinstance(content["error"], str) and content["error"].endswith(".")


@given(st.lists(values, max_size=4) | values)
@example([{"path": str(STREET), "meta": 3}])
def test_whatever_the_named_endpoint_is_sent(page, data):
    for way in ("run", "api"):
        assert (
            post(f"{page}/gradio_api/{way}/compare", {"data": data}).status_code >= 400
        )  # the queue can't be passed by
    started = post(f"{page}/gradio_api/call/compare", {"data": data})
    if started.status_code == 200:
        kind, content = listen(page, "compare", started.json()["event_id"])
        assert kind == "error" and in_words(content)


@given(
    indices,
    st.lists(values, max_size=4),
    st.fixed_dictionaries({}, optional={"event_data": values, "trigger_id": indices}),
)
@example(4, ["street", 500], {})
@example(4, ["street", -3], {})
@example(5, [float("nan")], {})
def test_whatever_private_events_are_sent(page, index, data, more):
    body = {"data": data, "fn_index": index, **more}
    post(f"{page}/gradio_api/run/predict", body)
    session = uuid.uuid4().hex
    if post(f"{page}/gradio_api/queue/join", {**body, "session_hash": session}).status_code != 200:
        return
    with httpx.stream("GET", f"{page}/gradio_api/queue/data?session_hash={session}", timeout=60) as messages:
        for line in messages.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            assert not any(content in line for content in FILES.values())
            if message.get("msg") == "process_completed":
                assert message["success"] or in_words(message["output"])
                break


@given(
    st.dictionaries(st.sampled_from(["data", "fn_index", "session_hash", "batched", "simple_format"]), values) | values
)
def test_whatever_is_queued(page, body):
    post(f"{page}/gradio_api/queue/join", body)


@given(st.lists(st.tuples(texts, texts, st.binary(max_size=40)), max_size=3), st.binary(max_size=60))
def test_whatever_is_uploaded(page, parts, body):
    url = f"{page}/gradio_api/upload"
    folders = set()
    for name, file_name, content in parts:
        answer = harmless(httpx.post(url, files={name: (file_name, content)}, timeout=60))
        if answer.status_code == 200:
            folders |= {Path(path).resolve().parents[1] for path in answer.json()}
    assert len(folders) <= 1  # each in a folder of its content, and those in the folder of uploads
    for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "text/plain"):
        assert harmless(httpx.post(url, content=body, headers={"Content-Type": kind}, timeout=60)).status_code < 600


@given(st.lists(texts | st.sampled_from([".", "~", "%2e%2e", *"etc passwd proc self environ".split()]), max_size=4))
@example([str(STREET)])
@example([ADDRESSES[0]])
@example(["http:/", "example.com", "a.png"])
def test_whatever_file_is_asked_for(page, parts):
    path = quote("/".join(parts), safe="").replace(".", "%2E")
    assert harmless(httpx.get(f"{page}/gradio_api/file={path}", timeout=60)).status_code >= 400
