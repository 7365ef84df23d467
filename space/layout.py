"""What the events and texts of all tabs have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from space.panels import message

PAGE = Path(__file__).parent / "page"


def page_text(name: str) -> str:
    """A file of the page: HTML, a style or a script."""
    return (PAGE / name).read_text(encoding="utf-8")


def say_on_failure(event: Any, text: str, outputs: Sequence[Any]) -> None:
    """Where an event fails, show a sentence in the first of its outputs (`gr.HTML`) and empty the others.

    The browser does it, as a full queue answers before any handler runs.
    """
    values = [message(text, "error"), *[""] * (len(outputs) - 1)]
    event.failure(None, None, list(outputs), js=f"() => {json.dumps(values)}", api_visibility="private")
