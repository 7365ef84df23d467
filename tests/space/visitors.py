"""Bare requests to the page, as no well-meant client sends them."""

import json
import time

import httpx


def send(server, path):
    """Upload a file; its path at the server."""
    return httpx.post(f"{server}/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()[0]


def ask(server, event, data):
    """Ask for a named event, without listening for the answer: the response, with its "event_id" if it was accepted."""
    return httpx.post(f"{server}/gradio_api/call/{event}", json={"data": data}, timeout=60)


def listen(server, event, event_id, seconds=60):
    """The answer of what was asked for: the kind of the last message, "complete" or "error", and its data."""
    deadline, kind = time.monotonic() + seconds, None
    with httpx.stream("GET", f"{server}/gradio_api/call/{event}/{event_id}", timeout=seconds) as messages:
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
