"""Bare requests to the page, as no well-meant client sends them."""

import json
import time
import uuid

import httpx

# The server hangs up after some errors, so no connection is used twice.
HTTP = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def send(server, path):
    """Upload a file; its path at the server."""
    return HTTP.post(f"{server}/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()[0]


def ask(server, event, data):
    """Ask for a named event, without listening for the answer: the response, with its "event_id" if it was accepted."""
    return HTTP.post(f"{server}/gradio_api/call/{event}", json={"data": data})


def listen(server, event, event_id, seconds=60):
    """The answer of what was asked for: the kind of the last message, "complete" or "error", and its data."""
    deadline, kind = time.monotonic() + seconds, None
    with HTTP.stream("GET", f"{server}/gradio_api/call/{event}/{event_id}", timeout=seconds) as messages:
        for line in messages.iter_lines():
            kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
            if line.startswith("data: ") and kind in ("complete", "error"):
                return kind, json.loads(line.removeprefix("data: "))
            assert time.monotonic() < deadline, "only heartbeats"


def call(server, event, data, seconds=60):
    """What a request is answered: "complete", "error" or "refused", and the data."""
    started = ask(server, event, data)
    if started.status_code != 200:
        return "refused", started.text
    return listen(server, event, started.json()["event_id"], seconds)


def trigger(server, body, language="en"):
    """The answer of an event of the page, as a browser of this language asks for it: whether it went well and its
    output, or None if it was refused; `body` has its "fn_index" and "data"."""
    session = uuid.uuid4().hex
    headers = {"Content-Type": "application/json", "Accept-Language": language}
    body = json.dumps({**body, "session_hash": session})  # by itself, as it may hold NaN
    if HTTP.post(f"{server}/gradio_api/queue/join", content=body, headers=headers).status_code != 200:
        return None
    with HTTP.stream("GET", f"{server}/gradio_api/queue/data?session_hash={session}") as messages:
        for line in messages.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message["success"], message["output"]
