"""What a request may carry, and for how long it may be worked on."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import gradio as gr
from gradio.i18n import I18nData
from gradio.utils import get_upload_folder
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fcn_hf.errors import FCNError
from fcn_hf.memory import hand_back_freed_memory
from space.texts import ENGLISH, request_language
from space.waiting import TAKING_TURNS

META = {"_type": "gradio.FileData"}
"""By which Gradio knows file data."""

MAX_UPLOAD_BYTES = 30 * 1024**2

MAX_FILES = 50
"""Files that one request may name."""

MAX_FRAME_CHARACTERS = 4 * 1024**2
"""Of one picture of a camera, which comes as text: 1920 x 1080 pixels are about a quarter of it."""

FRAME_START = "data:image/jpeg;base64,"

MAX_SECONDS = 60
"""After which a request is given up and the next one served."""

HAND_BACK_EVERY = 10
"""Requests after which freed memory is handed back: of pictures of ever other sizes the page would grow without end."""

_runs = itertools.count(1)

NOT_UPLOADED = (
    "Please send a picture: choose a file on the page, or handle_file(path of a file of yours). "
    "Addresses, and files that were not uploaded here or were deleted since, are not opened."
)
"""One sentence for all of it: whether a file that isn't a visitor's exists is not to be told from the answer."""

TOO_MANY_FILES = f"Please choose at most {MAX_FILES} pictures at a time."
NOT_A_FRAME = "Please start the camera: this takes its pictures (JPEG, at most 3 MB), one at a time, and nothing else."

NOT_ANSWERED = "This request could not be answered: it is not one that the page or its documented API sends."
NOT_FETCHED = "Addresses are not fetched: please send the file itself."

TOO_LONG = f"This picture took longer than {MAX_SECONDS} seconds and was given up: please send a smaller one."


class AddressError(FCNError):
    """The page can't be served where it should be."""


class UploadsOnly(gr.Blocks):
    """A page whose events get no file but those that were uploaded to it.

    Gradio itself looks only at file data that carries `meta`, and then fetches addresses: what is checked here is all
    that the rest of it sees of a request.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self._turn = asyncio.Lock()

    def delete_later(self, path: Path) -> None:
        """Delete a file that the page writes when it is as old as uploads may become."""
        self.upload_file_set.add(str(path))

    async def call_function(self, block_fn: Any, *arguments: Any, **settings: Any) -> dict[str, Any]:
        """Gradio's own, where those that make networks work take turns: a request, one of many pictures, or a frame."""
        if block_fn.concurrency_id not in TAKING_TURNS:
            return await super().call_function(block_fn, *arguments, **settings)
        async with self._turn:
            return await super().call_function(block_fn, *arguments, **settings)

    async def process_api(self, block_fn: Any, *arguments: Any, **settings: Any) -> dict[str, Any]:
        """Gradio's own, where whatever goes wrong is answered with a sentence; the page gets the visitor's language."""
        try:
            return await super().process_api(block_fn, *arguments, **settings)
        except Exception as error:
            said = error if isinstance(error, gr.Error) else gr.Error(NOT_ANSWERED)
            if block_fn.api_name is None:
                said.message = request_language(settings.get("request")).sentence(said.message)
            if said is error:
                raise
            raise said from error

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """Gradio's own, on inputs that are complete and checked; `gr.Error` says what is wrong with them."""
        given = [*inputs, *(_default(component) for component in block_fn.inputs[len(inputs) :])]
        checked = [_checked(component, value) for component, value in zip(block_fn.inputs, given, strict=False)]
        return await super().preprocess_data(block_fn, checked, state, explicit_call)

    def hide_private_events(self) -> None:
        """Take the names from private events, by which anyone could call them."""
        for event in self.fns.values():
            if event.api_visibility == "private":
                event.api_name = None


