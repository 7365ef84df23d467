"""Where the page is served, and how it looks there."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from space.layout import I18N, page_text
from space.uploads import MAX_UPLOAD_BYTES, AddressError, NothingFetched

STYLES = ("page.css", "explanation.css", "explain.css", "several.css", "phone.css")

SCRIPTS = (
    "page.js",
    "masks.js",
    "zoom.js",
    "probe.js",
    "slide.js",
    "explain.js",
    "link.js",
    "downloads.js",
    "live.js",
)
"""The first one has what they share."""

LAST_PORT = 65535

THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    checkbox_border_color_dark="*neutral_400",
)
"""Gradio's own, but for what is too pale to be read or seen."""


def address() -> tuple[str, int]:
    """Where the page is served: 127.0.0.1:`PORT` (7860), or where a Space's environment says.

    Raises:
        AddressError: the port is no number, or out of range.
    """
    given = os.environ.get("PORT") or os.environ.get("GRADIO_SERVER_PORT") or "7860"
    if not given.strip().isdecimal() or int(given) > LAST_PORT:
        raise AddressError(f"The page can't be served at port {given[:40]!r}: set PORT to a number of 0..{LAST_PORT}.")
    return os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(given)


def launch(page: gr.Blocks, **options: Any) -> Any:
    """Serve the page at its `address`."""
    host, port = address()
    settings: dict[str, Any] = {
        "server_name": host,
        "server_port": port,
        "theme": THEME,
        "css": "".join(map(page_text, STYLES)),
        "head": f"<script>{''.join(map(page_text, SCRIPTS))}</script>",
        "footer_links": [],
        "i18n": I18N,
        "max_file_size": MAX_UPLOAD_BYTES,
        "ssr_mode": False,
        "share": False,
        "app_kwargs": {"middleware": [Middleware(NothingFetched)]},
    }
    return page.launch(**(settings | options))
