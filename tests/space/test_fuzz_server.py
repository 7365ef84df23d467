"""Whatever a stranger sends: a sentence or a status comes back, no file of the server, and the page goes on working.

`FCN_FUZZ_EXAMPLES=3000 pytest tests/space/test_fuzz_server.py` looks for new cases for some minutes.
"""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.load_page import local_answers, wrong_answers
from space.kinds import load_segmenters
from space.pictures import EXAMPLES
from tests.space.visitors import HTTP, listen, trigger

ROOT = Path(__file__).resolve().parents[2]
STREET = EXAMPLES / "street" / "street-1.png"
FILES = {str(ROOT / "SECURITY.md"): "**Reporting.**", str(ROOT / "app.py"): "Entry point", "/etc/passwd": "root:"}
"""Files of the server, and what none of its answers may hold."""
ADDRESSES = ("http://127.0.0.1:9/a.png", "HTTPS://localhost/a", "file:///etc/passwd", "data:image/png;base64,iVBORw0=")

texts = st.text(max_size=12) | st.sampled_from([*FILES, *ADDRESSES, str(STREET), "\0", "..", "models"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
metas = st.sampled_from([{"_type": "gradio.FileData"}, {}, None, 3])
files = st.fixed_dictionaries(
    {"path": scalars}, optional={"meta": metas, "url": scalars, "is_stream": scalars, "orig_name": scalars}
)
values = st.recursive(
    scalars | files, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
endpoints = st.sampled_from(["compare", "explain", "classify"])


@pytest.fixture(scope="module")
def page(server, model_folders):
    """Address of the page, which still names every pixel of a picture as its networks do when all is over."""
    yield server
    expected = {STREET: local_answers(load_segmenters(model_folders), STREET)}
    assert wrong_answers(server, expected, clients=1) == []


@pytest.fixture(scope="module")
def indices(page):
    """Numbers of the page's events, and of none."""
    count = len(HTTP.get(f"{page}/config").json()["dependencies"])
    return st.integers(-1, count) | st.sampled_from([-(2**70), 2**70])


def post(url, body):
    return harmless(HTTP.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"}))


def harmless(response):
    assert "Traceback" not in response.text and '"error":null' not in response.text.replace(" ", "")
    assert not any(content in response.text for content in FILES.values())
    return response


def in_words(content):
    """Whether an event's error is a sentence; `content` is what came with it."""
    return isinstance(content, dict) and isinstance(content["error"], str) and content["error"].endswith(".")


@given(endpoints, st.lists(values, max_size=5) | values)
@example("compare", [{"path": str(STREET), "meta": 3}])
def test_whatever_a_named_endpoint_is_sent(page, name, data):
    for past_the_queue in ("run", "api"):
        assert post(f"{page}/gradio_api/{past_the_queue}/{name}", {"data": data}).status_code >= 400
    started = post(f"{page}/gradio_api/call/{name}", {"data": data})
    if started.status_code == 200:
        kind, content = listen(page, name, started.json()["event_id"])
        assert kind == "error" and in_words(content)


@given(st.data(), st.lists(values, max_size=5), st.dictionaries(st.sampled_from(["event_data", "trigger_id"]), values))
def test_whatever_private_events_are_sent(page, indices, drawn, data, more):
    body = {"data": data, "fn_index": drawn.draw(indices), **more}
    post(f"{page}/gradio_api/run/predict", body)
    if answer := trigger(page, body):
        success, output = answer
        assert success or in_words(output)
        assert not any(content in json.dumps(output) for content in FILES.values())


@given(st.dictionaries(st.sampled_from(["data", "fn_index", "session_hash", "batched"]), values) | values)
def test_whatever_is_queued(page, body):
    post(f"{page}/gradio_api/queue/join", body)


@given(st.lists(st.tuples(texts, texts, st.binary(max_size=40)), max_size=3), st.binary(max_size=60))
def test_whatever_is_uploaded(page, parts, body):
    url = f"{page}/gradio_api/upload"
    folders = set()
    for name, file_name, content in parts:
        answer = harmless(HTTP.post(url, files={name: (file_name, content)}))
        if answer.status_code == 200:
            folders |= {Path(path).resolve().parents[1] for path in answer.json()}
    assert len(folders) <= 1  # each in a folder of its content, and those in the folder of uploads
    for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "text/plain"):
        assert harmless(HTTP.post(url, content=body, headers={"Content-Type": kind})).status_code < 600


@given(st.lists(texts | st.sampled_from([".", "~", "%2e%2e", *"etc passwd proc self environ".split()]), max_size=4))
@example([str(STREET)])
@example([ADDRESSES[0]])
@example(["http:/", "example.com", "a.png"])
def test_whatever_file_is_asked_for(page, parts):
    path = quote("/".join(parts), safe="").replace(".", "%2E")
    assert harmless(HTTP.get(f"{page}/gradio_api/file={path}")).status_code >= 400
