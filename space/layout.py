"""What the events and texts of all tabs have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from space.panels import message
from space.texts import LANGUAGES, PAGE, translations

I18N = gr.I18n(**translations())
"""`I18N(key)` is a text that the browser shows in its language: a label, or the value of `gr.HTML`."""


def page_text(name: str) -> str:
    """A file of the page: a style or a script."""
    return (PAGE / name).read_text(encoding="utf-8")


def say_on_failure(event: Any, key: str, outputs: Sequence[Any]) -> None:
    """Where an event fails, show the text of a key in the first of its outputs (`gr.HTML`) and empty the others.

    The browser does it, as a full queue answers before any handler runs.
    """
    others = [""] * (len(outputs) - 1)
    values = {code: [message(language(key), "error"), *others] for code, language in LANGUAGES.items()}
    event.failure(None, None, list(outputs), js=f"() => ({json.dumps(values)})[fcn.language]", api_visibility="private")