class NothingFetched:
    """In front of Gradio, which would fetch the address in `file=http://...` for whoever asks."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["path"].lower() if scope["type"] == "http" else ""
        app = PlainTextResponse(NOT_FETCHED, 403) if "file=http:" in asked or "file=https:" in asked else self.app
        await app(scope, receive, send)


def uploaded(value: Any) -> str:
    """The path of an uploaded file, resolved; `value` is Gradio's file data as a client sent it.

    Raises:
        gr.Error: anything but a regular file of bounded size in the folder of uploads.
    """
    try:
        path = Path(os.path.realpath(value["path"]))
        within = path.is_relative_to(os.path.realpath(get_upload_folder()))
        if within and path.is_file() and path.stat().st_size <= MAX_UPLOAD_BYTES:
            return str(path)
    except (TypeError, KeyError, IndexError, ValueError, OSError):
        pass
    raise gr.Error(NOT_UPLOADED, print_exception=False)


def several_uploaded(values: Any) -> list[str]:
    """The paths of uploaded files, as `uploaded`.

    Raises:
        gr.Error: no list, more than `MAX_FILES`, or one of them is refused.
    """
    if not isinstance(values, list):
        raise gr.Error(NOT_UPLOADED, print_exception=False)
    if len(values) > MAX_FILES:
        raise gr.Error(TOO_MANY_FILES, print_exception=False)
    return [uploaded(value) for value in values]


def frame(value: Any) -> str:
    """The data URI of a camera's picture; `value` is what a client sent.

    Raises:
        gr.Error: anything but a JPEG of bounded size in a data URI.
    """
    uri = value.get("url") if isinstance(value, dict) and not value.get("path") else None
    if not isinstance(uri, str) or len(uri) > MAX_FRAME_CHARACTERS or not uri.startswith(FRAME_START):
        raise gr.Error(NOT_A_FRAME, print_exception=False)
    return uri


def limited(handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The handler, given up after `MAX_SECONDS`: its thread may go on, but nobody waits for it.

    Every `HAND_BACK_EVERY`th time the memory that it and those before it have freed is handed back.
    """

    @functools.wraps(handler)
    async def run(*arguments: Any) -> Any:
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await anyio.to_thread.run_sync(handler, *arguments, abandon_on_cancel=True)
        except TimeoutError:
            raise gr.Error(TOO_LONG, print_exception=False) from None
        finally:
            if next(_runs) % HAND_BACK_EVERY == 0:
                await anyio.to_thread.run_sync(hand_back_freed_memory)

    return run


def own_folder(host: str, port: int) -> Path:
    """An empty folder for the uploads to the page at this port: what a killed process left in it is gone.

    Gradio takes it from `GRADIO_TEMP_DIR` when the first component is made.

    Raises:
        AddressError: something is served at this port already, perhaps a page whose uploads are there; or the folder
            is another user's.
    """
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / f"fcn-hf-page-{port}"
    try:
        socket.create_server((host, port)).close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise AddressError(f"The page can't be served at {host}:{port} ({error}): set PORT.") from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _default(component: Any) -> Any:
    return component.value if isinstance(component, gr.Radio | gr.Checkbox) else None


def _checked(component: Any, value: Any) -> Any:
    if isinstance(component, gr.Image):
        if component.streaming:
            return {"url": frame(value), "meta": META}
        return None if value is None else {"path": uploaded(value), "meta": META}
    if isinstance(component, gr.File):
        return None if value is None else [{"path": path, "meta": META} for path in several_uploaded(value)]
    if _names_a_file(value):
        raise gr.Error(NOT_UPLOADED, print_exception=False)
    # Models that are typed in have a slash; whether there are such, the handler says.
    if isinstance(component, gr.Radio) and not (isinstance(value, str) and "/" in value):
        names = [str(name) for _, name in component.choices]
        if value not in names:
            sentence = f"There is no kind of picture {_brief(value)}, but: {', '.join(names)}."
            raise gr.Error(sentence, print_exception=False)
    if isinstance(component, gr.Checkbox) and not isinstance(value, bool):
        raise gr.Error(f"{_label(component)}: true or false, not {_brief(value)}.", print_exception=False)
    if isinstance(component, gr.Slider):
        least, most = component.minimum, component.maximum
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            sentence = f"{_label(component)} is a number from {least} to {most}, not {_brief(value)}."
            raise gr.Error(sentence, print_exception=False)
    return value


def _label(component: Any) -> str:
    label = component.label
    return ENGLISH(label.key) if isinstance(label, I18nData) else label


def _names_a_file(value: Any) -> bool:
    """Whether Gradio could take a part of this for a file, which it would look for or fetch."""
    if isinstance(value, dict):
        return not value.keys().isdisjoint(("path", "url")) or any(map(_names_a_file, value.values()))
    return isinstance(value, list) and any(map(_names_a_file, value))


def _brief(value: Any) -> str:
    return repr(str(value)[:40])
